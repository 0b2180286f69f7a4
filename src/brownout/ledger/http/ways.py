"""How a handler's answer becomes a fact, and what the caller is told: by the handler's class.

1. Nothing that says "done" is sent before the ledger has it.
2. An exception, or a 5xx, releases no key: an opaque handler's is in doubt, a resumable one's goes on with
   the next call, and an atomic one's shows by its row whether it was committed.
3. `Outcome` is written only where it is certain.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar, cast

from brownout._core.ledger import HandlerClass, Standing
from brownout.errors import (
    InDoubt,
    LedgerError,
    LedgerUnavailable,
    NoEffect,
    StillRunning,
    Voided,
)
from brownout.ledger.declined import amend

from .kept import replay
from .problem import DONE, DOUBT, NOT_STARTED, RUNNING, Problem, Sent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from brownout._core.ledger import Answer, Claim, Found, Reply
    from brownout.ledger.front import Ledger

    from .exchange import Exchange

    Later = Callable[[Coroutine[Any, Any, None]], None]

T = TypeVar("T")

__all__ = ["GATE", "Way", "is_no_effect", "problem_of", "settled"]

log = logging.getLogger("brownout")

# What stands in front of a handler says these, also where it is built into its framework.
GATE = {401, 413, 422, 429}
AGAIN_SECONDS = (0.05, 0.2, 0.5)
LATE_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
NO_EFFECT = "The handler says that nothing was done. The same key may be used again."


class Way:
    """The way of opaque and resumable handlers: their row is there from the start, and ends as they do."""

    def __init__(self, ledger: Ledger, claim: Claim, exchange: Exchange, later: Later) -> None:
        self.ledger = ledger
        self.claim = claim
        self.exchange = exchange
        self._later = later
        self._kept = False  # all that is ever kept of the answer is kept

    async def weigh(self) -> None:
        """More of the answer has come."""
        exchange, came = self.exchange, self.exchange.came
        if exchange.released:
            if came.ended:
                await self.add()
        elif not (came.ended or came.large):
            pass
        elif exchange.declared == NOT_STARTED:
            await self.no_effect()
        elif came.status < 500:
            await self.complete()
        elif came.large:
            await self.failed()
        # else an exception may be on its way that says more than the 500 made of it

    async def complete(self) -> None:
        """Keep the answer; then let it out, or what holds in its stead."""
        reply = self.exchange.came.reply()
        try:
            told = await self.again(lambda: self.ledger.acomplete(self.claim, reply))
        except (StillRunning, Voided, InDoubt) as error:
            await self.exchange.answer(problem_of(error))
        except Exception:
            await self.unrecorded(reply)
        else:
            self._kept = reply.whole
            await self.tell(told, reply)

    async def tell(self, told: Reply, reply: Reply) -> None:
        """Let the answer out; but what the ledger told instead, if another attempt was first."""
        if told == reply:
            await self.exchange.release(DONE)
        else:
            await self.exchange.answer(replay(told))

    async def add(self) -> None:
        """The end of a long answer: what can be kept of it, as far as that goes. The fact is kept already."""
        if self._kept:
            return
        self._kept = True
        try:
            await amend(self.ledger, self.claim, self.exchange.came.reply())
        except Exception as error:
            log.warning("the end of an answer could not be kept: %s", type(error).__name__)

    async def no_effect(self) -> None:
        """The handler says that it has done nothing."""
        try:
            await self.again(lambda: self.ledger.arelease(self.claim))
        except Exception as error:  # the key stays taken until its lease is over
            log.warning("a key could not be released: %s", type(error).__name__)
        resumable = (
            self.claim.handler is HandlerClass.RESUMABLE
        )  # an earlier run may have done something
        await self.pass_on(RUNNING if resumable else NOT_STARTED, "no-effect", NO_EFFECT)

    async def failed(self) -> None:
        """The handler raised, or answered with a 5xx."""
        try:
            await self.again(lambda: self.ledger.adoubt(self.claim))
        except Exception as error:  # as soon as its lease is over it stands so by itself
            log.warning("a handler's failure could not be recorded: %s", type(error).__name__)
        if self.claim.handler is HandlerClass.RESUMABLE:
            detail = "It was begun, and failed. Call again with the same key: it goes on."
            await self.pass_on(RUNNING, "handler-failed", detail)
        else:
            detail = "It may have happened. It is not run again; ask whoever can look."
            await self.pass_on(DOUBT, "handler-failed", detail)

    async def pass_on(self, outcome: str, name: str, detail: str) -> None:
        """Let the handler's own complete answer out; without one, a problem."""
        wait = 1.0 if outcome == RUNNING else None
        came = self.exchange.came
        if came.status and (came.ended or came.large) and self.exchange.misuse is None:
            again = [("retry-after", "1")] if wait else []
            await self.exchange.release(outcome, *again)
        else:
            problem = Problem(name, detail, outcome=outcome, retry_after=wait)
            await self.exchange.answer(problem)

    async def finish(self, error: BaseException | None) -> None:
        """The handler is at its end, by an exception or not."""
        if self.exchange.answered.is_set():
            if self.exchange.released and not self.exchange.came.ended:
                log.error("a handler ended in the midst of an answer that had begun as done")
        elif is_no_effect(error):
            self.exchange.came.status = 0  # the 500 that a framework made of it says less
            await self.no_effect()
        else:
            await self.failed()

    # ------------------------------------------------------------------- where the ledger is in trouble

    async def again(self, what: Callable[[], Awaitable[T]]) -> T:
        """Ask the ledger, and after a short while again: the work is done, and only its record is missing."""
        for pause in AGAIN_SECONDS:
            try:
                return await what()
            except LedgerUnavailable:
                await asyncio.sleep(pause)
        return await what()

    async def unrecorded(self, reply: Reply) -> None:
        """Say that what it answered could not be recorded, and go on trying: its owner may tell late."""
        log.error("what a handler answered could not be recorded: trying on")
        self._later(self._late(lambda: self.ledger.acomplete(self.claim, reply)))
        detail = "It ran, and its end could not be recorded. Ask what became of it, by its key."
        await self.exchange.answer(Problem("not-recorded", detail, retry_after=1.0))

    async def _late(self, what: Callable[[], Awaitable[Any]]) -> None:
        for pause in LATE_SECONDS:
            await asyncio.sleep(pause)
            try:
                await what()
            except LedgerUnavailable:
                continue
            except LedgerError as error:  # settled otherwise meanwhile
                log.warning("a late record was refused: %s", error)
            return
        log.error("what a handler answered could not be recorded at all")


def is_no_effect(error: BaseException | None) -> bool:
    """Whether it says that nothing was done: NoEffect itself, not what was raised because of one."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return all(is_no_effect(one) for one in group.exceptions)
    return isinstance(error, NoEffect)


def settled(found: Found | Answer) -> Sent | Problem:
    """What a call is answered for which there is no more to run, or not now."""
    if found.standing is Standing.DONE:
        return replay(found.reply)
    if found.standing is Standing.VOID:
        return Problem("voided", "Its caller had it voided. It never happened, and never will.")
    if found.standing is Standing.DOUBT:
        return Problem("in-doubt", "It was begun, and may have happened. It is not run again.")
    wait = 1.0 if found.retry_after is None else found.retry_after
    detail = "Call again with the same key for its answer, with `Prefer: wait=10` to wait for it."
    return Problem("running", detail, retry_after=min(wait, 5.0))


def problem_of(error: Exception) -> Problem:
    """What a call is answered that the ledger refuses."""
    name = type(error).__name__
    if isinstance(error, StillRunning):
        return Problem("running", str(error), retry_after=error.retry_after or 1.0)
    named = {
        "Voided": "voided",
        "InDoubt": "in-doubt",
        "KeyMalformed": "key-malformed",
        "KeyFromTheFuture": "key-from-the-future",
        "KeyTooOld": "key-too-old",
        "OtherPayload": "other-payload",
    }
    if isinstance(error, LedgerError) and name in named:
        return Problem(named[name], str(error))
    log.error("the ledger can't be used, so a call with a key was not begun: %s", name)
    detail = "What has a key is not begun without the ledger. Nothing was done; try again."
    return Problem("ledger-unavailable", detail, retry_after=1.0)
