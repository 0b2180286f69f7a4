"""Keys: the name of a piece of work, which carries its time.

A key is a UUID of version 7 (RFC 9562, 5.7): 48 bits of milliseconds since 1970, then 74 bits that tell
it apart. So a ledger can refuse a key that is older than it remembers, and can forget keys in order.
"""

from __future__ import annotations

import os
import sys
import time
from math import isfinite
from typing import TYPE_CHECKING, Any

from brownout._core.key import born, canonical, minted

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Self
    from uuid import UUID

_MOST_MILLISECONDS = (1 << 48) - 1
_WAYS = "give a datetime with a time zone, or seconds since 1970"


class Key(str):
    """Names a piece of work, here and at the target: however often it is sent, it is done once.

    `Key.of(order.id, at=order.created)` is the same key for the same order, also after a restart and in
    another process; `Key.new()` is one that nobody has had. `Key(text)` reads one, and raises KeyMalformed,
    a ValueError, for what is none. It is the text of a UUID of version 7, 36 characters.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Read a key."""
        return super().__new__(cls, canonical(text))

    @classmethod
    def new(cls) -> Self:
        """A key of this moment that nobody has had."""
        return super().__new__(cls, minted(int(time.time() * 1000), os.urandom(10)))

    @classmethod
    def of(cls, *parts: str | bytes | int | UUID, at: float | datetime) -> Self:
        """The key of the thing that `parts` name, which came to be at `at`: the same again for the same.

        `at` is a datetime with a time zone, or seconds since 1970, and is rounded to milliseconds. Take it as
        it is stored, not as it was before storing rounded it. A number and its text are the same part.
        Raises TypeError or ValueError for what would not name one thing, such as None.
        """
        import hashlib

        if not parts:
            raise TypeError(
                "Key.of() needs something that names the work: Key.of(order.id, at=...)"
            )
        digest = hashlib.sha256(b"brownout key\0")
        for part in parts:
            bytes_ = _bytes(part)
            digest.update(len(bytes_).to_bytes(8) + bytes_)
        return super().__new__(cls, minted(_milliseconds(at), digest.digest()))

    @property
    def created(self) -> float:
        """The time that it carries, in seconds since 1970."""
        return born(self) / 1000

    def __repr__(self) -> str:
        return f"Key({str(self)!r})"

    def __reduce__(self) -> tuple[type[Key], tuple[str]]:
        return Key, (str(self),)


def _bytes(part: object) -> bytes:
    if isinstance(part, bytes) and part:
        return part
    number = isinstance(part, int) and not isinstance(part, bool)
    uuid = sys.modules.get("uuid")  # who has one has imported it
    if number or (uuid and isinstance(part, uuid.UUID)) or (isinstance(part, str) and part):
        # An enumeration's members print otherwise from version to version; their plain text does not.
        text = str.__str__(part) if isinstance(part, str) else f"{part:d}" if number else str(part)
        return text.encode("utf-8", "surrogatepass")
    raise TypeError(
        f"Key.of({part!r:.80}): this names no one thing; give a text, a whole number, bytes or a UUID"
        + (" (has the row been stored, so that it has its id?)" if part is None else "")
    )


def _milliseconds(at: Any) -> int:
    seconds: object = at
    if hasattr(at, "timestamp"):
        if at.tzinfo is None:
            raise ValueError(
                f"at={at!r} has no time zone, so it is another instant on another machine; {_WAYS},"
                " such as at=order.created.replace(tzinfo=UTC)"
            )
        seconds = at.timestamp()
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"at={at!r:.80} is no time: {_WAYS}")
    milliseconds = round(seconds * 1000) if isfinite(seconds) else -1
    if not 0 <= milliseconds <= _MOST_MILLISECONDS:
        raise ValueError(f"at={at!r:.80} is out of range: {_WAYS}")
    return milliseconds
