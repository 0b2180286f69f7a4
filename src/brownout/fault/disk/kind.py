"""The kinds that only a disk has, and what all kinds have that a disk can make."""

from __future__ import annotations

import errno
from dataclasses import dataclass, fields
from math import inf
from typing import TYPE_CHECKING, ClassVar

from brownout._core.fault import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OPERATIONS", "Error", "Full", "Old", "Stored", "of_disks_alone"]

OPERATIONS = ("read", "write", "fsync")


@dataclass(frozen=True, kw_only=True)
class Stored(Fault):
    """What a disk is told besides: which operations on which bytes of a file it hits.

    Only operations that touch bytes from `bytes_from` up to `bytes_to` are hit. A write to bad bytes, if
    it gets through, makes them good again with `repaired_by_write`.
    """

    operations: tuple[str, ...] = ("read",)
    bytes_from: int = 0
    bytes_to: float = inf
    repaired_by_write: bool = False

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        if not self.operations or not set(self.operations) <= set(OPERATIONS):
            yield f"operations={self.operations!r} are some of {', '.join(OPERATIONS)}, as a tuple"
        if not self.bytes_from < self.bytes_to:
            yield f"bytes_from={self.bytes_from!r} is less than bytes_to={self.bytes_to!r}"


def of_disks_alone(fault: Fault) -> list[str]:
    """What it is told that says something to a disk only."""
    names = [each.name for each in fields(Stored) if each.name not in _OF_ALL]
    return [
        name
        for name in (*names, "errno", "killable")
        if (mine := type(fault).__dataclass_fields__.get(name))
        and getattr(fault, name) != mine.default
    ]


_OF_ALL = frozenset(each.name for each in fields(Fault))


def no_errno(name: str) -> Iterator[str]:
    """What is wrong with the name of an error."""
    if not isinstance(getattr(errno, name, None), int):
        yield f'errno={name!r} is the name of one, such as "EIO"'


@dataclass(frozen=True, kw_only=True)
class Error(Stored):
    """The operation fails at once, with this error."""

    kind: ClassVar[str] = "error"

    errno: str = "EIO"

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        yield from no_errno(self.errno)


@dataclass(frozen=True, kw_only=True)
class Full(Stored):
    """There is no room: a write that makes a file longer fails with ENOSPC. One in place succeeds."""

    kind: ClassVar[str] = "full"

    operations: tuple[str, ...] = ("write",)

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        if self.operations != ("write",):
            yield f"operations={self.operations!r}: only a write needs room"


@dataclass(frozen=True, kw_only=True)
class Old(Stored):
    """Reads give what was there when the fault was made; once it is undone, what was written since."""

    kind: ClassVar[str] = "old"

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        if self.operations != ("read",) or self.repaired_by_write:
            yield "only a read is old, and no write repairs it: leave out operations, repaired_by_write"
