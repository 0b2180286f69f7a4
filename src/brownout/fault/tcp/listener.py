"""Where clients come in: accepting, refusing them, or leaving them in a full backlog. The port stays ours."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from .address import Address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Listener"]

BACKLOG = 4096
FILLERS = 4  # a backlog of 0 holds one connection, and the kernel may grant one more


class Listener:
    """One bound socket that lives as long as the proxy is started.

    asyncio serves a duplicate of it, so that closing the server keeps the port. On Linux a listening TCP
    socket that is shut down is bound still, and refuses; where that isn't so it is bound anew.
    """

    def __init__(self, address: Address, protocol: Callable[[], asyncio.Protocol]) -> None:
        self.address = address
        self.mode: Literal["accept", "refuse", "full"] = "accept"
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._place = address.bind()
        if not address.path:
            self.address = address._replace(port=int(self._place.getsockname()[1]))
        self._server: asyncio.Server | None = None
        self._serving: asyncio.Task[None] | None = None  # held, lest it be collected
        self._turns = 0
        self._fillers: list[socket.socket] = []

    async def start(self) -> None:
        """Accept. Raises OSError."""
        self._place.listen(BACKLOG)
        await self._serve(self._turns)

    def turn(self, mode: Literal["accept", "refuse", "full"]) -> None:
        """Accept, refuse or be full from now on. Raises OSError."""
        if mode == self.mode:
            return
        self._leave()
        self.mode = mode
        if mode != "refuse":
            self._share(yes=True)
        if mode == "accept":
            self._place.listen(BACKLOG)
            self._serving = self._loop.create_task(self._serve(self._turns))
        elif mode == "full":
            self._place.listen(0)
            self._fill()

    @property
    def listening(self) -> bool:
        """Whether the kernel lets connections in and somebody accepts them."""
        return self.mode == "accept" and self._heard()

    def _heard(self) -> bool:
        try:
            return bool(self._place.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        except OSError:  # closed
            return False

    def close(self) -> None:
        """Give the port back."""
        self._stop_serving()
        self._empty()
        self._place.close()
        if self.address.path:
            try:
                Path(self.address.path).unlink()
            except OSError:
                pass

    async def _serve(self, turns: int) -> None:
        if turns != self._turns:
            return
        copy = self._place.dup()
        copy.setblocking(False)  # noqa: FBT003  socket's own
        try:
            if self.address.path:
                server = await self._serve_unix(copy)
            else:
                server = await self._loop.create_server(self._protocol, sock=copy, backlog=BACKLOG)
        except BaseException:
            copy.close()
            raise
        if turns == self._turns:
            self._server = server
        else:
            server.close()

    def _serve_unix(self, copy: socket.socket) -> Awaitable[asyncio.Server]:
        # Python 3.13 and uvloop would remove the path when the server closes, also one that is bound anew
        # meanwhile: they go by its inode, which the new one may have got. Others don't know the word.
        serve: Any = self._loop.create_unix_server
        try:
            served = serve(self._protocol, sock=copy, backlog=BACKLOG, cleanup_socket=False)
        except TypeError:
            served = serve(self._protocol, sock=copy, backlog=BACKLOG)
        return cast("Awaitable[asyncio.Server]", served)

    def _stop_serving(self) -> None:
        self._turns += 1  # one that is about to serve sees it
        if self._server is not None:
            self._server.close()
            self._server = None

    def _leave(self) -> None:
        """Not listening, and bound."""
        self._stop_serving()
        self._empty()
        if not self._heard():  # shut down twice, it would never send again
            return
        if self.address.path:
            self._bind_over()
            return
        try:
            self._place.shutdown(socket.SHUT_RDWR)
        except OSError:  # not Linux
            pass
        if self._heard():
            self._place.close()
            self._place = self.address.bind()
        else:
            self._share(yes=False)

    def _bind_over(self) -> None:
        """Bind the path anew. It is never without a socket: clients are refused, and miss no file."""
        new = Address("", 0, f"{self.address.path}.{self._turns}")
        old, self._place = self._place, new.bind()
        Path(new.path).replace(self.address.path)
        old.close()

    def _share(self, *, yes: bool) -> None:
        # A socket that doesn't listen could be bound to the same port by others, unless it forbids it;
        # and one that forbids it can't listen beside connections of the same port.
        if not self.address.path:
            self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, yes)

    def _fill(self) -> None:
        """Have the backlog full of connections of our own."""
        for _ in range(FILLERS):
            filler = socket.socket(self._place.family, socket.SOCK_STREAM)
            filler.setblocking(False)  # noqa: FBT003  socket's own
            filler.connect_ex(self.address.path or self._place.getsockname())
            self._fillers.append(filler)

    def _empty(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
