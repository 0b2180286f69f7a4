"""A small HTTP/1.1 client for the caller: GET with kept-alive connections, and no time-out of its own.

A connection is used again only after a whole answer. One that was given up is aborted (RST), so that
the shop learns of it.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: Any


class Client:
    """Asks one address. As many connections as there are calls in flight."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def get(self, path: str) -> Answer:
        """GET a path; raises OSError or EOFError when no whole answer came."""
        reader, writer = await self._connection()
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            _, _, rest = head.partition("content-length:")
            text = await reader.readexactly(int(rest.split(maxsplit=1)[0]))
        except BaseException:
            writer.transport.abort()
            raise
        self._idle.append((reader, writer))
        return Answer(int(head.split(maxsplit=2)[1]), json.loads(text))

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.transport.abort()
        return await asyncio.open_connection("127.0.0.1", self._port)
