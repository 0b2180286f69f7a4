"""What of a handler's answer is kept, and what is sent when it is told again."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from brownout._core.ledger import MOST_KEPT_BYTES, Reply

from .problem import Sent

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Capture", "keepable", "replay"]

MOST_HEADERS_BYTES = 8_192

# Of one connection, of one moment, or of one caller; and what is written anew each time.
_NEVER = {
    "connection", "content-length", "date", "idempotent-replayed", "keep-alive", "outcome",
    "proxy-authenticate", "proxy-authentication-info", "proxy-connection", "server", "set-cookie",
    "set-cookie2", "te", "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip


def keepable(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    """The headers of an answer that may be told again, at most 8 KiB of them."""
    pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
    hops = {
        name.strip().lower()
        for key, value in pairs
        if key == "connection"
        for name in value.split(",")
    }
    kept: list[tuple[str, str]] = []
    left = MOST_HEADERS_BYTES
    for name, value in pairs:
        size = len(name) + len(value)
        if name in _NEVER or name in hops or size > left:
            continue
        left -= size
        kept.append((name, value))
    return tuple(kept)


class Capture:
    """An answer as it comes: its head, its body up to the limit, and the digest of all of it."""

    def __init__(self, most_bytes: int = MOST_KEPT_BYTES) -> None:
        self.status = 0  # no answer has begun
        self.headers: tuple[tuple[str, str], ...] = ()
        self.ended = False
        self._most = most_bytes
        self._body = bytearray()
        self._digest = hashlib.sha256()
        self._size = 0

    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """The head came."""
        self.status = status
        self.headers = keepable(headers)

    def add(self, data: bytes, *, more: bool) -> None:
        """A part of the body came."""
        self._size += len(data)
        self._digest.update(data)
        if self._size <= self._most:
            self._body += data
        else:
            self._body.clear()
        self.ended = not more

    @property
    def large(self) -> bool:
        """Whether the body is too large to be kept."""
        return self._size > self._most

    def reply(self) -> Reply:
        """What is kept of what has come. A body that is too large, or has not ended, is not whole."""
        if self.ended and not self.large:
            return Reply(self.status, self.headers, bytes(self._body))
        digest = self._digest.digest() if self.ended else b""
        return Reply(self.status, self.headers, digest, whole=False)


def replay(reply: Reply | None) -> Sent:
    """What is sent to whoever asks for the same work again.

    Where the body was not kept, a success is 200 without it: the work is done, and that is told; where it
    is to be found may stand in Location.
    """
    again = ("idempotent-replayed", "true")
    if reply is None:
        return Sent(200, (("content-length", "0"), ("outcome", "done;body=dropped"), again))
    if reply.whole:
        headers = list(reply.headers)
        if _has_body(reply.status):
            headers.append(("content-length", str(len(reply.body))))
        return Sent(reply.status, (*headers, ("outcome", "done"), again), reply.body)
    status = 200 if 200 <= reply.status < 300 else reply.status
    # What described the body goes with it.
    headers = [pair for pair in reply.headers if not pair[0].startswith("content-")]
    if reply.body:
        digest = base64.b64encode(reply.body).decode()
        headers.append(("dropped-digest", f"sha-256=:{digest}:"))
    headers += [("content-length", "0"), ("outcome", "done;body=dropped"), again]
    return Sent(status, tuple(headers))


def _has_body(status: int) -> bool:
    return status >= 200 and status not in {204, 304}
