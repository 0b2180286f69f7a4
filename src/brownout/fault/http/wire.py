"""HTTP/1.1 as bytes: heads, and bodies by length, in chunks or until the end (RFC 9112).

It is strict where two readers could differ: such a message is refused, and never passed on.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

__all__ = [
    "HEAD_BYTES",
    "Broken",
    "Framing",
    "Head",
    "Malformed",
    "body",
    "read_head",
    "write_head",
]

HEAD_BYTES = 64 << 10
PIECE_BYTES = 64 << 10
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n\Z")
_OF_A_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade"}
    | {b"transfer-encoding", b"expect"}
)

Headers = list[tuple[bytes, bytes]]
Framing = int | Literal["chunked", "close"]


class Malformed(Exception):
    """No message of HTTP/1.1, or one that can be read in two ways."""


class Broken(Exception):
    """The connection ended in the midst of a message."""


class Head(NamedTuple):
    """The first line's three parts, and the headers in order."""

    first: bytes
    second: bytes
    third: bytes
    headers: Headers

    def all(self, name: bytes) -> list[bytes]:
        """The values of a header."""
        return [value for each, value in self.headers if each.lower() == name]

    def tokens(self, name: bytes) -> list[bytes]:
        """The values of a header that is a list, in lower case."""
        listed = b",".join(self.all(name)).lower().split(b",")
        return [token.strip() for token in listed if token.strip()]

    def framing(self, none: Framing) -> Framing:
        """How its body is told from what follows; `none` if it does not say. Raises Malformed."""
        coding, lengths = self.tokens(b"transfer-encoding"), self.tokens(b"content-length")
        if coding:
            if coding != [b"chunked"] or lengths:
                raise Malformed("a transfer-encoding other than chunked, or a length beside it")
            return "chunked"
        if not lengths:
            return none
        if len(set(lengths)) > 1 or not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
            raise Malformed("no length, or two")
        return int(lengths[0])

    def onward(self, *, upgrade: bool = False) -> Headers:
        """The headers that are for the next hop too."""
        dropped = _OF_A_HOP | set(self.tokens(b"connection"))
        headers = [each for each in self.headers if each[0].lower() not in dropped]
        if upgrade:
            headers.append((b"Connection", b"Upgrade"))
            headers += [each for each in self.headers if each[0].lower() == b"upgrade"]
        return headers


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The head of a message; None if the connection ended before it. Raises Malformed, Broken, OSError."""
    try:
        data = await reader.readuntil(b"\r\n\r\n")
        while data == b"\r\n\r\n":  # RFC 9112 2.2: empty lines before it are nothing
            data = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise Malformed(f"a head of more than {HEAD_BYTES} bytes") from None
    except asyncio.IncompleteReadError as error:
        if error.partial.strip():
            raise Broken from None
        return None
    first, *lines = data.lstrip(b"\r\n")[:-4].split(b"\r\n")
    parts = first.split(b" ", 2)
    if len(parts) == 2 and first.startswith(b"HTTP/"):
        parts.append(b"")  # a status without words
    headers: Headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if (
            not colon
            or not _TOKEN.match(name)
            or b"\r" in value
            or b"\n" in value
            or b"\0" in value
        ):
            raise Malformed("a header line that is none")
        headers.append((name, value.strip(b" \t")))
    if len(parts) != 3 or b"\n" in first or b"\r" in first or b"\0" in first:
        raise Malformed("no first line")
    return Head(parts[0], parts[1], parts[2], headers)


def write_head(first: Sequence[bytes], headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A head, as bytes."""
    lines = [b" ".join(first), *(name + b": " + value for name, value in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def body(reader: asyncio.StreamReader, framing: Framing) -> AsyncIterator[bytes]:
    """The pieces of a body, as they come. Raises Malformed, Broken, OSError."""
    if framing == "close":
        while data := await reader.read(PIECE_BYTES):
            yield data
    elif framing == "chunked":
        while size := await _size(reader):
            async for data in _exactly(reader, size):
                yield data
            if await _exact(reader, 2) != b"\r\n":
                raise Malformed("a chunk that is longer than it says")
        for _ in range(100):
            if await _line(reader) == b"\r\n":
                return
        raise Malformed("more than 100 trailers")
    else:
        async for data in _exactly(reader, framing):
            yield data


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    while size:
        data = await reader.read(min(size, PIECE_BYTES))
        if not data:
            raise Broken
        size -= len(data)
        yield data


async def _size(reader: asyncio.StreamReader) -> int:
    found = _SIZE.match(await _line(reader))
    if found is None:
        raise Malformed("a chunk without a size")
    return int(found[1], 16)


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n")
    except asyncio.LimitOverrunError:
        raise Malformed("a line that does not end") from None
    except asyncio.IncompleteReadError:
        raise Broken from None


async def _exact(reader: asyncio.StreamReader, size: int) -> bytes:
    try:
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        raise Broken from None
