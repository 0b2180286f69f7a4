"""Guards the requests of an httpx or httpx2 client, sync or async, as a transport around a transport.

    client = httpx.Client(transport=Transport(httpx.HTTPTransport(), guard=quotes))
    client = httpx2.AsyncClient(transport=Transport(httpx2.AsyncHTTPTransport(), guard=quotes))

It imports neither. How far a request has come is read from the client's trace events; the wait for a
connection of the client's own pool is told apart from the target's time. 429 and 503 are refusals for
overload (Retry-After is honoured), other 5xx failures of the target, 4xx its answers. Only what is safe
is sent again: what was never sent or was turned away, by method GET, HEAD, OPTIONS, PUT, DELETE and
TRACE, and what carries an `Idempotency-Key` header; never a body that can't be read again. The last
answer is returned as it came, also a bad one.

Whether to try again is decided when the headers have come; a good answer's attempt is in flight until its
body has been read, or is closed, dropped, or out of time. A connection that is given up is aborted; over
HTTP/2, where others share it, the one stream is reset.

Before it is sent, an attempt is labelled with its backend (not through a proxy) and its connection.

One operation a method, unless the request names it: `client.get(url, extensions={"operation": "quote"})`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from brownout import DeadlineHeader
from brownout.ext.behind import age_header
from brownout.ext.httpx.exchange import Exchange
from brownout.ext.httpx.meaning import classify, library
from brownout.ext.reply import IDEMPOTENT, Answered

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from brownout import Attempt, Guard

    # httpx and httpx2 each ask for a subclass of their own base class: for them this is one.
    Base: Any
else:
    Base = object

__all__ = ["Transport", "classify"]

KEY_CHARACTERS = 255
NAME_CHARACTERS = 100  # of a target, "name/host" in all


class Transport(Base):  # type: ignore[misc]
    """An httpx or httpx2 transport that guards another one.

    `transport` is the one that does the work; `guard` the Guard of the target it talks to;
    with `per_host` each host is a target of its own, "name/host" (see `Guard.per`). Raises what the
    inner transport raises, and the guard's own refusals and time-outs (`brownout.Refused`, `TimedOut`).
    `deadline_headers` are written, with the time that is left; give () for none. With `ages` the `Age` header
    of a good answer is told to the guard (see `Guard.observe_age`); one without that header is fresh.
    """

    def __init__(
        self,
        transport: Any,
        *,
        guard: Guard,
        per_host: bool = False,
        deadline_headers: Sequence[DeadlineHeader] = (DeadlineHeader.ENVOY,),
        ages: bool = False,
    ) -> None:
        self._inner = transport
        self._ages = ages
        self._guard = guard
        self._per_host = per_host
        self._deadline_headers = tuple(deadline_headers)
        self._traced = _traced(transport)

    def _exchange(self, request: Any) -> Exchange:
        headers = self._deadline_headers
        return Exchange(request, self._inner, traced=self._traced, deadline_headers=headers)

    def handle_request(self, request: Any) -> Any:
        """Send a request, guarded, in this thread."""
        exchange = self._exchange(request)

        def trace(name: str, info: dict[str, Any]) -> None:
            then = exchange.event(name, info, is_async=False)
            if then is not None:
                with suppress(Exception):
                    then()
            if exchange.users_trace is not None:
                exchange.users_trace(name, info)

        def send(attempt: Attempt, request: Any) -> Any:
            if exchange.spare is not None:
                exchange.spare.close()
                exchange.spare = None
            exchange.begin(attempt, trace, bounded=True)
            try:
                response = self._inner.handle_request(request)
            except BaseException as error:
                exchange.tell(error)
                raise
            return exchange.decide(response, attempt, "SyncByteStream")

        try:
            guard = self._guard_of(request)
            options = _options(exchange, guard)
            return self._aged(guard, guard.call(send, request, **options), options["operation"])
        except Answered as answered:
            exchange.spare = None
            return answered.response
        finally:
            request.extensions = exchange.users  # a redirect copies them
            if exchange.spare is not None:
                exchange.spare.close()

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request, guarded, in this task."""
        exchange = self._exchange(request)

        async def trace(name: str, info: dict[str, Any]) -> None:
            then = exchange.event(name, info, is_async=True)
            if then is not None:
                with suppress(Exception):
                    await then()
            if exchange.users_trace is not None:
                await exchange.users_trace(name, info)

        async def send(attempt: Attempt, request: Any) -> Any:
            if exchange.spare is not None:
                await exchange.spare.aclose()
                exchange.spare = None
            exchange.begin(attempt, trace, bounded=False)  # the guard's own timer ends it
            try:
                response = await self._inner.handle_async_request(request)
            except BaseException as error:
                exchange.tell(error)
                raise
            return exchange.decide(response, attempt, "AsyncByteStream")

        try:
            guard = self._guard_of(request)
            options = _options(exchange, guard)
            answer = await guard.acall(send, request, **options)
            return self._aged(guard, answer, options["operation"])
        except Answered as answered:
            exchange.spare = None
            return answered.response
        finally:
            request.extensions = exchange.users  # a redirect copies them
            if exchange.spare is not None:
                await exchange.spare.aclose()

    def _aged(self, guard: Guard, response: Any, operation: str) -> Any:
        if self._ages:
            told = response.headers.get("age")
            age = 0.0 if told is None else age_header(told)
            if age is not None:
                guard.observe_age(age, operation=operation)
        return response

    def _guard_of(self, request: Any) -> Guard:
        if not self._per_host:
            return self._guard
        host, port = request.url.host, request.url.port  # the port only if it is not the usual one
        room = NAME_CHARACTERS - len(self._guard.policy.target) - 1
        # What tells long names apart is more often at the end.
        return self._guard.per((host if port is None else f"{host}:{port}")[-max(1, room) :])

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


def _options(exchange: Exchange, guard: Guard) -> dict[str, Any]:
    request = exchange.request
    key = request.headers.get("idempotency-key")
    harmless = guard.policy.idempotent or request.method in IDEMPOTENT or bool(key)
    return {
        "operation": str(request.extensions.get("operation", request.method))[:100],
        "idempotent": harmless and exchange.replayable,
        "classify": exchange.classify,
        "key": key if key and len(key) <= KEY_CHARACTERS else None,
        "with_attempt": True,
    }


def _traced(transport: Any) -> bool:
    """Whether it tells how far a request has come. Of others nothing is certain once they began."""
    if isinstance(transport, Transport):
        return transport._traced  # noqa: SLF001 - our own
    return any(
        library(class_) and class_.__name__ in {"HTTPTransport", "AsyncHTTPTransport"}
        for class_ in type(transport).__mro__
    )
