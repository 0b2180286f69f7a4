"""A process in a zone that hands connections from outside on: `forward.py LISTENER HOST PORT`, by its path.

The listener is one of the outside, and was inherited: a socket stays in the network where it was made. Each
connection is made anew inside. Imports nothing of brownout, to be quick.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys

CHUNK_BYTES = 65_536
CONNECT_SECONDS = 60.0
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close is an RST


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def _relay(
    host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            inner, outer = await asyncio.open_connection(host, port)
    except OSError:  # refused inside: outside it was accepted, and is reset
        _reset(writer)
        return
    ways = [
        asyncio.ensure_future(_hand_on(reader, outer)),
        asyncio.ensure_future(_hand_on(inner, writer)),
    ]
    try:
        await asyncio.gather(*ways)
    except OSError:  # one side was reset: so is the other
        _reset(writer)
        _reset(outer)
    finally:
        for way in ways:
            way.cancel()
        writer.close()
        outer.close()


async def _serve(listener: socket.socket, host: str, port: int) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _relay(host, port, reader, writer)

    server = await asyncio.start_server(relay, sock=listener)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], int(sys.argv[3])))
