"""A real HTTP server that does to each request what its script says, and writes down what came."""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.ext.listening import LIMIT_SECONDS, Listening

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable


class Came(NamedTuple):
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


# Does one thing to one connection after a request; says whether to go on with the connection.
Reply = "Callable[[Server, socket.socket], bool]"


def reply(status: int = 200, body: bytes = b"ok", **headers: str) -> Callable[..., bool]:
    """An answer; `retry_after="1"` is the header Retry-After."""
    lines = [f"HTTP/1.1 {status} Because", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    data = "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def do(_: Server, connection: socket.socket) -> bool:
        connection.sendall(data)
        return True

    return do


def held(*, then: Callable[..., bool]) -> Callable[..., bool]:
    """Waits until the test says go."""

    def do(server: Server, connection: socket.socket) -> bool:
        server.go.wait(LIMIT_SECONDS)
        return then(server, connection)

    return do


def hang(server: Server, connection: socket.socket) -> bool:
    """Says nothing until the caller leaves, or the test ends."""
    connection.settimeout(LIMIT_SECONDS)
    with suppress(OSError):
        connection.recv(1)
    return False


def _beneath(connection: socket.socket, most: int) -> bytes:
    """What came, below TLS: to that a reset is an end like another."""
    return socket.socket.recv(connection, most)


def watch(server: Server, connection: socket.socket) -> bool:
    """Says nothing, and writes down how the caller leaves."""
    connection.settimeout(LIMIT_SECONDS)
    try:
        server.left.append("closed" if not _beneath(connection, 1) else "sent more")
    except ConnectionResetError:
        server.left.append("reset")
    return False


def count(server: Server, connection: socket.socket) -> bool:
    """Reads nothing until the test says go; then all, and writes down how much, and how it ended."""
    server.go.wait(LIMIT_SECONDS)
    connection.settimeout(LIMIT_SECONDS)
    read = 0
    try:
        while data := _beneath(connection, 65536):
            read += len(data)
        server.left.append(f"closed after {read}")
    except ConnectionResetError:
        server.left.append("reset")
    server.late = read
    return False


def begun(*, then: Callable[..., bool], body: bytes = b"some", length: int = 100) -> Any:
    """The headers, and the first part of a longer body; and then."""

    def do(server: Server, connection: socket.socket) -> bool:
        head = f"HTTP/1.1 200 Because\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return then(server, connection)

    return do


def rest(body: bytes) -> Callable[..., bool]:
    """The last part of a body."""

    def do(_: Server, connection: socket.socket) -> bool:
        connection.sendall(body)
        return True

    return do


def cut(server: Server, connection: socket.socket) -> bool:
    """Closes without an answer."""
    return False


def reset(server: Server, connection: socket.socket) -> bool:
    """Resets the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def reset_at_first_byte(server: Server, connection: socket.socket) -> bool:
    """Resets the connection in the middle of what the caller says."""
    connection.recv(1)
    return reset(server, connection)


class Server(Listening):
    """Listens at `address`. `script` holds the replies to come; then it is `otherwise`.

    With `on_accept`, that is done to each connection before a request is read; with `tls` after its
    handshake, in that context.
    """

    def __init__(
        self,
        on_accept: Callable[..., bool] | None = None,
        tls: ssl.SSLContext | None = None,
        address: tuple[str, int] | str = ("127.0.0.1", 0),
        family: socket.AddressFamily = socket.AF_INET,
    ) -> None:
        self.script: deque[Callable[..., bool]] = deque()
        self.otherwise: Callable[..., bool] = reply()
        self.came: list[Came] = []
        self.left: list[str] = []  # how callers left, where it was watched
        self.late = -1  # bytes that came afterwards, where they were counted
        self.go = threading.Event()
        self._on_accept = on_accept
        self._tls = tls
        super().__init__(address, family)
        self.url = f"http{'s' if tls else ''}://{address[0]}:{self.port}"

    def _serve(self, raw: socket.socket) -> None:
        with suppress(OSError), raw, self._secured(raw) as connection:
            if self._on_accept is None or self._on_accept(self, connection):
                if connection.family != socket.AF_UNIX:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while (came := _read(connection)) is not None:
                    with self._lock:
                        self.came.append(came)
                        do = self.script.popleft() if self.script else self.otherwise
                    if not do(self, connection):
                        break
        with self._lock:
            self._open.discard(raw)

    def _secured(self, raw: socket.socket) -> socket.socket:
        if self._tls is None:
            return raw
        raw.settimeout(LIMIT_SECONDS)
        connection = self._tls.wrap_socket(raw, server_side=True)
        with self._lock:
            self._open.add(connection)
        return connection

    @property
    def open(self) -> int:
        """Connections that are open."""
        with self._lock:
            return len(self._open)

    def close(self) -> None:
        """End every connection and thread, also those that wait for a word of the test."""
        self.go.set()
        super().close()


def _read(connection: socket.socket) -> Came | None:
    connection.settimeout(LIMIT_SECONDS)
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)
    }
    chunked = headers.get("transfer-encoding") == "chunked"
    length = int(headers.get("content-length", "0"))
    while (not body.endswith(b"0\r\n\r\n")) if chunked else (len(body) < length):
        more = connection.recv(65536)
        if not more:
            return None
        body += more
    return Came(method, path, headers, body)
