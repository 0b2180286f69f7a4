"""A reply as the bytes that a store keeps: its headers, then its body, compressed if that is worth it."""

from __future__ import annotations

import json
import zlib

from brownout._core.ledger import Reply

COMPRESSED_FROM_BYTES = 1024
_ZIPPED, _DIGEST = 1, 2


def packed(reply: Reply) -> bytes:
    """One byte of flags, four of the headers' length, the headers as JSON, the body."""
    headers = json.dumps(reply.headers, separators=(",", ":")).encode() if reply.headers else b""
    body, flags = reply.body, 0 if reply.whole else _DIGEST
    if len(body) >= COMPRESSED_FROM_BYTES:
        smaller = zlib.compress(body, 1)
        if len(smaller) < len(body):
            body, flags = smaller, flags | _ZIPPED
    return bytes([flags]) + len(headers).to_bytes(4, "big") + headers + body


def unpacked(status: int, data: bytes) -> Reply:
    """What `packed` has made."""
    flags, length = data[0], int.from_bytes(data[1:5], "big")
    headers: list[list[object]] = json.loads(data[5 : 5 + length]) if length else []
    body = data[5 + length :]
    if flags & _ZIPPED:
        body = zlib.decompress(body)
    pairs = tuple((str(name), str(value)) for name, value in headers)
    return Reply(status, pairs, body, whole=not flags & _DIGEST)
