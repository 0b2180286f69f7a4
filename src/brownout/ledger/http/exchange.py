"""One claimed call: its handler runs in the server's stead, and what it answers is held until it is a fact.

Each class of handlers has its own way to that (`ways.py`); here is what they have in common: what came of
the answer, what of it is out, and that the caller's leaving is no business of the handler's.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from .kept import Capture
from .problem import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from .problem import Sent

    Message = MutableMapping[str, Any]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["Exchange", "send_whole"]

log = logging.getLogger("brownout")


async def send_whole(send: Send, sent: Sent) -> None:
    """Send a complete answer."""
    await send({"type": "http.response.start", "status": sent.status, "headers": sent.raw()})
    await send({"type": "http.response.body", "body": sent.body})


class Exchange:
    """What the handler is given for `receive` and `send`.

    `weigh` is called whenever more of the answer has come while it is held, and must at last call
    `release` or `answer`.
    """

    def __init__(self, body: bytes, send: Send, most_kept_bytes: int) -> None:
        self.came = Capture(most_kept_bytes)
        self.answered = asyncio.Event()  # it is settled what the caller is told
        self.released = False  # the handler's own answer goes out
        self.declared = ""  # what the handler itself says in `Outcome`
        self.misuse: BaseException | None = None  # raised at the handler when it goes on answering
        self.weigh: Callable[[], Awaitable[None]]
        self._body: bytes | None = body
        self._send = send
        self._start: Message = {}
        self._held: list[bytes] = []
        self._over = asyncio.Event()
        self._left = False

    async def receive(self) -> Message:
        """The body, once; and that the caller has left, only when there is nothing more to be said."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """What the handler answers."""
        if self.misuse is not None:
            raise self.misuse
        if message["type"] == "http.response.start":
            self._begin(message)
        elif message["type"] == "http.response.body":
            await self._part(bytes(message.get("body", b"")), more=bool(message.get("more_body")))

    def _begin(self, message: Message) -> None:
        headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
        for name, value in headers:
            if name.lower() == b"outcome":
                self.declared = value.decode("latin-1").strip()
        kept = [pair for pair in headers if pair[0].lower() != b"outcome"]
        self._start = {**message, "headers": kept, "trailers": False}
        self.came.begin(message["status"], headers)

    async def _part(self, data: bytes, *, more: bool) -> None:
        if self.came.ended:
            return
        self.came.add(data, more=more)
        if self.released:
            await self._out({"type": "http.response.body", "body": data, "more_body": more})
            await self.weigh()
        elif not self.answered.is_set():
            self._held.append(data)
            await self.weigh()
        if not more:
            self._over.set()

    # ------------------------------------------------------------------------------ what goes out

    async def release(self, outcome: str, *headers: tuple[str, str]) -> None:
        """Let the handler's own answer out, as far as it has come; what follows goes out at once."""
        if self.answered.is_set():
            return
        self.answered.set()
        self.released = True
        more = [("outcome", outcome), *headers] if outcome else headers
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in more]
        await self._out({**self._start, "headers": [*self._start["headers"], *pairs]})
        held, self._held = b"".join(self._held), []
        going_on = not self.came.ended
        if held or not going_on:
            await self._out({"type": "http.response.body", "body": held, "more_body": going_on})

    async def answer(self, what: Sent | Problem) -> None:
        """Answer in the handler's place; what it says is heard no more."""
        if self.answered.is_set():
            return
        self.answered.set()
        self._held.clear()
        self._over.set()
        sent = what.answer() if isinstance(what, Problem) else what
        await self._out(
            {"type": "http.response.start", "status": sent.status, "headers": sent.raw()}
        )
        await self._out({"type": "http.response.body", "body": sent.body})

    async def _out(self, message: Message) -> None:
        """Send, to a caller who may have left: that ends no handler, and no record of one."""
        if self._left:
            return
        try:
            await self._send(message)
        except Exception as error:
            self._left = True
            log.debug("the caller of a call with a key has left: %s", type(error).__name__)
