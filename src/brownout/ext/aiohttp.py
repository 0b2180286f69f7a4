"""aiohttp: a client session that guards its requests.

    async with aiohttp.ClientSession(**guarded(payments)) as session: ...
    async with aiohttp.ClientSession(**guarded(None)) as session: ...       # it only looks

What is sent again, and what an answer shows, is as for httpx: only what was never sent or was turned away, by
method GET, HEAD, OPTIONS, PUT, DELETE and TRACE, and what carries an `Idempotency-Key` header; never a body
that can't be read again. The last answer is returned as it came; an attempt ends with the answer's headers.

How far a request has come is told by the session's trace events: whether it waits for a connection of its own
pool, connects, or may have been sent. The exception says so, to any guard around it. Before it is sent it
is labelled with its backend (not through a proxy, or a connector of others') and its connection.

By default aiohttp sends GET, PUT, DELETE and others again by itself when a connection breaks, also what was
done already. That is warned of, once a session; `resend=False` ends it, `resend=True` is your word that it
does no harm.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

import aiohttp

from brownout import Certainty, DeadlineHeader, OutcomeClass, Shown
from brownout.ext import peer
from brownout.ext.reply import IDEMPOTENT, SAFE, Answered, answer, changed
from brownout.ext.resend import ResendWarning, warn
from brownout.ext.trail import Classifier, certain, lost, mark, tell

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from brownout import Attempt, Guard

__all__ = ["ResendWarning", "classify", "guarded"]

KEY_CHARACTERS = 255
_OWN = (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)
_CONNECTORS = (aiohttp.TCPConnector, aiohttp.UnixConnector)
_CONNECTING = (aiohttp.ClientConnectorError, aiohttp.ServerFingerprintMismatch)


class _Try:
    """One try of a request: where it is."""

    def __init__(self, attempt: Attempt | None) -> None:
        self.attempt = attempt
        self.queued = True
        self.sent = False

    def connect(self) -> None:
        """The pool has given leave to make a connection."""
        self.queued = False
        if self.attempt is not None and self.attempt.queued:
            self.attempt.waited(time.monotonic() - self.attempt.began)

    def send(self) -> None:
        """There is a connection: from now on the target may have got it."""
        self.connect()
        self.sent = True
        if self.attempt is not None:
            self.attempt.sent()

    def on(self, connection: Any, *, direct: bool) -> None:
        """It is sent on this connection; a connector of others' may lead through a proxy."""
        if self.attempt is not None:
            own = type(getattr(connection, "_connector", None)) in _CONNECTORS
            wire = connection.transport
            peer.tell(self.attempt, connection.protocol, wire, direct=direct and own)


_TRY: ContextVar[_Try | None] = ContextVar("brownout_aiohttp", default=None)


def guarded(
    guard: Guard | None,
    *,
    middlewares: Sequence[Any] = (),
    trace_configs: Sequence[Any] = (),
    deadline_headers: Sequence[DeadlineHeader] = (DeadlineHeader.ENVOY,),
    resend: bool | None = None,
    request_class: type[aiohttp.ClientRequest] = aiohttp.ClientRequest,
) -> dict[str, Any]:
    """Give the arguments with which an `aiohttp.ClientSession` is made so that it is guarded.

    `guard` is the Guard of the target it talks to, None to only look. `middlewares` and `trace_configs` are
    the session's others, `request_class` is its own. `deadline_headers` are written, with the time that is
    left; give () for none. `resend`: see above.
    """
    asked: Any = request_class
    return {
        "middlewares": (*middlewares, _Middleware(guard, tuple(deadline_headers))),
        "trace_configs": [*trace_configs, _traces(resend)],
        "request_class": _labelling(asked),
    }


@cache
def _labelling(base: Any) -> Any:
    """A class of requests that tell which connection they are sent on: no trace event does."""

    async def send(self: Any, conn: Any) -> Any:
        now = _TRY.get()
        if now is not None:
            now.on(conn, direct=self.proxy is None)
        return await base.send(self, conn)

    return type(base.__name__, (base,), {"send": send})


def _traces(resend: bool | None) -> aiohttp.TraceConfig:  # noqa: FBT001
    traces = aiohttp.TraceConfig()

    async def begin(session: Any, _context: Any, params: Any) -> None:
        if resend is False:
            session._retry_connection = False  # noqa: SLF001 - it has no other switch
        elif resend is None and params.method in IDEMPOTENT - SAFE:
            warn(
                session,
                "this session of aiohttp sends PUT and DELETE again by itself when a connection breaks, also"
                " what was done already: make it with guarded(guard, resend=False); a guard tries again where"
                " that does no harm",
            )

    async def connect(*_: Any) -> None:
        now = _TRY.get()
        if now is not None:
            now.connect()

    async def send(*_: Any) -> None:
        now = _TRY.get()
        if now is not None:
            now.send()

    traces.on_request_start.append(begin)
    traces.on_connection_create_start.append(connect)
    traces.on_connection_create_end.append(send)
    traces.on_connection_reuseconn.append(send)
    return traces


class _Middleware:
    """What stands between a session and its connections, for each request."""

    def __init__(self, guard: Guard | None, headers: tuple[DeadlineHeader, ...]) -> None:
        self._guard = guard
        self._headers = headers

    async def __call__(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        if self._guard is None:
            return await _play(request, handler, None)
        key = request.headers.get("Idempotency-Key")
        guard, spare = self._guard, list[Any]()
        replayable = isinstance(request.body, (bytes, aiohttp.BytesPayload))

        async def send(attempt: Attempt) -> Any:
            while spare:
                spare.pop().release()
            attempt.waiting()
            request.headers.update(attempt.headers(time.monotonic(), self._headers))
            response = await _play(request, handler, attempt)
            shown = answer(response.status, response.headers)
            if shown is None:
                return response
            if not replayable and shown.certainty is Certainty.ABSENT:
                shown = shown._replace(
                    certainty=Certainty.ANSWERED
                )  # its body is gone: never again
            spare.append(response)
            raise Answered(response, shown)

        harmless = guard.policy.idempotent or request.method in IDEMPOTENT or bool(key)
        try:
            return await guard.acall(
                send,
                operation=request.method[:100],
                idempotent=harmless and replayable,
                key=key if key and len(key) <= KEY_CHARACTERS else None,
                classify=_told,
                with_attempt=True,
            )
        except Answered as answered:
            spare.clear()
            return answered.response
        finally:
            while spare:
                spare.pop().release()


async def _play(
    request: Any, handler: Callable[[Any], Awaitable[Any]], attempt: Attempt | None
) -> Any:
    now, changes = _Try(attempt), request.method not in SAFE
    token = _TRY.set(now)
    try:
        response = await handler(request)
    except BaseException as error:
        tell(error, _shown(error, now), changes=changes)
        raise
    finally:
        _TRY.reset(token)
    if attempt is not None:
        attempt.receiving()
    if changes and changed(response.status, answer(response.status, response.headers)):
        mark()
    return response


def _told(error: BaseException) -> Shown | None:
    return error.shown if isinstance(error, Answered) else classify(error)


def _shown(error: BaseException, now: _Try) -> Shown:
    silent = isinstance(error, TimeoutError) or not isinstance(error, Exception)
    if now.sent:
        return lost(OutcomeClass.UNKNOWN if silent else OutcomeClass.FAILURE)
    if isinstance(error, _OWN) or (silent and now.queued):
        return certain(OutcomeClass.LOCAL)
    return certain(OutcomeClass.UNKNOWN if silent else OutcomeClass.CONNECT)


def _meaning(error: BaseException) -> Shown | None:
    """What an exception says by itself; of a session that is not guarded, that is little."""
    if isinstance(error, _OWN):
        return certain(OutcomeClass.LOCAL)
    if isinstance(error, _CONNECTING):
        return certain(OutcomeClass.CONNECT)
    if isinstance(error, aiohttp.ConnectionTimeoutError):  # also where its own pool was empty
        return certain(OutcomeClass.UNKNOWN)
    if isinstance(error, aiohttp.ClientResponseError) and error.__cause__ is None:
        shown = answer(error.status, error.headers or {})
        return Shown.of(OutcomeClass.SUCCESS) if shown is None else shown
    if isinstance(error, aiohttp.ClientError):
        return lost(
            OutcomeClass.UNKNOWN if isinstance(error, TimeoutError) else OutcomeClass.FAILURE
        )
    return None


classify = Classifier("aiohttp", _meaning)
