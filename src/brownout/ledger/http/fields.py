"""The header fields of a call that `Once` reads: the key, how long its caller would wait, how long it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    Headers = Iterable[tuple[bytes, bytes]]

__all__ = ["KEY", "key", "length", "preferred"]

KEY = b"idempotency-key"
LONGEST, FIELD_LONGEST = 36, 100  # characters of a UUID; of the field, with quotes and parameters

# A string of RFC 9651 (structured fields), perhaps with parameters, which mean nothing here.
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"[ ]*(?:;.*)?')
_PREFERENCE = re.compile(
    r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^;,"]*))?'
)
_WAIT_MOST = 86_400.0


def values(headers: Headers, name: bytes) -> list[str]:
    """Every value of a header, in order."""
    return [value.decode("latin-1").strip() for key, value in headers if key.lower() == name]


def key(headers: Headers) -> str | None:
    """The text of the key that a call brings, quoted or bare; None without one.

    Raises Problem if it is there more than once, empty, too long or badly quoted. Whether the text is a
    key is for the ledger to say.
    """
    found = values(headers, KEY)
    if not found:
        return None
    if len(found) > 1:
        raise Problem("key-malformed", "There are several Idempotency-Keys. Send one.")
    text = found[0]
    if text.startswith('"') and len(text) <= FIELD_LONGEST:
        quoted = _QUOTED.fullmatch(text)
        if quoted is None:
            raise Problem("key-malformed", 'Its quotes make no sense. Send "key", or key without.')
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    if not text:
        raise Problem("key-malformed", "It is empty. A key is a UUIDv7, of 36 characters.")
    if len(text) > LONGEST:
        raise Problem(
            "key-too-long",
            f"It has {len(text)} characters. A key is a UUIDv7, of 36 characters: Key.new().",
        )
    return text


def preferred(headers: Headers) -> float:
    """Seconds that the caller would wait, by `Prefer: wait=n` (RFC 7240); 0.0 if it says nothing."""
    for line in values(headers, b"prefer"):
        for preference in line.split(","):
            found = _PREFERENCE.match(preference)
            if found is None or found[1].lower() != "wait":
                continue
            text = (found[2] or "").strip().strip('"')
            if text.isascii() and text.isdecimal():
                return min(float(text), _WAIT_MOST)
    return 0.0


def length(headers: Headers) -> int | None:
    """The length in bytes that the body is said to have; None if that is not said, or makes no sense."""
    found = values(headers, b"content-length")
    said = found[0] if found else ""
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 19 else None
