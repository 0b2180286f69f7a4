"""The ledger: what became of a piece of work, by its key.

    ledger = Ledger("sqlite:////var/lib/shop/ledger.db")      # or postgresql://, redis://, memory:
    ledger.create()
    found = ledger.claim(key, fingerprint, "opaque")          # a Claim: run it; a Found: somebody was first

Whoever got no answer asks, and gets a fact: `ledger.ask(key, void=True, seconds=5)` tells what became of
the key, and sees to it that what has not begun never does.
"""

from __future__ import annotations

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
from brownout.ledger.front import Ledger, current
from brownout.ledger.once import Once
from brownout.ledger.outcomes import Outcomes

__all__ = [
    "Answer",
    "Asker",
    "Claim",
    "Found",
    "HandlerClass",
    "Ledger",
    "Once",
    "Outcomes",
    "Reply",
    "Row",
    "Standing",
    "Store",
    "current",
]
