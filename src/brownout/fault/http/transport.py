"""Faults inside a client, as a transport around the one of an httpx or httpx2 client, sync or async.

    faults = HttpTransport(httpx.HTTPTransport())
    with httpx.Client(transport=faults) as client, faults.make(Drop(stream="downstream")):
        client.post(url)                # executed, and then ReadTimeout, in its own time

It imports neither, and raises the client's own exceptions. Its read time-out is kept, as the client asked
for it. Async clients run on asyncio.
"""

from __future__ import annotations

import sys
import time
from functools import cache
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from brownout.errors import ConfigurationError
from brownout.fault.kind.answer import BODY_MOST

from .place import Place
from .plan import Deed, Request, Wait, bodiless, instead, reworded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterable, Iterator
    from types import TracebackType
    from typing import Self

    from brownout._core.fault import Fault

    from .plan import Plan

    # httpx and httpx2 each ask for a subclass of their own base class: for them this is one.
    Base: Any
else:
    Base = object

__all__ = ["HttpTransport"]

LIBRARIES = ("httpx", "httpx2")
RESET = "[Errno 104] Connection reset by peer"
NO_ANSWER = "Server disconnected without sending a response."
HALF_ANSWER = "peer closed connection without sending complete message body"


class _Send(NamedTuple):
    """Have the inner transport send it; gives the response."""


class _Keep(NamedTuple):
    """Read the whole request, so that it can be sent again."""


class _Close(NamedTuple):
    """Close a response, once it is read if `whole`."""

    response: Any
    whole: bool = False


_Step = Wait | _Send | _Keep | _Close


class HttpTransport(Place, Base):  # type: ignore[misc]
    """A transport around `transport`, and a place for faults of HTTP.

    `name` is the guarded target that suffers. Raises what the inner transport raises, and ReadTimeout,
    ReadError and RemoteProtocolError of the same library.
    """

    def __init__(self, transport: Any, *, name: str = "", seed: int = 0) -> None:
        super().__init__(name=name, seed=seed)
        self._inner = transport

    def _where(self) -> str:
        return f"transport {self.name}".strip()

    def _refuse_wrong(self, fault: Fault) -> None:
        super()._refuse_wrong(fault)
        if fault.client is not None:
            raise ConfigurationError(
                f"{fault}: inside a client all requests are its own; no client"
            )

    def handle_request(self, request: Any) -> Any:
        """Send a request, in this thread."""
        plan = self._planned(request)
        if not plan:
            return self._inner.handle_request(request)
        course = _course(request, plan, "SyncByteStream")
        told = response = None
        try:
            while True:
                step = course.send(told)
                told = None
                if isinstance(step, Wait):
                    step.ending.wait(step.seconds)
                elif isinstance(step, _Send):
                    told = response = self._inner.handle_request(request)
                elif isinstance(step, _Keep):
                    request.read()
                else:
                    if step.whole:
                        for _ in step.response.iter_raw():
                            pass
                    step.response.close()
        except StopIteration as end:
            return end.value
        except BaseException:
            if response is not None:
                response.close()
            raise

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request, in this task."""
        plan = self._planned(request)
        if not plan:
            return await self._inner.handle_async_request(request)
        course = _course(request, plan, "AsyncByteStream")
        told = response = None
        try:
            while True:
                step = course.send(told)
                told = None
                if isinstance(step, Wait):
                    await step.ending.await_(step.seconds)
                elif isinstance(step, _Send):
                    told = response = await self._inner.handle_async_request(request)
                elif isinstance(step, _Keep):
                    await request.aread()
                else:
                    if step.whole:
                        async for _ in step.response.aiter_raw():
                            pass
                    await step.response.aclose()
        except StopIteration as end:
            return end.value
        except BaseException:  # a cancelled wait, too
            if response is not None:
                await response.aclose()
            raise

    def _planned(self, request: Any) -> Plan:
        path = request.url.raw_path.partition(b"?")[0]
        return self.plan(Request(request.method.encode(), path, request.headers.raw))

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


# --------------------------------------------------------------------- one request, in either colour


def _course(request: Any, plan: Plan, kind: str) -> Generator[_Step, Any, Any]:
    """What is done, in order; returns the response. Raises the client's own exceptions."""
    patience = _Patience(request)
    yield from patience.through(plan.before(), NO_ANSWER)
    status = plan.answer()
    library = _library(request)
    method = request.method.encode()
    if status is not None:
        yield from patience.through(plan.head(), NO_ANSWER)
        body = b"" if bodiless(method, status.code) else status.body
        stream = _stream(kind, library)(_Said(body), plan, patience, len(body))
        return library.Response(status.code, headers=instead(status), stream=stream)
    if plan.duplicates:
        yield from _duplicate(request, plan)
    response = yield _Send()
    try:
        yield from patience.through(plan.head(), NO_ANSWER)
    except Exception:
        # Read, so that a server which is still at it sees no difference; but not without an end.
        yield _Close(response, whole=_length(response) <= BODY_MOST)
        raise
    if bodiless(method, response.status_code):
        return response
    wrong = plan.wrong()
    if wrong is not None:
        yield _Close(response, whole=_length(response) <= BODY_MOST)
        return library.Response(
            response.status_code,
            headers=reworded(response.headers.raw, wrong),
            stream=_stream(kind, library)(_Said(wrong), plan, patience, len(wrong)),
            extensions=response.extensions,
        )
    if plan.shapes:
        stream = response.stream
        shaped = _stream(kind, library)(stream, plan, patience, _length(response))
        response.stream = shaped
    return response


def _duplicate(request: Any, plan: Plan) -> Generator[_Step, Any, None]:
    length = request.headers.get("content-length")
    if length is None and "transfer-encoding" in request.headers:
        plan.refuse_duplicate("the request does not say how long it is")
        return
    if int(length or 0) > BODY_MOST:
        plan.refuse_duplicate(f"the request has more than {BODY_MOST} bytes")
        return
    yield _Keep()
    for _ in range(plan.extra()):
        response = yield _Send()
        yield _Close(response, whole=_length(response) <= BODY_MOST)


def _length(response: Any) -> float:
    told = response.headers.get("content-length", "")
    return int(told) if told.isdecimal() else inf


class _Patience:
    """How long the client waits, by its own read time-out: for the head, then for each piece."""

    def __init__(self, request: Any) -> None:
        self.request = request
        told = request.extensions.get("timeout", {}).get("read")
        self._seconds = inf if told is None else float(told)
        self._since = time.monotonic()

    def anew(self) -> None:
        """A new wait begins."""
        self._since = time.monotonic()

    def through(self, deeds: Iterable[Deed], closed: str) -> Generator[Wait, Any, None]:
        """Carry out deeds; yields what is to be waited for. Raises what the client would."""
        for deed in deeds:
            left = max(0.0, self._seconds - (time.monotonic() - self._since))
            if isinstance(deed, Wait):
                yield Wait(deed.ending, min(deed.seconds, left))
                if deed.seconds >= left and not deed.ending.over:
                    raise self._error("ReadTimeout", "timed out")
            elif deed.how == "silence":
                yield Wait(deed.ending, left)
                if not deed.ending.over:
                    raise self._error("ReadTimeout", "timed out")
                raise self._error("RemoteProtocolError", closed)
            elif deed.how == "reset":
                raise self._error("ReadError", RESET)
            else:
                raise self._error("RemoteProtocolError", closed)

    def _error(self, name: str, message: str) -> Exception:
        error: Exception = getattr(_library(self.request), name)(message, request=self.request)
        return error


# ------------------------------------------------------------------------------------------- bodies


class _Said:
    """A body that is all there."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    def close(self) -> None:
        """Nothing is open."""

    async def aclose(self) -> None:
        """Nothing is open."""


class _Body:
    """What both colours share. Subclasses of the library's own stream class are made of it."""

    def __init__(self, stream: Any, plan: Plan, patience: _Patience, length: float) -> None:
        self._stream = stream
        self._plan = plan
        self._patience = patience
        self._length = length
        self._received = 0

    def _shaped(self, part: bytes) -> Iterator[Wait | bytes]:
        for deed in self._plan.body(part):
            if isinstance(deed, bytes):
                self._received += len(deed)
                yield deed
            else:
                yield from self._patience.through([deed], self._closed())

    def _closed(self) -> str:
        if self._length == inf:
            return f"{HALF_ANSWER} (incomplete chunked read)"
        return f"{HALF_ANSWER} (received {self._received} bytes, expected {self._length})"


class _SyncBody(_Body):
    def __iter__(self) -> Iterator[bytes]:
        self._patience.anew()
        try:
            for part in self._stream:
                for step in self._shaped(part):
                    if isinstance(step, bytes):
                        yield step
                        self._patience.anew()
                    else:
                        step.ending.wait(step.seconds)
        except BaseException:
            self._stream.close()
            raise

    def close(self) -> None:
        self._stream.close()


class _AsyncBody(_Body):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._patience.anew()
        try:
            async for part in self._stream:
                for step in self._shaped(part):
                    if isinstance(step, bytes):
                        yield step
                        self._patience.anew()
                    else:
                        await step.ending.await_(step.seconds)
        except BaseException:
            await self._stream.aclose()
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()


_KINDS = {"SyncByteStream": _SyncBody, "AsyncByteStream": _AsyncBody}


@cache
def _stream(kind: str, library: Any) -> Any:
    """The clients ask for an instance of their own stream class, which nobody else can import for them."""
    return type("Body", (_KINDS[kind], getattr(library, kind)), {})


def _library(request: Any) -> Any:
    """The library that a request is of. Raises TypeError if it is of neither."""
    for class_ in type(request).__mro__:
        name = class_.__module__.partition(".")[0]
        if name in LIBRARIES:
            return sys.modules[name]
    raise TypeError(f"a request of httpx or httpx2 is wanted, not {type(request).__name__}")
