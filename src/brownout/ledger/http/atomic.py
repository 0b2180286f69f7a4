"""The way of atomic handlers: their row comes with the commit of their own transaction."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from brownout._core.ledger import HandlerClass, Standing
from brownout.errors import InDoubt, NotEnlisted, StillRunning, Voided
from brownout.ledger.declined import decline, unrecorded

from .problem import NOT_STARTED, Problem
from .questions import REPLY_WAITS
from .ways import GATE, NO_EFFECT, Way, is_no_effect, problem_of, settled

if TYPE_CHECKING:
    from brownout._core.ledger import Answer, Claim
    from brownout.ledger.front import Ledger

    from .exchange import Exchange
    from .ways import Later

__all__ = ["way"]

log = logging.getLogger("brownout")
_OPEN = "The handler answered, and its transaction was not committed. Ask what became of it."


class Atomic(Way):
    """The way of atomic handlers: the row comes with the commit of the handler's own transaction."""

    _looked = False

    @property
    def open(self) -> bool:
        """Whether its transaction has not ended: what was written into it is no fact yet."""
        with suppress(Exception):  # of a connection that was closed meanwhile
            return self.claim.enlisted is not None and bool(self.claim.enlisted.open())
        return False

    async def weigh(self) -> None:
        """More of the answer has come."""
        exchange, came = self.exchange, self.exchange.came
        if exchange.released:
            if came.ended:
                await self.add()
        elif came.status >= 500 or exchange.declared == NOT_STARTED:
            if came.large:
                await self.failed()
        elif self.claim.enlisted is None:
            if came.ended or came.large:
                await self.unenlisted()
        elif came.status >= 400:
            if came.large or (came.ended and not self.open):
                await self.decline()
        elif came.ended or came.large or not self._looked:
            self._looked = True  # a stream that goes on goes out as soon as its row is there
            await self.look()

    async def unenlisted(self) -> None:
        """An answer of a handler that has put no row into its transaction. Raises NotEnlisted at it."""
        status = self.exchange.came.status
        if status in GATE:
            await self.exchange.release("")
        elif status >= 400:
            await self.decline()
        else:
            self.misuse("its handler has put no row of the ledger into its transaction")

    async def look(self) -> None:
        """Answer if the transaction is committed; else that may come when the handler ends."""
        with suppress(NotEnlisted):
            await self.committed()
        if self.exchange.came.large and not self.exchange.answered.is_set():
            self.misuse("its handler sends a long answer before its transaction is committed")

    async def committed(self) -> None:
        """Add the answer to the row, which shows that it is there. Raises NotEnlisted if it is not.

        Where the transaction is still open, the answer becomes part of it, and it is too early to tell.
        """
        reply, early = self.exchange.came.reply(), self.open
        try:
            told = await self.again(lambda: self.ledger.acomplete(self.claim, reply))
        except NotEnlisted:
            raise
        except (StillRunning, Voided, InDoubt) as error:
            await self.exchange.answer(problem_of(error))
        except Exception:
            await self.unrecorded(reply)
        else:
            if not early:
                self._kept = reply.whole
                await self.tell(told, reply)

    def misuse(self, what: str) -> None:
        """Stop the handler, so that what it has not committed is rolled back."""
        error = NotEnlisted(
            f"the route is atomic, and {what}; call ledger.enlist(connection) first in the"
            " transaction, and commit it before you answer",
            key=self.claim.key,
            scope=self.claim.scope,
        )
        self.exchange.misuse = error
        raise error

    async def decline(self) -> None:
        """A no that was decided on: it holds for this key, also if nothing was committed."""
        reply = self.exchange.came.reply()
        try:
            if self.claim.enlisted is not None:  # a row that was committed takes it in
                await self.again(lambda: self.ledger.acomplete(self.claim, reply))
            told = await self.again(lambda: decline(self.ledger, self.claim, reply))
        except (StillRunning, Voided, InDoubt) as error:
            await self.exchange.answer(problem_of(error))
        except Exception as error:
            # Its caller would take the no for certain, and a late duplicate could yet succeed.
            log.warning("a handler's no could not be recorded: %s", type(error).__name__)
            detail = (
                "It was declined, and that could not be recorded. Call again, with the same key."
            )
            await self.exchange.answer(Problem("not-recorded", detail, retry_after=1.0))
        else:
            self._kept = True
            await self.tell(told, reply)

    async def failed(self) -> None:
        """It raised, or says 5xx: its row shows whether it was committed all the same."""
        if not await self.found():
            # Rolled back, most likely; but a commit whose confirmation was lost may yet be under way.
            detail = "It failed. Call again with the same key, or ask what became of it."
            await self.pass_on("", "handler-failed", detail)

    async def found(self) -> bool:
        """Answer what the ledger has of the key: a commit after all, or another attempt that was first."""
        waits = REPLY_WAITS if self.claim.enlisted is None else ()  # another's answer may follow
        try:
            found = await self.again(self.look_up)
            for pause in waits:
                if not found.pending:
                    break
                await asyncio.sleep(pause)
                found = await self.look_up()
        except Exception as error:
            log.warning("a failed transaction can't be looked for: %s", type(error).__name__)
            return False
        if found.standing is not Standing.ABSENT:
            await self.exchange.answer(settled(found))
        return found.standing is not Standing.ABSENT

    async def look_up(self) -> Answer:
        """Where the key stands."""
        return await self.ledger.aask(self.claim.key, void=False, seconds=0.0)

    async def no_effect(self) -> None:
        """The handler says that it has done nothing: its transaction is rolled back, by itself."""
        await self.pass_on(NOT_STARTED, "no-effect", NO_EFFECT)

    async def finish(self, error: BaseException | None) -> None:
        """The handler is at its end, and with it its transaction."""
        exchange, came = self.exchange, self.exchange.came
        if exchange.answered.is_set():
            await super().finish(error)
        elif exchange.misuse is not None:
            await self.misused()
        elif is_no_effect(error):
            came.status = 0
            await self.no_effect()
        elif error is None and exchange.declared == NOT_STARTED and came.ended:
            await self.no_effect()
        elif error is not None or not came.ended or came.status >= 500:
            await self.failed()
        else:
            await self.at_last()

    async def at_last(self) -> None:
        """A complete answer, and no row when it came: now the transaction has ended."""
        if self.exchange.came.status >= 400 and not self.open:
            await self.decline()
            return
        with suppress(NotEnlisted):
            await self.committed()
        if not self.exchange.answered.is_set() and not await self.found():
            log.error("an atomic handler has answered, and not committed its transaction")
            await self.exchange.answer(Problem("not-committed", _OPEN))

    async def misused(self) -> None:
        """Nobody knows what it has committed without the row: it is in doubt, and is never run again."""
        log.error("%s", self.exchange.misuse)
        if await self.found():
            return
        detail = "The handler did not record what it did. The server is to be mended first."
        if self.claim.enlisted is not None:
            await self.exchange.answer(Problem("not-committed", detail))
            return
        try:
            await self.again(lambda: unrecorded(self.ledger, self.claim))
        except Exception:
            log.exception("that a call is in doubt could not be recorded: trying on")
            self._later(self._late(lambda: unrecorded(self.ledger, self.claim)))
        await self.exchange.answer(Problem("not-enlisted", detail))


def way(ledger: Ledger, claim: Claim, exchange: Exchange, later: Later) -> Way:
    """The way of a claim's class."""
    made = Atomic if claim.handler is HandlerClass.ATOMIC else Way
    return made(ledger, claim, exchange, later)
