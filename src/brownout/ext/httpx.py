"""Guards the requests of an httpx or httpx2 client, sync or async, as a transport around a transport.

    client = httpx.Client(transport=Transport(httpx.HTTPTransport(), guard=quotes))
    client = httpx2.AsyncClient(transport=Transport(httpx2.AsyncHTTPTransport(), guard=quotes))

It imports neither. How far a request has come is read from the client's trace events; the wait for a
connection of the client's own pool is told apart from the target's time. 429 and 503 are refusals for
overload (Retry-After is honoured), other 5xx failures of the target, 4xx its answers. Only what is safe
is sent again: what was never sent or was turned away, and by method GET, HEAD, OPTIONS, PUT, DELETE and
TRACE, never a body that can't be read again. The last answer is returned as it came, also a bad one.

One operation a method, unless the request names it: `client.get(url, extensions={"operation": "quote"})`.
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from math import inf
from typing import TYPE_CHECKING, Any

from brownout import Attempt, Certainty, DeadlineHeader, Guard, OutcomeClass, Phase, Shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    # httpx and httpx2 each ask for a subclass of their own base class: for them this is one.
    Base: Any
else:
    Base = object

__all__ = ["Transport"]

_LIBRARIES = ("httpx", "httpx2")
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
RETRY_AFTER_MOST = 3600.0
_TOO_MANY, _UNAVAILABLE, _SERVER_ERROR = 429, 503, 500

# Exceptions by name, nearest class first; both libraries use the same names.
_SHOWN = {
    "PoolTimeout": Shown.of(OutcomeClass.LOCAL),
    "ConnectTimeout": Shown(OutcomeClass.UNKNOWN, Certainty.ABSENT),
    "ConnectError": Shown.of(OutcomeClass.CONNECT),
    "TimeoutException": Shown.of(OutcomeClass.UNKNOWN),
    "LocalProtocolError": Shown.of(OutcomeClass.LOCAL),
    "UnsupportedProtocol": Shown.of(OutcomeClass.LOCAL),
    "TransportError": Shown.of(OutcomeClass.FAILURE),
}


class _Answered(Exception):
    """Carries an answer that is not a success to the guard, which decides whether to try again."""

    def __init__(self, response: Any, shown: Shown) -> None:
        super().__init__(response)
        self.response = response
        self.shown = shown


class _Exchange:
    """One request on its way: the attempt under way, and the answer that waits for the decision."""

    def __init__(
        self, request: Any, *, traced: bool, deadline_headers: Sequence[DeadlineHeader]
    ) -> None:
        self.request = request
        self.traced = traced
        self.deadline_headers = deadline_headers
        self.attempt: Attempt | None = None
        self.spare: Any = None
        self.replayable = _replayable(request)
        self.users = request.extensions
        self.users_trace = request.extensions.get("trace")
        self.timeout: dict[str, Any] | None = None

    def begin(self, attempt: Attempt, trace: Callable[..., Any], *, bounded: bool) -> None:
        """Set the request up for an attempt; `bounded`: its time is pushed into the client."""
        self.attempt = attempt
        if self.traced:
            attempt.waiting()
        self.request.headers.update(attempt.headers(time.monotonic(), self.deadline_headers))
        self.request.extensions = {**self.users, "trace": trace}
        if bounded and attempt.deadline < inf:
            self.timeout = self.request.extensions["timeout"] = {}
            self._push(attempt)

    def _push(self, attempt: Attempt) -> None:
        # The client looks a span up when it begins to wait for it: each gets what is left by then.
        if self.timeout is not None:
            users: dict[str, Any] = self.users.get("timeout") or {}
            left = attempt.deadline - time.monotonic()
            for span in ("connect", "read", "write", "pool"):
                self.timeout[span] = _shorter(users.get(span), left)

    def event(self, name: str, info: dict[str, Any]) -> None:
        attempt = self.attempt
        if attempt is None:
            return
        self._push(attempt)
        if (
            attempt.queued
        ):  # its first event: the pool has given it a connection, or leave to make one
            attempt.waited(time.monotonic() - attempt.began)
        if name.endswith("send_request_headers.started"):
            _stamp(info, attempt, self.deadline_headers)
            attempt.sent()
        elif name.endswith("receive_response_headers.complete"):
            attempt.receiving()

    def decide(self, response: Any) -> Any:
        """Pass on an answer that is a success; raise _Answered with any other."""
        shown = _answer(response)
        if shown is None:
            return response
        self.spare = response
        raise _Answered(response, shown)

    def classify(self, error: BaseException) -> Shown | None:
        shown = error.shown if isinstance(error, _Answered) else _known(error)
        if shown is None:
            return None
        not_sent = self.attempt is None or self.attempt.phase is Phase.NOT_SENT
        if not_sent and shown.class_ is OutcomeClass.FAILURE:
            return Shown.of(OutcomeClass.CONNECT)  # the connection broke before anything was sent
        if not self.replayable and not not_sent:
            return shown._replace(certainty=Certainty.ANSWERED)  # its body is gone: never again
        return shown


class Transport(Base):  # type: ignore[misc]
    """An httpx or httpx2 transport that guards another one.

    `transport` is the one that does the work; `guard` the Guard of the target it talks to. Raises what the
    inner transport raises, and the guard's own refusals and time-outs (`brownout.Refused`, `TimedOut`).
    `deadline_headers` are written, with the time that is left; give () for none.
    """

    def __init__(
        self,
        transport: Any,
        *,
        guard: Guard,
        deadline_headers: Sequence[DeadlineHeader] = (DeadlineHeader.ENVOY,),
    ) -> None:
        self._inner = transport
        self._guard = guard
        self._deadline_headers = tuple(deadline_headers)
        self._traced = _traced(transport)

    def handle_request(self, request: Any) -> Any:
        """Send a request, guarded, in this thread."""
        exchange = _Exchange(request, traced=self._traced, deadline_headers=self._deadline_headers)

        def trace(name: str, info: dict[str, Any]) -> None:
            exchange.event(name, info)
            if exchange.users_trace is not None:
                exchange.users_trace(name, info)

        def send(attempt: Attempt, request: Any) -> Any:
            if exchange.spare is not None:
                exchange.spare.close()
                exchange.spare = None
            exchange.begin(attempt, trace, bounded=True)
            return exchange.decide(self._inner.handle_request(request))

        try:
            return self._guard.call(send, request, **_options(exchange, self._guard))
        except _Answered as answered:
            exchange.spare = None
            return answered.response
        finally:
            request.extensions = exchange.users  # a redirect copies them
            if exchange.spare is not None:
                exchange.spare.close()

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request, guarded, in this task."""
        exchange = _Exchange(request, traced=self._traced, deadline_headers=self._deadline_headers)

        async def trace(name: str, info: dict[str, Any]) -> None:
            exchange.event(name, info)
            if exchange.users_trace is not None:
                await exchange.users_trace(name, info)

        async def send(attempt: Attempt, request: Any) -> Any:
            if exchange.spare is not None:
                await exchange.spare.aclose()
                exchange.spare = None
            exchange.begin(attempt, trace, bounded=False)  # the guard's own timer ends it
            return exchange.decide(await self._inner.handle_async_request(request))

        try:
            return await self._guard.acall(send, request, **_options(exchange, self._guard))
        except _Answered as answered:
            exchange.spare = None
            return answered.response
        finally:
            request.extensions = exchange.users  # a redirect copies them
            if exchange.spare is not None:
                await exchange.spare.aclose()

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._inner.__exit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)


def _options(exchange: _Exchange, guard: Guard) -> dict[str, Any]:
    request = exchange.request
    harmless = guard.policy.idempotent or request.method in IDEMPOTENT
    return {
        "operation": str(request.extensions.get("operation", request.method))[:100],
        "idempotent": harmless and exchange.replayable,
        "classify": exchange.classify,
        "with_attempt": True,
    }


def _traced(transport: Any) -> bool:
    """Whether it tells how far a request has come. Of others nothing is certain once they began."""
    if isinstance(transport, Transport):
        return transport._traced  # noqa: SLF001 - our own
    return any(
        class_.__module__.partition(".")[0] in _LIBRARIES
        and class_.__name__ in {"HTTPTransport", "AsyncHTTPTransport"}
        for class_ in type(transport).__mro__
    )


def _stamp(
    info: dict[str, Any], attempt: Attempt, deadline_headers: Sequence[DeadlineHeader]
) -> None:
    """Tell the time that is left now, at the first byte: the wait for a connection is over."""
    headers: Any = getattr(info.get("request"), "headers", None)
    if headers.__class__ is list:
        for name, value in attempt.headers(time.monotonic(), deadline_headers).items():
            key = name.encode()
            headers[:] = [(k, value.encode() if k.lower() == key else v) for k, v in headers]


def _replayable(request: Any) -> bool:
    try:
        request.content  # noqa: B018 - raises when the body is a stream that can be read once
    except Exception:
        return False
    return True


def _shorter(span: float | None, left: float) -> float:
    return max(0.001, left if span is None else min(span, left))


def _known(error: BaseException) -> Shown | None:
    for class_ in type(error).__mro__:
        if class_.__module__.partition(".")[0] in _LIBRARIES and class_.__name__ in _SHOWN:
            return _SHOWN[class_.__name__]
    return None


def _answer(response: Any) -> Shown | None:
    """What an answer shows; None for a success (also 4xx: the target did its work, and said no)."""
    status = response.status_code
    if status in {_TOO_MANY, _UNAVAILABLE}:
        return Shown.of(OutcomeClass.OVERLOAD, _retry_after(response.headers.get("retry-after")))
    # A 5xx does not say whether the work was done: it is repeated only if that does no harm.
    return Shown.of(OutcomeClass.FAILURE) if status >= _SERVER_ERROR else None


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header (seconds or a date), at most an hour; None if it makes no sense."""
    if value is None:
        return None
    try:
        if value.strip().isdecimal():
            return min(float(value), RETRY_AFTER_MOST)
        return min(
            max(0.0, parsedate_to_datetime(value).timestamp() - time.time()), RETRY_AFTER_MOST
        )
    except (ValueError, OverflowError):
        return None
