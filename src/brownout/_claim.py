"""What a target says of itself: its own health check, asked over HTTP or gRPC, or by a function.

It is one more observer, and never the truth: it is set beside what callers suffer. It is asked off the path
of calls, and each question has an end. `grpc://host:port/service` is `grpc.health.v1.Health/Check`, spoken
directly: one request over HTTP/2 needs no library.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from brownout._drive.function import is_async

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from urllib.parse import SplitResult

SCHEMES = ("http", "https", "grpc", "grpcs")
MOST_BYTES = 65_536  # of an answer
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 1, 1, 4, 8
_SERVING = 1


def health_faults(health: object) -> list[str]:
    """What is wrong with a guard's `health`, as it is given."""
    if health is None or (callable(health) and not is_async(health)):
        return []
    if isinstance(health, str) and health.partition("://")[0] in SCHEMES and _has_host(health):
        return []
    return [
        (
            "health: give an http://, https://, grpc:// or grpcs:// URL (grpc://host:port/service),"
            " or a `def` without arguments"
        )
    ]


def _has_host(url: str) -> bool:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def says_ok(ask: str | Callable[[], bool], seconds: float) -> bool:
    """Whether a health check says ok, within about so many seconds. Raises what its client raises."""
    if callable(ask):
        return bool(ask())
    from urllib.parse import urlsplit

    parts = urlsplit(ask)
    return (_grpc_ok if parts.scheme.startswith("grpc") else _http_ok)(parts, seconds)


def _http_ok(parts: SplitResult, seconds: float) -> bool:
    """Whether a GET is answered with 2xx in time. No redirect, no proxy, no retry."""
    import http.client
    from base64 import b64encode
    from urllib.parse import unquote

    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=seconds)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"User-Agent": "brownout", "Connection": "close"}
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + b64encode(user.encode()).decode()
    try:
        connection.request("GET", path, headers=headers)
        return 200 <= connection.getresponse().status < 300
    finally:
        connection.close()


# ------------------------------------------------------------------------------------- gRPC


def _grpc_ok(parts: SplitResult, seconds: float) -> bool:
    """Whether grpc.health.v1.Health/Check answers SERVING in time."""
    import socket
    from urllib.parse import unquote

    end = time.monotonic() + seconds
    secure = parts.scheme == "grpcs"
    address = parts.hostname or "", parts.port or (443 if secure else 80)
    service = unquote(parts.path.lstrip("/")).encode()
    plain = socket.create_connection(address, seconds)
    with _secured(plain, address[0]) if secure else plain as connection:
        authority = f"{parts.hostname}:{address[1]}"
        connection.sendall(_question(service, authority, secure=secure, seconds=seconds))
        return _answer(connection, end)


def _secured(plain: socket.socket, host: str) -> Any:
    import ssl

    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(plain, server_hostname=host)


def _question(service: bytes, authority: str, *, secure: bool, seconds: float) -> bytes:
    """The preface, our settings (none), and the request: headers, and a message of one field."""
    headers = {
        ":method": "POST",
        ":scheme": "https" if secure else "http",
        ":path": "/grpc.health.v1.Health/Check",
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
        "grpc-timeout": f"{int(1000 * seconds)}m",
        "user-agent": "brownout",
    }
    block = b"".join(
        b"\0" + _text(name.encode()) + _text(value.encode()) for name, value in headers.items()
    )
    field = b"\x0a" + _varint(len(service)) + service if service else b""
    message = b"\0" + len(field).to_bytes(4, "big") + field
    return b"".join(
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            _frame(_SETTINGS, 0, 0),
            _frame(_HEADERS, _END_HEADERS, 1, block),
            _frame(_DATA, _END_STREAM, 1, message),
        ]
    )


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def _text(raw: bytes) -> bytes:
    """A string of a header, as it is (RFC 7541, 5.2)."""
    if len(raw) < 127:
        return bytes((len(raw),)) + raw
    return b"\x7f" + _varint(len(raw) - 127) + raw


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes((*digits, number))


def _answer(connection: Any, end: float) -> bool:
    """Read frames until the stream has ended; what its message says."""
    message, read = b"", 0
    while read < MOST_BYTES:
        head = _receive(connection, 9, end)
        size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        read += 9 + size
        if read > MOST_BYTES:
            break
        payload = _receive(connection, size, end)
        ours = int.from_bytes(head[5:], "big") == 1
        if kind in {_SETTINGS, _PING} and not flags & _ACK:
            connection.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _GO_AWAY or (kind == _RESET and ours):
            return False
        elif kind == _DATA and ours:
            pad = payload[0] if flags & _PADDED and payload else 0
            message += payload[1 : len(payload) - pad] if flags & _PADDED else payload
        if ours and kind in {_DATA, _HEADERS} and flags & _END_STREAM:
            return message[:1] == b"\0" and message[5:7] == bytes((8, _SERVING))
    return False


def _receive(connection: Any, size: int, end: float) -> bytes:
    found = b""
    while len(found) < size:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the health check did not answer in time")
        connection.settimeout(left)
        more = connection.recv(size - len(found))
        if not more:
            raise ConnectionResetError("the health check hung up")
        found += more
    return found
