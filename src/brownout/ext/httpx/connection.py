"""The connection that a request is on, and giving up on it.

A connection that is given up is aborted (RST), not closed politely: what still waits in the socket would be
delivered later, when a partition heals, to a target whose caller has long gone.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import Any

_ABORT = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # linger 0 seconds, then reset
_DEPTH = 4  # a connection through a tunnel lies three deep


def abort(stream: Any) -> None:
    """Make the close of a network stream that is about to come an abort, where it has a socket."""
    with suppress(Exception):
        stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)


def connection_of(transport: Any, extensions: Any) -> Any:
    """The connection that a request is on while its answer is not closed; None where nobody knows.

    The client does not tell it, so its pool is looked at: the request is known by its extensions. Where
    a client keeps that elsewhere, its connection is closed politely, and its streams are not reset.
    """
    with suppress(Exception):
        for waiting in list(transport._pool._requests):  # noqa: SLF001
            if waiting.request.extensions is extensions:
                connection = waiting.connection
                for _ in range(_DEPTH):
                    if getattr(connection, "_network_stream", None) is not None:
                        return connection
                    connection = getattr(connection, "_connection", None)
    return None


def stream_of(transport: Any, extensions: Any) -> Any:
    """The network stream of such a connection."""
    return getattr(connection_of(transport, extensions), "_network_stream", None)
