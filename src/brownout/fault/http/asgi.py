"""Faults inside a server, as ASGI middleware around its application.

    app = faults = HttpFaults(app)
    with faults.make(Status(code=503, match="POST /pay")):
        ...

It can't cut a connection by what ASGI has: it looks for the server's transport behind `send` (uvicorn's are
found). With a server whose transport is out of sight it raises ConnectionAbortedError, which the server
answers as it answers the application's own errors: by a 500 before the head, by a cut after it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any

from brownout.fault.kind.answer import BODY_MOST

from .cut import cut
from .place import Place
from .plan import End, Request, Wait, bodiless, instead, reworded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    from .plan import Plan

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Any, Receive, Send], Awaitable[None]]

__all__ = ["HttpFaults"]

TAKEN_SECONDS = 5.0
GONE_SECONDS = 1.0  # for the server to see it


class HttpFaults(Place):
    """ASGI middleware: a place for faults of HTTP around `app`.

    `name` is the guarded target that suffers. Websockets and the lifespan pass through.
    """

    def __init__(self, app: App, *, name: str = "", seed: int = 0) -> None:
        super().__init__(name=name, seed=seed)
        self.app = app

    def _where(self) -> str:
        return f"ASGI {self.name}".strip()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope["type"] != "http" or not self._actives:
            await self.app(scope, receive, send)
            return
        path = scope.get("raw_path") or scope["path"].encode()
        client = (scope.get("client") or ("",))[0]
        request = Request(scope["method"].encode(), path, tuple(scope["headers"]), client)
        plan = self.plan(request)
        if plan:
            await _Exchange(plan, request.method, receive, send).serve(self.app, scope)
        else:
            await self.app(scope, receive, send)


class _Ended(ConnectionAbortedError):
    """The caller's connection was cut by a fault."""


class _Exchange:
    """One request on its way."""

    def __init__(self, plan: Plan, method: bytes, receive: Receive, send: Send) -> None:
        self._plan = plan
        self._method = method
        self._receive = receive
        self._send = send
        self._kept: deque[Message] = deque()
        self._lost: End | None = None  # the answer is lost: the application may still end its work
        self._cut = False  # the connection is gone
        self._swallowed = 0
        self._replaced = False
        self._silent = False  # there is no body to send

    async def serve(self, app: App, scope: Any) -> None:
        try:
            self._lost = await self._do(self._plan.before())
            if self._lost is not None:
                await self._taken()
            elif (status := self._plan.answer()) is not None:
                headers = instead(status)
                start = {"type": "http.response.start", "status": status.code, "headers": headers}
                await self.send(start)
                await self.send({"type": "http.response.body", "body": status.body})
            else:
                await self._execute(app, scope)
        except Exception:
            if self._lost is None:  # the application's own
                raise
        if self._lost is not None and not self._cut:
            await self._end(self._lost)

    async def _execute(self, app: App, scope: Any) -> None:
        if self._plan.duplicates and await self._keep():
            whole = tuple(self._kept)
            for _ in range(self._plan.extra()):
                try:
                    await app(dict(scope), self.receive, _nowhere)
                except Exception:  # noqa: S110  as a server of its own it would have answered 500
                    pass
                self._kept = deque(whole)
        await app(scope, self.receive, self.send)

    async def _keep(self) -> bool:
        """Have the whole request here; False if it is too long."""
        size = 0
        while True:
            message = await self._receive()
            self._kept.append(message)
            size += len(message.get("body", b""))
            if size > BODY_MOST:
                self._plan.refuse_duplicate(f"the request has more than {BODY_MOST} bytes")
                return False
            if message["type"] != "http.request" or not message.get("more_body"):
                return True

    async def _taken(self) -> None:
        """Have the client say all, as far as that comes soon: else it would see its own half-said request."""
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(TAKEN_SECONDS):
                while size <= BODY_MOST:
                    message = await self._receive()
                    size += len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body"):
                        return

    async def receive(self) -> Message:
        """For the application."""
        if self._cut:
            return {"type": "http.disconnect"}
        return self._kept.popleft() if self._kept else await self._receive()

    # ------------------------------------------------------------------------------ what is sent

    async def send(self, message: Message) -> None:
        """For the application. Raises ConnectionAbortedError where the connection was cut."""
        if self._lost is not None:
            self._swallow(message)
        elif message["type"] == "http.response.start":
            await self._start(message)
        elif message["type"] == "http.response.body":
            await self._body(message)
        else:
            await self._send(message)

    def _swallow(self, message: Message) -> None:
        self._swallowed += len(message.get("body", b""))
        if self._cut or self._swallowed > BODY_MOST:
            raise _Ended("the connection was cut by a fault")

    async def _start(self, message: Message) -> None:
        self._lost = await self._do(self._plan.head())
        if self._lost is not None:  # only once the application has ended: it is executed then
            return
        self._silent = bodiless(self._method, message["status"])
        if self._silent:
            await self._send(message)
            return
        wrong = self._plan.wrong()
        if wrong is None:
            await self._send(message)
            return
        self._replaced = True
        await self._send({**message, "headers": reworded(tuple(message.get("headers", ())), wrong)})
        await self._pieces(wrong)

    async def _body(self, message: Message) -> None:
        more = message.get("more_body", False)
        if self._silent:
            await self._send(message)
            return
        if not self._replaced:
            await self._pieces(message.get("body", b""))
        if not more:
            await self._send({"type": "http.response.body", "body": b"", "more_body": more})

    async def _pieces(self, data: bytes) -> None:
        for deed in self._plan.body(data):
            if isinstance(deed, bytes):
                await self._send({"type": "http.response.body", "body": deed, "more_body": True})
            elif isinstance(deed, Wait):
                await deed.ending.await_(deed.seconds)
            else:
                self._lost = deed
                await self._end(deed)
                raise _Ended("the connection was cut by a fault")

    async def _do(self, deeds: Iterable[Wait | End]) -> End | None:
        for deed in deeds:
            if isinstance(deed, End):
                return deed
            await deed.ending.await_(deed.seconds)
        return None

    # ------------------------------------------------------------------------------- how it ends

    async def _end(self, end: End) -> None:
        """Cut the connection. Raises ConnectionAbortedError where that is for the server to do."""
        if end.how == "silence" and await self._left(end):
            self._cut = True
            return
        transport = _transport(self._send)
        if transport is None:
            raise _Ended("the connection is cut by a fault")
        self._cut = True
        await cut(transport, reset=end.how == "reset")
        with suppress(TimeoutError):
            async with asyncio.timeout(GONE_SECONDS):
                await self._disconnect()

    async def _left(self, end: End) -> bool:
        """Say nothing until the fault ends, or the caller leaves: True."""
        leaving = asyncio.ensure_future(self._disconnect())
        ending = asyncio.ensure_future(end.ending.await_(inf))
        try:
            await asyncio.wait({leaving, ending}, return_when=asyncio.FIRST_COMPLETED)
            return leaving.done()
        finally:
            leaving.cancel()
            ending.cancel()
            await asyncio.gather(leaving, ending, return_exceptions=True)

    async def _disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _nowhere(message: Message) -> None:
    """An answer that nobody gets."""


def _transport(send: Any) -> Any:
    """The server's transport behind its `send`, if it is in sight."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    ours = ("abort", "close", "get_write_buffer_size")  # uvloop's are of no class of asyncio's
    return transport if all(hasattr(transport, name) for name in ours) else None
