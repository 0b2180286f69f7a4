"""The ledger: what became of a piece of work, by its key.

    ledger = Ledger("sqlite:////var/lib/shop/ledger.db")      # or postgresql://, redis://, memory:
    ledger.create()
    found = ledger.claim(key, fingerprint, "opaque")          # a Claim: run it; a Found: somebody was first

Whoever got no answer asks, and gets a fact: `ledger.ask(key, void=True, seconds=5)` tells what became of
the key, and sees to it that what has not begun never does. A caller has a `Guard(ask=..., journal=...)`.

The front door imports this package for the journal of guards; each name is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from brownout import _guard

if TYPE_CHECKING:
    from brownout._core.journal import Entry, Journal
    from brownout._core.ledger import (
        Answer,
        Asker,
        Claim,
        Found,
        HandlerClass,
        Reply,
        Row,
        Standing,
        Store,
    )
    from brownout._find import Find
    from brownout.ledger.front import Ledger, current
    from brownout.ledger.once import Once
    from brownout.ledger.outcomes import Outcomes

__all__ = [
    "Answer",
    "Asker",
    "Claim",
    "Entry",
    "Find",
    "Found",
    "HandlerClass",
    "Journal",
    "Ledger",
    "Once",
    "Outcomes",
    "Reply",
    "Row",
    "Standing",
    "Store",
    "current",
]

_LATE = {
    "_core.journal": "Entry Journal",
    "_core.ledger": "Answer Asker Claim Found HandlerClass Reply Row Standing Store",
    "_find": "Find",
    "ledger.front": "Ledger current",
    "ledger.once": "Once",
    "ledger.outcomes": "Outcomes",
}
_MODULES = {name: module for module, names in _LATE.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"brownout.{_MODULES[name]}"), name)


def _open_journal(url: str) -> Journal:
    from brownout.ledger import journal

    return journal.opened(url)


_guard.open_journal.append(_open_journal)
