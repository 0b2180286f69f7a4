"""Who calls, and the scope in the ledger that this and the route make."""

from __future__ import annotations

import hashlib
import inspect
import logging
from typing import TYPE_CHECKING, Any

from .problem import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Principal = Callable[[MutableMapping[str, Any]], str | Awaitable[str | None] | None]

__all__ = ["scope_of", "who"]

log = logging.getLogger("brownout")
LONGEST = 150


async def who(principal: Principal, scope: MutableMapping[str, Any]) -> str:
    """The name of who calls. Raises Problem if nobody knows, or asking for it failed."""
    try:
        name = principal(scope)
        if inspect.isawaitable(name):
            name = await name
    except Exception:
        log.exception("Once: principal failed, so the call was not begun")
        raise Problem(
            "principal-failed", "The server could not find out who calls. Nothing was begun."
        ) from None
    if name is None or name == "":
        raise Problem("no-principal", "A call with a key must say who calls: sign in.")
    if not isinstance(name, str):
        log.error("Once: principal must give a str or None, not %s", type(name).__name__)
        raise Problem("principal-failed", "The server can't tell who calls. Nothing was begun.")
    return name


def scope_of(outer: str, template: str, name: str) -> str:
    """The scope of a route for one principal. No two of them are the same text."""
    if len(name) > LONGEST or not name.isprintable() or name.startswith("sha256:"):
        name = "sha256:" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{outer} {template} {name}" if outer else f"{template} {name}"
