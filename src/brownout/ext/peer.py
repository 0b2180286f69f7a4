"""Of which backend and on which connection an attempt is, as the socket beneath it says.

A name may stand for five addresses, of which one is bad: told apart, the verdict names it. So an attempt is
labelled when its connection is known, before anything is sent: `backend` is the address and port that was
really connected to, or the path of a Unix socket; `connection` our own port, or the file descriptor. Behind
a proxy nobody but the proxy knows the backend: there only the connection is told.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brownout import Attempt

__all__ = ["forget", "tell"]


def tell(attempt: Attempt, connection: Any, wire: Any, *, direct: bool = True) -> None:
    """Label an attempt with what the socket of its connection says; not at all where that says nothing.

    `wire` is the socket, or a transport or stream that has one. It is asked once, and what it said is kept on
    `connection`. `direct`: not through a proxy.
    """
    try:
        labels: dict[str, str] | None = getattr(connection, "brownout_labels", None)
        if labels is None:
            labels = _labels(wire, direct=direct)
            with suppress(AttributeError):  # it takes no attribute: it is asked each time
                connection.brownout_labels = labels
        attempt.label(**labels)
    except Exception:  # a call does not fail for want of a label
        return


def forget(connection: Any) -> None:
    """Ask its socket anew: it connects again."""
    connection.brownout_labels = None


def _labels(wire: Any, *, direct: bool) -> dict[str, str]:
    sock = wire.get_extra_info("socket") if hasattr(wire, "get_extra_info") else wire
    internet = sock.family in {socket.AF_INET, socket.AF_INET6}
    own = str(sock.getsockname()[1]) if internet else f"fd {sock.fileno()}"
    backend = {"backend": _address(sock.getpeername())} if direct else {}
    return {**backend, "connection": own}


def _address(peer: Any) -> str:
    """As one writes it: "10.0.0.3:80", "[::1]:80", or a path ("@name" without a file)."""
    if isinstance(peer, bytes):
        return peer.decode(errors="replace").replace("\0", "@", 1)
    if isinstance(peer, str):
        return peer
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
