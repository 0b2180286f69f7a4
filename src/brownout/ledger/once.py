"""`Once`: what a server does for calls that bring a key. Pure ASGI, around any app."""

from __future__ import annotations

import asyncio
import logging
from contextvars import copy_context
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from brownout._core.ledger import Claim, Found, HandlerClass, Standing
from brownout._drive.context import remaining
from brownout.errors import AlreadyTaken, ConfigurationError

from .http import fields, questions
from .http.atomic import way
from .http.body import read
from .http.exchange import Exchange, send_whole
from .http.fingerprint import fingerprint
from .http.principal import scope_of, who
from .http.problem import Problem, Sent
from .http.routes import UNDECLARED, Routes, path_of
from .http.ways import is_no_effect, problem_of, settled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping

    from brownout.ledger.front import Ledger

    from .http.routes import Route

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Any, Any, Any], Awaitable[Any]]
    Principal = Callable[[Scope], str | Awaitable[str | None] | None]

__all__ = ["Once"]

log = logging.getLogger("brownout")
BODY_SECONDS = 30.0
DRAIN_SECONDS = 10.0
VOID_SECONDS = 2.0  # that a void waits for a transaction in flight, if its caller does not say


class _Running(NamedTuple):
    """A key at work in this process: who comes second waits here, and asks no ledger."""

    loop: asyncio.AbstractEventLoop
    fingerprint: bytes
    over: asyncio.Event


class _Call(NamedTuple):
    """One call with a key, as far as it is known before it is begun."""

    route: Route
    key: str
    fingerprint: bytes
    body: bytes
    ledger: Ledger
    wait_seconds: float


class Once:
    """ASGI middleware: a call that brings an `Idempotency-Key` has its effect once, and can be asked about.

    `principal` tells from an ASGI scope who calls (a name, not a secret; None: nobody knows, which is
    refused); a key belongs to its principal and its route. `routes` gives the class of each route's
    handler, `{"POST /orders/{id}/pay": "atomic", "POST /mail": "opaque"}`. A declared route needs a key;
    a call with a key to any other is opaque. `ledger` is where outcomes are remembered; its tables must
    be there (`Ledger.create`). A body may have `body_most_bytes`, since it is read before anything is
    begun. A caller may wait up to `wait_most_seconds` for another's work (`Prefer: wait=n`). With
    `canonical_json` equal JSON is equal work, however it is written.

    Give it the app itself, so that what else stands around refuses calls before it. One object a running
    server; websockets pass through. `counts` has, for each route, how often what was answered.

    Raises ConfigurationError, with all that is wrong.
    """

    def __init__(
        self,
        app: App,
        *,
        ledger: Ledger,
        principal: Principal,
        routes: Mapping[str, str | HandlerClass] | None = None,
        body_most_bytes: int = 1_048_576,
        wait_most_seconds: float = 30.0,
        canonical_json: bool = False,
    ) -> None:
        self.app = app
        self.counts: dict[str, dict[str, int]] = {}
        self._ledger = ledger
        self._principal = principal
        self._routes = Routes({} if routes is None else routes)
        self._body_most = body_most_bytes
        self._wait_most = wait_most_seconds
        self._canonical_json = canonical_json
        self._running: dict[tuple[str, str], _Running] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._check()

    def _check(self) -> None:
        wrong: list[str] = []
        if not callable(self.app):
            wrong.append(f"app: {self.app!r} can't be called; give an ASGI app")
        if not callable(self._principal):
            wrong.append(f"principal: give a function of the ASGI scope, not {self._principal!r}")
        if not hasattr(self._ledger, "aclaim"):
            wrong.append("ledger: give a Ledger, such as Ledger('postgresql:///shop')")
        elif not getattr(self._ledger.store, "atomic", False):
            wrong += [
                f'{route.template}: {self._ledger!r} can\'t be part of a transaction; say "resumable"'
                ' or "opaque", or give a ledger in the database of the handler'
                for route in self._routes.all()
                if route.handler is HandlerClass.ATOMIC
            ]
        for name, value in (
            ("body_most_bytes", self._body_most),
            ("wait_most_seconds", self._wait_most),
        ):
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                wrong.append(f"{name}={value!r}: give a number from 0 up")
            elif not isfinite(value):
                wrong.append(f"{name}={value!r}: it needs a limit")
        if wrong:
            raise ConfigurationError(
                "Once can't work:\n" + "\n".join(f"  - {one}" for one in wrong)
            )

    # ------------------------------------------------------------------------------- what comes in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] == "lifespan":
            await self.app(scope, self._until_drained(receive), send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, path = scope["method"], path_of(scope)
        if path == questions.AT or path.startswith(questions.AT + "/"):
            await self._ask(scope, path, send)
            return
        route = self._routes.of(method, path)
        if route is None:
            if all(name.lower() != fields.KEY for name, _ in scope["headers"]):
                await self.app(scope, receive, send)
                return
            route = self._routes.keyed(method, path)
        if route is None:  # a key where nothing is done
            await self.app(scope, receive, send)
            return
        try:
            call = await self._call(scope, receive, route)
            if call is not None:
                await self._serve(call, scope, send)
        except Problem as problem:
            self._count(route, problem.name)
            await send_whole(send, problem.answer())

    async def _call(self, scope: Scope, receive: Receive, route: Route) -> _Call | None:
        """What is asked for; None if the caller has left. Raises Problem."""
        headers = scope["headers"]
        key = fields.key(headers)
        if key is None:
            raise Problem(
                "key-missing",
                "Send `Idempotency-Key: KEY`, a UUIDv7, the same one with every repetition.",
            )
        name = await who(self._principal, scope)
        body = await read(scope, receive, self._body_most, BODY_SECONDS)
        if body is None:
            return None
        raw = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
        mark = fingerprint(
            scope["method"],
            raw,
            scope.get("query_string", b""),
            body,
            canonical_json=self._canonical_json,
        )
        wait = min(fields.preferred(headers), self._wait_most, remaining())
        ledger = self._ledger.of(scope_of(self._ledger.scope, route.template, name))
        return _Call(route, key, mark, body, ledger, wait)

    async def _serve(self, call: _Call, scope: Scope, send: Send) -> None:
        """Run the work, or answer what became of it. Raises Problem."""
        loop = asyncio.get_running_loop()
        end = loop.time() + call.wait_seconds
        at, turn = (call.ledger.scope, call.key.lower()), 0
        replies = list(questions.REPLY_WAITS)
        while True:
            await self._other(call, at, end)
            mine = _Running(loop, call.fingerprint, asyncio.Event())
            self._running[at] = mine
            got = await self._claim(call, at, mine)
            if isinstance(got, Claim):
                await self._run(call, got, scope, send, partial(self._over, at, mine))
                return
            left = end - loop.time()
            if got.pending and replies:
                await asyncio.sleep(replies.pop(0))
            elif got.standing is not Standing.RUNNING or left <= 0:
                await self._replay(call, got, send)
                return
            else:
                await asyncio.sleep(
                    min(questions.PAUSES[min(turn, len(questions.PAUSES) - 1)], left)
                )
                turn += 1

    async def _other(self, call: _Call, at: tuple[str, str], end: float) -> None:
        """Wait until nobody in this process is at the same work. Raises Problem after the time for it."""
        loop = asyncio.get_running_loop()
        while (other := self._running.get(at)) is not None and other.loop is loop:
            if other.fingerprint != call.fingerprint:
                detail = "It was used with another payload. New work needs a new key."
                raise Problem("other-payload", detail)
            try:
                async with asyncio.timeout_at(end):
                    await other.over.wait()
            except TimeoutError:
                detail = (
                    "Call again with the same key, with `Prefer: wait=10` to wait for its answer."
                )
                raise Problem("running", detail, retry_after=1.0) from None

    async def _claim(self, call: _Call, at: tuple[str, str], mine: _Running) -> Claim | Found:
        """Ask the ledger for the permission; whoever gets none is not at work. Raises Problem."""
        claimed = False
        try:
            got = await call.ledger.aclaim(call.key, call.fingerprint, call.route.handler)
            claimed = isinstance(got, Claim)
        except Exception as error:
            raise problem_of(error) from None
        finally:
            if not claimed:
                self._over(at, mine)
        return got

    def _over(self, at: tuple[str, str], mine: _Running) -> None:
        if self._running.get(at) is mine:
            del self._running[at]
        mine.over.set()

    async def _replay(self, call: _Call, got: Found, send: Send) -> None:
        what = settled(got)
        if isinstance(what, Problem):
            raise what
        self._count(call.route, "replayed")
        await send_whole(send, what)

    # --------------------------------------------------------------------------------- what is run

    async def _run(
        self, call: _Call, claim: Claim, scope: Scope, send: Send, over: Callable[[], None]
    ) -> None:
        """Run the handler in a task of its own: if this one is cancelled, that one goes on."""
        self._count(call.route, "run")
        exchange = Exchange(call.body, send, call.ledger.most_kept_bytes)
        work = self._work(call, claim, exchange, scope, over)
        task = asyncio.create_task(work, context=copy_context())
        self._keep(task)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_lost)  # nobody waits for it any more
            raise

    async def _work(
        self, call: _Call, claim: Claim, exchange: Exchange, scope: Scope, over: Callable[[], None]
    ) -> None:
        found = way(call.ledger, claim, exchange, self._later)

        async def weigh() -> None:
            await found.weigh()
            if exchange.answered.is_set():
                over()

        exchange.weigh = weigh
        error: BaseException | None = None
        try:
            with self._ledger.running(claim):  # one heartbeat for all scopes
                try:
                    await self.app(_scope(scope), exchange.receive, exchange.send)
                except BaseException as raised:
                    error = raised
                answered = exchange.answered.is_set()
                await found.finish(error)
        finally:
            over()
        if error is not None and not _expected(error, exchange, answered=answered):
            raise error

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        self._keep(asyncio.get_running_loop().create_task(work))

    def _until_drained(self, receive: Receive) -> Receive:
        """The lifespan's messages; before the app is told to end, its handlers are let to end."""

        async def drained() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown" and self._tasks:
                await asyncio.wait(set(self._tasks), timeout=DRAIN_SECONDS)
            return message

        return drained

    # ------------------------------------------------------------------------------ what is asked

    async def _ask(self, scope: Scope, path: str, send: Send) -> None:
        try:
            sent = await self._answer(scope, path)
        except Problem as problem:
            sent = problem.answer()
        if scope["method"] == "HEAD":
            sent = Sent(sent.status, sent.headers)
        await send_whole(send, sent)

    async def _answer(self, scope: Scope, path: str) -> Sent:
        query = scope.get("query_string", b"")
        question = questions.parse(scope["method"], path, query, self._routes)
        name = await who(self._principal, scope)
        if question is None:
            return questions.about(self._ledger, self._routes, self._body_most)
        wait = min(fields.preferred(scope["headers"]), self._wait_most, remaining())
        hold = min(wait or VOID_SECONDS, self._wait_most, remaining())
        try:
            told, route = await questions.found(self._ledger, name, question, wait, hold)
        except Problem:
            raise
        except Exception as error:
            raise asked_in_vain(error) from None
        self._count(route or UNDECLARED, f"told {questions.OUTCOME_OF[told.standing]}")
        return questions.answer(question, told, route)

    def _count(self, route: Route, what: str) -> None:
        counted = self.counts.setdefault(route.template, {})
        counted[what] = counted.get(what, 0) + 1


def asked_in_vain(error: Exception) -> Problem:
    """What a question is answered that the ledger could not be asked: that says nothing of the work."""
    problem = problem_of(error)
    if problem.name == "ledger-unavailable":
        return Problem("could-not-ask", "Nothing is known. Ask again.", retry_after=1.0)
    return Problem(problem.name, problem.detail, outcome="", retry_after=problem.retry_after)


def _scope(scope: Scope) -> Scope:
    """The scope for the handler, without ways to answer past us."""
    extensions: dict[str, Any] = scope.get("extensions") or {}
    kept = {name: value for name, value in extensions.items() if not name.startswith("http.")}
    return {**scope, "extensions": kept}


def _lost(task: asyncio.Task[Any]) -> None:
    """Log what ended a handler whose caller's connection was given up."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a handler failed after its caller had left", exc_info=error)


def _expected(error: BaseException, exchange: Exchange, *, answered: bool) -> bool:
    """Whether an exception is one that has served its purpose, and is nobody else's business."""
    if error is exchange.misuse:
        return True
    return not answered and (is_no_effect(error) or isinstance(error, AlreadyTaken))
