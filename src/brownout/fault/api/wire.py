"""HTTP/1.1, as much as an API needs: a request read within its limits, an answer written.

What two readers could take in two ways is refused, never guessed: a length given twice, a length beside
chunks, a folded or misspelt header. Sources: RFC 9112 (messages), RFC 9110 (Expect, Allow).
"""

from __future__ import annotations

import asyncio
import re
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from brownout.fault.api.answer import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from brownout.fault.api.answer import Answer

__all__ = ["HEAD_BYTES", "Head", "read_body", "read_head", "written"]

HEAD_BYTES = 32 * 1024
HEADERS = 100
BODY_BYTES = 1 << 20
LINE_BYTES = 1024  # of a chunk's size with its extensions, and of a trailer
TRAILERS = 20

IDLE_SECONDS = 60.0  # toxiproxy's own
READ_SECONDS = 15.0

_REQUEST = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([!-~]+) HTTP/(\d)\.(\d)")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*?)[ \t]*")
_ABSOLUTE = re.compile(r"https?://([^/?#]*)(.*)", re.IGNORECASE)
_ONCE = {"authorization", "content-length", "expect", "host", "origin", "transfer-encoding"}


class Head(NamedTuple):
    """The first part of a request. Header names are in small letters."""

    method: str
    path: str  # as sent, percent signs and all, without the query
    headers: Mapping[str, str]
    keep_alive: bool
    http_1_0: bool


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next request's head; None when no further request comes.

    Raises Problem for what is no request, ConnectionError if the client leaves in the midst of it.
    """
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            first = await _after_blank_lines(reader)
    except TimeoutError:
        return None
    if not first:
        return None
    try:
        async with asyncio.timeout(READ_SECONDS):
            rest = await reader.readuntil(b"\r\n\r\n")
    except TimeoutError:
        raise Problem(408, f"the request's head took over {READ_SECONDS:g} s") from None
    except asyncio.LimitOverrunError:
        raise Problem(431, f"the request's head is longer than {HEAD_BYTES} bytes") from None
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("the client left in the midst of a request") from error
    return _head((first + rest)[:-4].decode("latin-1"))


async def _after_blank_lines(reader: asyncio.StreamReader) -> bytes:
    """The first byte that begins a request; some clients send an empty line after a body."""
    for _ in range(8):
        first = await reader.read(1)
        if first not in (b"\r", b"\n"):
            return first
    raise Problem(400, "blank lines instead of a request")


def _head(text: str) -> Head:
    request, *lines = text.split("\r\n")
    found = _REQUEST.fullmatch(request)
    if found is None:
        raise Problem(400, f"not a request line: {request[:80]!r}")
    method, target, major, minor = found.groups()
    if major != "1":
        raise Problem(505, f"HTTP/{major} is not spoken here, HTTP/1.1 is")
    headers = _headers(lines)
    http_1_0 = minor == "0"
    if absolute := _ABSOLUTE.fullmatch(target):
        headers["host"], target = absolute[1], absolute[2] or "/"
    elif not http_1_0 and "host" not in headers:
        raise Problem(400, "a request has a Host header")
    if not target.startswith("/") and (method, target) != ("OPTIONS", "*"):
        raise Problem(400, f"not a path: {target[:80]!r}")
    tokens = {each.strip().lower() for each in headers.get("connection", "").split(",")}
    keep = "keep-alive" in tokens if http_1_0 else "close" not in tokens
    return Head(method, target.partition("?")[0], headers, keep, http_1_0)


def _headers(lines: list[str]) -> dict[str, str]:
    if len(lines) > HEADERS:
        raise Problem(431, f"more than {HEADERS} headers")
    headers: dict[str, str] = {}
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise Problem(400, f"not a header: {line[:80]!r}")
        name, value = found[1].lower(), found[2]
        if name in headers and name in _ONCE:
            raise Problem(400, f"the header {found[1]} is given twice")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def read_body(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: Head
) -> bytes:
    """The body that follows a head, empty if none does. Raises as `read_head` does."""
    length, chunked = _length(head.headers), _chunked(head)
    if chunked and length is not None:
        raise Problem(400, "both Content-Length and Transfer-Encoding: which is it?")
    if not chunked and not length:
        return b""
    if (length or 0) > BODY_BYTES:
        raise Problem(413, f"the body is longer than {BODY_BYTES} bytes")
    if "expect" in head.headers and not head.http_1_0:
        if head.headers["expect"].lower() != "100-continue":
            raise Problem(417, "nothing but 100-continue can be expected")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await (reader.readexactly(length) if length else _chunks(reader))
    except TimeoutError:
        raise Problem(408, f"the request's body took over {READ_SECONDS:g} s") from None
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("the client left in the midst of a body") from error


def _length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("content-length")
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Problem(400, f"not a Content-Length: {text[:80]!r}")
    return int(text)


def _chunked(head: Head) -> bool:
    text = head.headers.get("transfer-encoding")
    if text is None:
        return False
    if head.http_1_0:
        raise Problem(400, "HTTP/1.0 knows no Transfer-Encoding")
    if text.lower() != "chunked":
        raise Problem(501, f"the only Transfer-Encoding known here is chunked, not {text[:80]!r}")
    return True


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        found = re.fullmatch(rb"([0-9A-Fa-f]{1,8})[ \t]*(;.*)?", await _line(reader))
        if found is None:
            raise Problem(400, "not the size of a chunk")
        size = int(found[1], 16)
        if not size:
            break
        if len(body) + size > BODY_BYTES:
            raise Problem(413, f"the body is longer than {BODY_BYTES} bytes")
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise Problem(400, "a chunk is not as long as it said")
    for _ in range(TRAILERS):
        if not await _line(reader):
            return bytes(body)
    raise Problem(431, f"more than {TRAILERS} trailers")


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        line = await reader.readuntil(b"\r\n")
    except asyncio.LimitOverrunError:
        line = b" " * (LINE_BYTES + 3)
    if len(line) > LINE_BYTES + 2:
        raise Problem(431, f"a line of a chunked body is longer than {LINE_BYTES} bytes")
    return line[:-2]


def written(answer: Answer, *, number: int, at: float, keep_alive: bool, bodiless: bool) -> bytes:
    """The bytes of an answer. `number` counts requests, `at` is Unix time, `bodiless` is for HEAD."""
    kind, body = answer.body()
    headers = [
        ("Date", formatdate(at, usegmt=True)),
        ("X-Toxiproxy-Request-Id", f"{number:020d}"),
        ("Connection", "keep-alive" if keep_alive else "close"),
        *answer.headers,
    ]
    if kind:
        headers.append(("Content-Type", kind))
    if answer.code != HTTPStatus.NO_CONTENT:  # which has no body, and says so by its code
        headers.append(("Content-Length", str(len(body))))
    lines = [f"HTTP/1.1 {answer.code} {HTTPStatus(answer.code).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if bodiless else body)
