"""A server that echoes, remembers what it was sent, and at the end of the stream says how much it was."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self


class _Echoing(asyncio.Protocol):
    def __init__(self, echo: Echo) -> None:
        self._echo = echo
        self._transport: asyncio.Transport | None = None
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._echo.open.add(transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport
        self._count += len(data)
        self._echo.heard += data
        self._transport.write(data)

    def eof_received(self) -> None:
        assert self._transport
        self._transport.write(b"BYE%d" % self._count)

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._transport
        self._echo.open.discard(self._transport)
        self._echo.lost.append(exc)


class Echo:
    """The server, in a thread of its own."""

    def __init__(self, path: str | None = None, host: str = "127.0.0.1") -> None:
        self.heard = bytearray()
        self.open: set[asyncio.Transport] = set()
        self.lost: list[Exception | None] = []
        self._path, self._host = path, host
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.address = ""

    async def _start(self) -> asyncio.Server:
        if self._path:
            self.address = f"unix:{self._path}"
            return await self._loop.create_unix_server(lambda: _Echoing(self), self._path)
        server = await self._loop.create_server(lambda: _Echoing(self), self._host, 0)
        host, port = server.sockets[0].getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return server

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *error: object) -> None:
        async def stop() -> None:
            self._server.close()
            for transport in list(self.open):
                transport.abort()
            while self.open:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
