"""Whom a guard asks: a ledger, or a foreign API by its own look-up."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from brownout._core.ledger import Answer, Standing
from brownout._drive.function import is_async, name_of
from brownout.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable


class Find:
    """Ask a foreign API by its own look-up: `Guard("bank", ask=Find(find, horizon_seconds=600))`.

    `find(key)` returns what it found (that is the outcome's value), or None. `def` or `async def`; how long
    it may take is told by `brownout.remaining()`. Not found proves nothing, as it may still be on its way:
    only after `horizon_seconds` since the caller last sent it, the longest that the API can take, is it taken
    for a fact. That number is yours to know; without it nothing but found is ever a fact. A look-up can't
    void. A plain `ask=find` is `Find(find)`.
    """

    def __init__(self, find: Callable[[str], Any], *, horizon_seconds: float = inf) -> None:
        number = isinstance(horizon_seconds, (int, float)) and not isinstance(horizon_seconds, bool)
        if not number or not horizon_seconds > 0:
            raise ConfigurationError(
                f"Find(horizon_seconds={horizon_seconds!r}): give seconds above 0, or leave it out"
            )
        if not callable(find) or isinstance(find, type):
            raise ConfigurationError(f"Find({find!r:.80}): give a function that takes a key")
        self.find = find
        self.horizon_seconds = horizon_seconds
        if is_async(find):
            self.aask = self._aask

    def ask(self, key: str, *, void: bool, seconds: float) -> Answer:
        """Look it up, in this thread."""
        if is_async(self.find):
            raise TypeError(f"{name_of(self.find)} is async: use `await guard.aresolve(...)`")
        return _found(self.find(key))

    async def _aask(self, key: str, *, void: bool, seconds: float) -> Answer:
        return _found(await self.find(key))


def _found(value: Any) -> Answer:
    if value.__class__.__name__ == "coroutine":
        value.close()
        raise TypeError("the look-up returned a coroutine: give the async function itself")
    return Answer(Standing.ABSENT) if value is None else Answer(Standing.DONE, value)


def ask_faults(ask: object) -> list[str]:
    """What is wrong with what a guard was given to ask."""
    ways = "give ask=Outcomes(url), ask=Ledger(url), or a function that looks a key up"
    if ask is None:
        return []
    if isinstance(ask, str):
        return [f"ask is a text: {ways}"]  # not shown: a URL may hold a password
    if isinstance(ask, type):
        return [f"ask={ask.__name__} is a class, not one that is made: {ways}"]
    asks = getattr(ask, "ask", None)
    if asks is None:
        return [] if callable(ask) else [f"ask={type(ask).__name__} can't be asked: {ways}"]
    if not callable(asks) or is_async(asks):
        return [f"{type(ask).__name__}.ask must be a `def`; its form for asyncio is called aask"]
    aask = getattr(ask, "aask", None)
    if aask is not None and not is_async(aask):
        return [f"{type(ask).__name__}.aask must be an `async def`"]
    return []


def answer(told: Any, asker: Any) -> Answer:
    """What was told, if it is an Answer. Raises TypeError otherwise."""
    if not isinstance(told, Answer):
        raise TypeError(f"{type(asker).__name__}.ask returned {told!r:.80}: give an Answer")
    return told
