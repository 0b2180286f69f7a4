"""A connection that is ended by a fault."""

from __future__ import annotations

import asyncio
import socket
import struct

__all__ = ["cut"]

WRITTEN_SECONDS = 1.0  # for what was sent before the cut
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


async def cut(transport: asyncio.WriteTransport, *, reset: bool) -> None:
    """End it, once what was sent is written: by a real RST, or a FIN. A Unix socket knows no RST."""
    loop = asyncio.get_running_loop()
    end = loop.time() + WRITTEN_SECONDS
    while transport.get_write_buffer_size() and loop.time() < end:  # noqa: ASYNC110  bounded, and soon over
        await asyncio.sleep(0.001)
    if reset:
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        transport.abort()
    else:
        transport.close()
