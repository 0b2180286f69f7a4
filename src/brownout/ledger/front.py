"""The ledger as its users hold it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from math import isfinite
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from brownout._core.ledger import (
    MOST_KEPT_BYTES,
    MOST_SCOPE_CHARACTERS,
    Answer,
    Claim,
    Found,
    HandlerClass,
    Reply,
    Row,
    Rules,
    Standing,
    canonical,
)
from brownout._core.ledger import Event as On
from brownout._drive.clock import clock
from brownout.errors import ConfigurationError, LedgerUnavailable
from brownout.ledger import ending, enlisting, operations
from brownout.ledger.beat import Heartbeat
from brownout.ledger.opening import opened

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Generator

    from brownout._core.ledger import Store

P = ParamSpec("P")
T = TypeVar("T")

WAIT_SECONDS = 5.0
REPLY_SECONDS = (
    0.01,
    0.05,
    0.2,
)  # a reply that is not in its fact's own commit comes so much later

current: ContextVar[Claim | None] = ContextVar("brownout_claim", default=None)
"""What is being run in this context: set by `Ledger.running`."""


_giving: set[asyncio.Future[None]] = set()  # the loop itself keeps no hold of them


def _given(giving: asyncio.Future[None]) -> None:
    _giving.discard(giving)
    if not giving.cancelled():
        giving.exception()  # seen: the lease ends by itself


@contextmanager
def _after_the_effect(claim: Claim) -> Generator[None]:
    """What fails now is not certain any more: the handler was run."""
    try:
        yield
    except LedgerUnavailable as error:
        error.not_started, error.key, error.scope = False, claim.key, claim.scope
        raise


class Ledger:
    """Remembers what became of each piece of work, by the key that its caller made for it.

    `url` is sqlite:///path (four slashes for an absolute path), postgresql://..., redis://... or memory:,
    or a store. Keys older than `horizon_seconds` are refused, so that their rows can be collected
    `margin_seconds` later: the margin must exceed the longest transaction. Who runs something shows
    that it lives, by a heartbeat, within `lease_seconds`. Bodies above `most_kept_bytes` are kept as a
    digest only. After a failover, keys from before it that have no row are in doubt, since their row may
    have been forgotten; unless it is known, by `lossless_failover`, that none ever is (standbys that each
    commit waits for). Nothing is connected before the first use.

    Raises ConfigurationError. Every operation may raise LedgerUnavailable, or WrongSchema if `create`
    was not called; each has a form for asyncio, with an `a` before its name.
    """

    def __init__(
        self,
        url: str | Store,
        *,
        scope: str = "",
        horizon_seconds: float = 86_400.0,
        margin_seconds: float = 3_600.0,
        lease_seconds: float = 30.0,
        most_kept_bytes: int = MOST_KEPT_BYTES,
        lossless_failover: bool = False,
    ) -> None:
        spans = {
            "horizon_seconds": horizon_seconds,
            "margin_seconds": margin_seconds,
            "lease_seconds": lease_seconds,
        }
        wrong = [
            f"{name} is {value!r}, it must be a number of seconds above 0"
            for name, value in spans.items()
            if not isinstance(value, int | float) or not isfinite(value) or value <= 0
        ]
        if not isinstance(scope, str) or len(scope) > MOST_SCOPE_CHARACTERS:
            wrong.append(f"scope must be a text of at most {MOST_SCOPE_CHARACTERS} characters")
        if not isinstance(most_kept_bytes, int) or most_kept_bytes < 0:
            wrong.append("most_kept_bytes must be a whole number from 0 up")
        if wrong:
            raise ConfigurationError(f"this ledger can't work: {'; '.join(wrong)}")
        self.scope = scope
        self.horizon_seconds = float(horizon_seconds)
        self.margin_seconds = float(margin_seconds)
        self.lease_seconds = float(lease_seconds)
        self.most_kept_bytes = most_kept_bytes
        self.store: Store = opened(url) if isinstance(url, str) else url
        self._rules = Rules(
            int(horizon_seconds * 1000),
            int(margin_seconds * 1000),
            int(lease_seconds * 1000),
            lossless=lossless_failover,
        )
        self.store.keep = max(self.store.keep, self._rules.horizon + self._rules.margin)
        self._heartbeat = Heartbeat(self.renew)

    def __repr__(self) -> str:
        return f"Ledger({type(self.store).__name__}, scope={self.scope!r})"

    def of(self, scope: str) -> Ledger:
        """The same ledger for another scope: who uses a key, and for what."""
        other = Ledger(
            self.store,
            scope=scope,
            horizon_seconds=self.horizon_seconds,
            margin_seconds=self.margin_seconds,
            lease_seconds=self.lease_seconds,
            most_kept_bytes=self.most_kept_bytes,
            lossless_failover=self._rules.lossless,
        )
        other._heartbeat = self._heartbeat  # one thread, whatever the number of scopes
        return other

    def create(self) -> None:
        """Make the tables, or bring older ones up to date. Raises WrongSchema for a later version's."""
        self.store.create()

    async def acreate(self) -> None:
        """As `create`."""
        import asyncio

        await asyncio.to_thread(self.create)

    def close(self) -> None:
        """Let go of the store's connections and threads; the next use opens them anew."""
        self.store.close()

    # ----------------------------------------------------------------------------- to run something

    def claim(self, key: str, fingerprint: bytes, handler: HandlerClass | str) -> Claim | Found:
        """Get the permission to run what `key` stands for, or what became of it.

        `fingerprint` tells one payload from another, at most 32 bytes. An ATOMIC handler must `enlist`
        its transaction. Raises KeyMalformed, KeyFromTheFuture, KeyTooOld and OtherPayload; after these,
        and after LedgerUnavailable, it is certain that nothing was started.
        """
        found = self.store.run(self._claim(key, fingerprint, handler))
        for seconds in REPLY_SECONDS:
            if isinstance(found, Claim) or not found.pending:
                break
            clock.sleep(seconds)
            found = self.store.run(self._claim(key, fingerprint, handler))
        return found

    async def aclaim(
        self, key: str, fingerprint: bytes, handler: HandlerClass | str
    ) -> Claim | Found:
        """As `claim`. Cancelled, it gives back what it got."""
        import asyncio

        waits = [*REPLY_SECONDS]
        while True:
            op = self._claim(key, fingerprint, handler)
            claiming = asyncio.ensure_future(self.store.arun(op))
            try:
                found = await asyncio.shield(claiming)
            except asyncio.CancelledError:
                claiming.add_done_callback(self._give_back)
                raise
            if isinstance(found, Claim) or not found.pending or not waits:
                return found
            await asyncio.sleep(waits.pop(0))

    def _give_back(self, claiming: asyncio.Future[Claim | Found]) -> None:
        import asyncio

        if claiming.cancelled() or claiming.exception() is not None:
            return
        claim = claiming.result()
        if isinstance(claim, Claim) and claim.handler is not HandlerClass.ATOMIC:
            giving = asyncio.ensure_future(self.arelease(claim))  # nothing was run
            _giving.add(giving)
            giving.add_done_callback(_given)

    def _claim(
        self, key: str, fingerprint: bytes, handler: HandlerClass | str
    ) -> Generator[Any, Any, Claim | Found]:
        if len(fingerprint) > 32:
            raise ConfigurationError("a fingerprint has at most 32 bytes: give a digest")
        kind = handler if isinstance(handler, HandlerClass) else HandlerClass(handler)
        want = self._wanted(key, fingerprint, kind)
        return (yield from operations.claim(self.store, self._rules, want, wait=WAIT_SECONDS))

    def _wanted(self, key: str, fingerprint: bytes, handler: HandlerClass) -> Claim:
        fence = int.from_bytes(os.urandom(7), "big") >> 4  # 52 bits: whole numbers everywhere
        name = canonical(key, self.scope)
        lease, lossless = self.lease_seconds, self._rules.lossless
        return Claim(self.scope, name, fingerprint, handler, fence, lease, lossless=lossless)

    def complete(self, claim: Claim, reply: Reply) -> Reply:
        """Keep what the handler answered, and tell what is answered to every caller with this key.

        That is `reply`, or what a successor's was if this attempt comes back too late. While an atomic
        handler's transaction is open the reply goes into it; else it is added to the row. Raises
        StillRunning if the successor has not finished yet; NotEnlisted if there is no row of an atomic
        handler, which is in doubt then (a reply from status 400 up, of one that was rolled back, is told
        and not kept); and
        LedgerUnavailable with `not_started` False, when nobody knows.
        """
        kept = reply.kept(self.most_kept_bytes)
        if claim.handler is HandlerClass.ATOMIC and claim.enlisted and claim.enlisted.open():
            return enlisting.finish(claim, kept, reply)
        with _after_the_effect(claim):
            return self.store.run(self._complete(claim, kept, reply))

    async def acomplete(self, claim: Claim, reply: Reply) -> Reply:
        """As `complete`."""
        kept = reply.kept(self.most_kept_bytes)
        if claim.handler is HandlerClass.ATOMIC and claim.enlisted and claim.enlisted.open():
            return await enlisting.afinish(claim, kept, reply)
        with _after_the_effect(claim):
            return await self.store.arun(self._complete(claim, kept, reply))

    def _complete(self, claim: Claim, kept: Reply, reply: Reply) -> Generator[Any, Any, Reply]:
        if claim.handler is HandlerClass.ATOMIC:
            told = yield from ending.keep(self.store, self._rules, claim, kept)
        else:
            told = yield from ending.complete(self.store, self._rules, claim, kept)
        return reply if told is None or told == kept else told

    def renew(self, claim: Claim) -> bool:
        """Show that who has the claim lives. False: the key is somebody else's by now, or settled."""
        return self.store.run(ending.renew(self.store, self._rules, claim))

    async def arenew(self, claim: Claim) -> bool:
        """As `renew`."""
        return await self.store.arun(ending.renew(self.store, self._rules, claim))

    def doubt(self, claim: Claim) -> None:
        """The handler raised: an opaque one may have had its effect, a resumable one is to be run again."""
        self.store.run(ending.end(self.store, self._rules, claim, On.RAISE))

    async def adoubt(self, claim: Claim) -> None:
        """As `doubt`."""
        await self.store.arun(ending.end(self.store, self._rules, claim, On.RAISE))

    def release(self, claim: Claim) -> None:
        """The handler says that it had no effect (it raised NoEffect): the key may be used again."""
        self.store.run(ending.end(self.store, self._rules, claim, On.NO_EFFECT))

    async def arelease(self, claim: Claim) -> None:
        """As `release`."""
        await self.store.arun(ending.end(self.store, self._rules, claim, On.NO_EFFECT))

    def enlist(self, connection: Any) -> Awaitable[None] | None:
        """Put the row of the work that is being run into the transaction of `connection`.

        That is a connection of sqlite3 or psycopg 3 (a pool's, too), or a session or connection of
        SQLAlchemy; for an asynchronous one this is to be awaited. Do it before anything else is written.
        Raises AlreadyTaken if another attempt was first, after it has waited for that one's end: let the
        exception leave the transaction, so that it is rolled back. Raises StillRunning if the database
        gave up waiting, ConfigurationError where nothing atomic is being run.
        """
        claim = current.get()
        if claim is None:
            raise ConfigurationError(
                "nothing is being run here: enlist inside of an atomic handler"
            )
        if claim.handler is not HandlerClass.ATOMIC:
            raise ConfigurationError(
                f"this handler is declared {claim.handler.value}: only an atomic one enlists"
            )
        if not self.store.atomic:
            raise ConfigurationError(
                f"no transaction can take in a row of a {type(self.store).__name__}:"
                " keep the ledger in the business's own database, or declare the handler resumable"
            )
        return enlisting.enlist(claim, connection)

    @contextmanager
    def running(self, claim: Claim) -> Generator[Claim]:
        """While the handler runs: it is `current`, and a heartbeat keeps its lease."""
        token = current.set(claim)
        if claim.handler is not HandlerClass.ATOMIC:
            self._heartbeat.start(claim)
        try:
            yield claim
        finally:
            current.reset(token)
            self._heartbeat.stop(claim)

    def once(
        self,
        handler: HandlerClass | str,
        *,
        key: str | Callable[..., str] = "key",
        payload: Callable[..., Any] | None = None,
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Run a job, or a queue's message, once for each key: a decorator, for `def` and `async def`.

        `key` is the name of the argument that is the key, or a function of all arguments; so is
        `payload`, whose answer (bytes, or what JSON can hold) tells a key that is used for something
        else. The value is kept as JSON, and given to whoever comes later with that key.

        The call raises Voided, StillRunning, InDoubt or ReplyLost instead, and what `claim` and
        `complete` raise. An opaque handler that raises is in doubt, unless it raises NoEffect.
        """
        from brownout.ledger.job import once

        return once(self, handler, key=key, payload=payload)

    # ----------------------------------------------------------------------------- to ask, and to look

    def ask(self, key: str, *, void: bool, seconds: float = WAIT_SECONDS) -> Answer:
        """Tell what became of `key`. With `void`, what has not begun never will.

        Waits at most `seconds` for a transaction that holds the key. ABSENT without `void` proves
        nothing; with it, the key is so old that nothing is known any more. Raises KeyMalformed and
        KeyFromTheFuture.
        """
        return self.store.run(self._ask(key, void=void, seconds=seconds))

    async def aask(self, key: str, *, void: bool, seconds: float = WAIT_SECONDS) -> Answer:
        """As `ask`."""
        return await self.store.arun(self._ask(key, void=void, seconds=seconds))

    def _ask(self, key: str, *, void: bool, seconds: float) -> Generator[Any, Any, Answer]:
        want = self._wanted(key, b"", HandlerClass.OPAQUE)
        return (yield from operations.ask(self.store, self._rules, want, void=void, wait=seconds))

    def collect(self, most: int = 1000) -> int:
        """Delete at most so many rows of keys past horizon and margin; tell how many there were."""
        horizon = self._rules.horizon + self._rules.margin
        return self.store.run(self.store.collect(horizon, most))

    async def acollect(self, most: int = 1000) -> int:
        """As `collect`."""
        horizon = self._rules.horizon + self._rules.margin
        return await self.store.arun(self.store.collect(horizon, most))

    def rows(self, standing: Standing | None = None, *, most: int = 1000) -> list[Row]:
        """Rows of every scope, the oldest key first, without what was answered."""
        return list(self.store.run(self.store.list(standing, most)))

    def doubts(self, most: int = 1000) -> list[Row]:
        """What is in doubt: for an alarm, and for whoever can find out."""
        return self.rows(Standing.DOUBT, most=most)
