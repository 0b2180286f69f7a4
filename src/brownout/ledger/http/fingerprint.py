"""Which work a call asks for, in 16 bytes: the same key with another fingerprint is a mistake."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["fingerprint"]

SIZE = 16


def fingerprint(
    method: str, path: bytes, query: bytes, body: bytes, *, canonical_json: bool = False
) -> bytes:
    """SHA-256 of what is asked for, shortened to 16 bytes. Headers are left out: a retry may have others.

    With `canonical_json` a body that is JSON counts by what it says: order of members and white space
    are no difference.
    """
    if canonical_json:
        body = _canonical(body)
    digest = hashlib.sha256()
    for part in (method.upper().encode("ascii", "replace"), path, query, body):
        digest.update(len(part).to_bytes(8, "big"))  # else a path's end could stand in the query
        digest.update(part)
    return digest.digest()[:SIZE]


def _canonical(body: bytes) -> bytes:
    try:
        told = json.loads(body, object_pairs_hook=_members, parse_float=_exact, parse_int=_exact)
        return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return body  # it is what it is


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name twice: readers differ on what that means")
    return members


def _exact(text: str) -> list[str]:
    """A number as it is written, and no string: 1.0 may mean more than 1, and long ones lose digits."""
    return ["", text]
