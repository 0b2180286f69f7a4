"""The connection that a request is on, where it leads, and giving up on it.

A connection that is given up is aborted (RST), not closed politely: what still waits in the socket would be
delivered later, when a partition heals, to a target whose caller has long gone.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from brownout.ext.peer import tell

if TYPE_CHECKING:
    from brownout import Attempt

_ABORT = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # linger 0 seconds, then reset
_DEPTH = 4  # a connection through a tunnel lies three deep


def abort(stream: Any) -> None:
    """Make the close of a network stream that is about to come an abort, where it has a socket."""
    with suppress(Exception):
        stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)


class Found(NamedTuple):
    """The connection that a request is on, and whether it leads to the target itself, not to a proxy."""

    connection: Any
    direct: bool

    def tell(self, attempt: Attempt) -> None:
        """Label an attempt that is on it."""
        stream = self.connection._network_stream  # noqa: SLF001
        tell(attempt, self.connection, stream, direct=self.direct)


def found(transport: Any, extensions: Any) -> Found | None:
    """The connection that a request is on while its answer is not closed; None where nobody knows.

    The client does not tell it, so its pool is looked at: the request is known by its extensions. Where
    a client keeps that elsewhere, its connection is closed politely, and its streams are not reset.
    """
    with suppress(Exception):
        # What began last is asked for first, and most often.
        for waiting in reversed(list(transport._pool._requests)):  # noqa: SLF001
            if waiting.request.extensions is extensions:
                connection, direct = waiting.connection, True
                for _ in range(_DEPTH):
                    direct = direct and not hasattr(connection, "_proxy_origin")
                    if getattr(connection, "_network_stream", None) is not None:
                        return Found(connection, direct)
                    connection = getattr(connection, "_connection", None)
    return None


def stream_of(transport: Any, extensions: Any) -> Any:
    """The network stream of such a connection."""
    at = found(transport, extensions)
    return None if at is None else at.connection._network_stream  # noqa: SLF001
