"""Takes a caller's deadline in, for any ASGI app, and drops work that has expired.

    app = Deadlines(app, maximum=30.0)
    app.add_middleware(Deadlines, maximum=30.0)  # Starlette, FastAPI: add it last, to be outermost

The time that the caller leaves is counted from the moment at which the server's loop had the call, also
if the loop was too busy to begin with it. Everything below it sees the deadline: `remaining()`, guarded
calls, and the next hop. A call whose time is over before the handler starts, or before its body has
come, is answered with 504 and the handler is spared: whoever asked has gone.

It runs the app in the task it was called in, passes each message on as it comes, and lets go of the
deadline when the answer is out, so that background tasks are not cut short by it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from brownout import ConfigurationError, DeadlineHeader, DeadlinePassed, deadline, remaining

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Any, Any, Any], Awaitable[Any]]

__all__ = ["Counts", "Deadlines"]

log = logging.getLogger("brownout")
_BEFORE = "The time that the caller left was over before the work had begun. Nothing was done."
_AT_BODY = "The time that the caller left was over before all of the body had come."
_LAST = ("http.response.body", "http.response.pathsend")


@dataclass(slots=True)
class Counts:
    """What `Deadlines` has seen: HTTP calls `bounded` by a deadline and `unbounded`.

    Of the bounded ones, `dropped_before` the handler and `dropped_at_body`, whose body came too late.
    `ignored` has how many values of each accepted header made no sense.
    """

    bounded: int = 0
    unbounded: int = 0
    dropped_before: int = 0
    dropped_at_body: int = 0
    ignored: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def dropped(self) -> int:
        """Calls answered with 504 because their time was over."""
        return self.dropped_before + self.dropped_at_body


class Deadlines:
    """ASGI middleware: each HTTP call of `app` runs under its caller's deadline.

    `headers` are the ones that are believed, the shortest time wins. `default` bounds calls that bring
    none, and `maximum` all calls, in seconds. With `drop=False` expired work is begun all the same (what
    is guarded below is refused then). `counts` is where it counts, for a framework that makes the
    middleware itself; one object a running server. Websockets and the lifespan pass through.

    Raises ConfigurationError if a span is not above 0, or `default` above `maximum`.
    """

    def __init__(
        self,
        app: App,
        *,
        headers: Sequence[DeadlineHeader] = (DeadlineHeader.ENVOY, DeadlineHeader.GRPC),
        default: float = inf,
        maximum: float = inf,
        drop: bool = True,
        counts: Counts | None = None,
    ) -> None:
        _check(headers, default, maximum)
        self.app = app
        self.counts = Counts() if counts is None else counts
        self._headers = {header.name.encode("latin-1"): header for header in headers}
        self._accepted = tuple(headers)
        self._default = default
        self._maximum = maximum
        self._drop = drop
        self._turn = _Turn()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seconds = self._seconds(scope)
        if seconds == inf:
            self.counts.unbounded += 1
            await self.app(scope, receive, send)
            return
        self.counts.bounded += 1
        bound = deadline(max(0.0, seconds - self._turn.late()))
        with bound:
            exchange = _Exchange(self.counts, bound, receive, send, drop=self._drop)
            if self._drop and remaining() == 0.0:
                self.counts.dropped_before += 1
                await exchange.refuse(_BEFORE, (b"outcome", b"not-started"))
                return
            await exchange.serve(self.app, scope)

    def _seconds(self, scope: Any) -> float:
        pairs = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name.lower() in self._headers
        ]
        seconds, ignored = DeadlineHeader.shortest(self._accepted, pairs)
        for name in ignored:
            known = self.counts.ignored.get(name, 0)
            if not known:  # the value is the caller's: it belongs into no log
                log.warning("a caller's %s makes no sense: ignored, further ones are counted", name)
            self.counts.ignored[name] = known + 1
        return min(self._default if seconds is None else seconds, self._maximum)


class _Turn:
    """How long the call that begins now has been waiting for the loop, at least.

    A loop runs what is ready in the order in which it became ready. The first call of a turn notes the
    time and queues a mark behind all that is ready by then; who begins before the mark is reached was
    ready when the time was noted, and has waited since.
    """

    __slots__ = ("_began", "_loop", "_task")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._began = 0.0

    def late(self) -> float:
        """Seconds; 0.0 where no asyncio loop runs, of which this is known."""
        try:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
        except RuntimeError:
            return 0.0
        now = monotonic()
        if self._loop is not loop:
            self._loop, self._task, self._began = loop, task, now
            loop.call_soon(self._mark, loop)
            return 0.0
        # A task's second call in one turn may be younger: it is its own work that took so long.
        return 0.0 if self._task is task else now - self._began

    def _mark(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is loop:
            self._loop = self._task = None


class _Exchange:
    """One HTTP call: what has come of its body, and what of the answer is out."""

    def __init__(
        self, counts: Counts, bound: deadline, receive: Receive, send: Send, *, drop: bool
    ) -> None:
        self._counts = counts
        self._bound = bound
        self._receive = receive
        self._send = send
        self._drop = drop
        self._more = False  # a part of the body has come, and more is to follow
        self._answering = False
        self._expired: DeadlinePassed | None = None

    async def serve(self, app: App, scope: Any) -> None:
        """Run the app, and answer in its place if the body came too late."""
        try:
            await app(scope, self.receive, self.send)
        except Exception as error:
            if self._expired is None:
                raise
            await self.refuse(_AT_BODY)
            if not _stems(error, self._expired):
                raise
        else:
            if self._expired is not None:
                await self.refuse(_AT_BODY)

    async def receive(self) -> Message:
        """The next message. Raises DeadlinePassed if it is a part of the body that came too late."""
        message = await self._receive()
        if message["type"] != "http.request":
            return message
        more = bool(message.get("more_body"))
        body = bool(message.get("body")) or more or self._more
        self._more = more
        if body and self._drop and not self._answering and remaining() == 0.0:
            if self._expired is None:
                self._counts.dropped_at_body += 1
                self._expired = DeadlinePassed(
                    "the caller's deadline had passed before all of the body had come: dropped",
                    target="request body",
                )
            raise self._expired
        return message

    async def send(self, message: Message) -> None:
        """Pass a message of the answer on; not what the app says of a call that was dropped."""
        if self._expired is not None:
            return
        self._answering = True
        await self._send(message)
        if message["type"] in _LAST and not message.get("more_body"):
            self._bound.lift()

    async def refuse(self, detail: str, *more: tuple[bytes, bytes]) -> None:
        """Answer 504, with more headers if they are given."""
        problem = {"type": "about:blank", "title": "Deadline passed", "status": 504}
        body = json.dumps({**problem, "detail": detail}).encode()
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            *more,
        ]
        await self._send({"type": "http.response.start", "status": 504, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})
        self._bound.lift()


def _stems(error: BaseException, from_: BaseException) -> bool:
    """Whether an exception is another one, or was raised because of it."""
    seen: BaseException | None = error
    for _ in range(20):
        if seen is None or seen is from_:
            break
        seen = seen.__cause__ or seen.__context__
    return seen is from_


def _check(headers: Sequence[DeadlineHeader], default: float, maximum: float) -> None:
    faults = [
        f"{name}={span!r}: give a number of seconds above 0, or leave it out"
        for name, span in (("default", default), ("maximum", maximum))
        if isinstance(span, bool) or not isinstance(span, (int, float)) or not span > 0
    ]
    if not faults and maximum < default < inf:
        faults.append(f"default={default!r}: give at most the maximum, {maximum!r}")
    if not all(isinstance(header, DeadlineHeader) for header in headers):
        faults.append(
            'headers: give DeadlineHeaders, such as DeadlineHeader("Request-Timeout", "s")'
        )
    if faults:
        raise ConfigurationError("Deadlines can't work:\n" + "\n".join(f"  - {f}" for f in faults))
