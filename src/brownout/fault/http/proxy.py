"""Faults between a client and a server: a reverse proxy of HTTP/1.1.

    with running("127.0.0.1:8000") as proxy:
        with proxy.make(Status(code=503, retry_after=2, match="POST /pay")):
            ...                           # clients call proxy.listen

Bodies pass as they come, both ways; what asks for another protocol (Upgrade) passes as bytes. A client that
leaves takes its request along, and an upstream that ends a connection ends the client's too.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from brownout.errors import BrownoutError
from brownout.fault.tcp.address import Address
from brownout.fault.tcp.thread import hosted

from . import wire
from .exchange import Exchange, Upstream
from .place import Place
from .plan import Request

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator
    from typing import Self

__all__ = ["HttpProxy", "running"]

CONNECTIONS_MOST = 1_000
IDLE_SECONDS = 75.0  # between two requests of a connection, and for a head
STOP_SECONDS = 2.0
BACKLOG = 1024


class _Reader(asyncio.StreamReader):
    """Tells that its peer has ended, also while nobody reads."""

    def __init__(self) -> None:
        super().__init__(limit=wire.HEAD_BYTES)
        self.left = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.left.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.left.set()


class HttpProxy(Place):
    """Relays HTTP/1.1 from `listen` to `upstream`, and makes faults on what passes.

    Addresses are "host:port", "[::1]:port" or "unix:/path"; port 0 is one that is free. `name` is the
    guarded target that suffers. There is no TLS.
    """

    def __init__(
        self, upstream: str, listen: str = "127.0.0.1:0", *, name: str = "", seed: int = 0
    ) -> None:
        super().__init__(name=name, seed=seed)
        self._upstream = Address.read(upstream)
        self._asked = Address.read(listen)
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def listen(self) -> str:
        """Where clients connect to: with the real port, once started."""
        return str(self._asked)

    @property
    def upstream(self) -> str:
        """Where their requests go."""
        return str(self._upstream)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._tasks)

    def _where(self) -> str:
        return f"http://{self.listen} -> {self.upstream}"

    def _listens(self) -> str:
        return self.listen

    # -------------------------------------------------------------------------------- start, stop

    async def start(self) -> None:
        """Listen, on the running loop; nothing, if it does already. The port stays the same from then on.

        Raises BrownoutError if the address can't be had.
        """
        if self._server is not None:
            return
        loop = asyncio.get_running_loop()
        try:
            sock = (await self._asked.resolved()).bind()
            if self._asked.path:
                self._server = await loop.create_unix_server(self._accept, sock=sock)
            else:
                self._server = await loop.create_server(self._accept, sock=sock, backlog=BACKLOG)
        except OSError as error:
            why = error.strerror or str(error)
            raise BrownoutError(f"can't listen on {self._asked}: {why}") from error
        if not self._asked.path:
            self._asked = self._asked._replace(port=int(sock.getsockname()[1]))

    async def stop(self) -> None:
        """Listen no more and close every connection. Faults stay made, for the next start."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    # -------------------------------------------------------------------------------- connections

    def _accept(self) -> asyncio.Protocol:
        reader = _Reader()

        def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(self._tasks) >= CONNECTIONS_MOST or self._server is None:
                writer.transport.abort()
                return
            task = asyncio.create_task(self._connection(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return asyncio.StreamReaderProtocol(reader, accepted)

    async def _connection(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        upstream = Upstream(self._dial)
        try:
            while await self._request(reader, writer, upstream):
                pass
        except (OSError, TimeoutError, wire.Broken):
            pass
        except wire.Malformed as error:
            body = f"brownout: {error}\n".encode()
            headers = [(b"Content-Length", b"%d" % len(body)), (b"Connection", b"close")]
            writer.write(wire.write_head((b"HTTP/1.1", b"400", b"Bad Request"), headers) + body)
        finally:
            upstream.abort()
            writer.close()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._upstream.path:
            return await asyncio.open_unix_connection(self._upstream.path, limit=wire.HEAD_BYTES)
        return await asyncio.open_connection(
            self._upstream.host, self._upstream.port, limit=wire.HEAD_BYTES
        )

    async def _request(
        self, reader: _Reader, writer: asyncio.StreamWriter, upstream: Upstream
    ) -> bool:
        """One request; whether another may follow."""
        async with asyncio.timeout(IDLE_SECONDS):
            head = await wire.read_head(reader)
        if head is None:
            return False
        if head.third not in (b"HTTP/1.1", b"HTTP/1.0") or head.first == b"CONNECT":
            raise wire.Malformed("only HTTP/1.1 is spoken here, and no tunnel made")
        peer: Any = writer.get_extra_info("peername")
        client = "" if self._asked.path else str(peer[0])  # a Unix socket's has no address
        path = head.second.partition(b"?")[0]
        plan = self.plan(Request(head.first, path, head.headers, client))
        exchange = Exchange(head, plan, reader, writer, upstream)
        serving = asyncio.ensure_future(exchange.serve())
        leaving = asyncio.ensure_future(reader.left.wait())
        try:
            await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
            return serving.done() and serving.result()
        finally:
            serving.cancel()
            leaving.cancel()
            await asyncio.gather(serving, leaving, return_exceptions=True)


@contextmanager
def running(
    upstream: str, listen: str = "127.0.0.1:0", *, name: str = "", seed: int = 0
) -> Generator[HttpProxy]:
    """A started `HttpProxy` in a thread of its own, stopped on leaving, with its faults undone.

    Raises BrownoutError if the address can't be had.
    """
    with hosted(HttpProxy(upstream, listen, name=name, seed=seed)) as proxy:
        yield proxy
