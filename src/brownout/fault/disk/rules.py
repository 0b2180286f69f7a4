"""The faults in force at a disk, and what they decide of one operation on one file.

The subject that is drawn is a block of 4 KiB of a file: a bad one stays bad, as a bad sector does. An
operation is judged by the first block that it touches and that no write has repaired; with `per="request"`
each operation is drawn anew.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.fault import Decision, Injection, Log, drawn
from brownout.fault.disk.kind import Error, Full, Old, Stored
from brownout.fault.kind import Hang, Latency

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from brownout._core.fault import Chance

__all__ = ["MAKES", "Access", "Fate", "Rule", "Rules"]

BLOCK = 4096
MAKES = (Error, Full, Hang, Latency, Old)
MOST_RULES = 100
MOST_FILES = 10_000  # whose draws are kept ready
MOST_REPAIRED = 1_000_000  # blocks; then all are bad again, and the log says so
MOST_OLD_BYTES = (
    256 << 20
)  # kept for one fault; what is written after that is not old, and the log says so


class Access(NamedTuple):
    """One operation: "read", "write" or "fsync" of some bytes of a file."""

    operation: str
    key: object  # the file, whatever its name is
    path: bytes  # below the disk's folder
    offset: int
    size: int
    length: int = 0  # of the file, for a write


@dataclass(slots=True)
class Fate:
    """What is to become of an operation: it waits, then it fails or is done."""

    seconds: float = 0.0
    errno: int = 0
    killable: bool = True
    old: Rule | None = None
    rules: tuple[str, ...] = ()


@dataclass(slots=True)
class _Past:
    """What a file had in it: its length, and the blocks that were written to since."""

    length: int
    blocks: dict[int, bytes] = field(default_factory=dict[int, bytes])


class Rule:
    """One fault in force."""

    def __init__(self, name: str, fault: Stored, *, seed: int, since: float, log: Log) -> None:
        self.name = name
        self.fault = fault
        self.log = log
        self._seed, self._since = seed, since
        self._files: dict[bytes, Injection] = {}
        self._requests = 0
        self._repaired: dict[object, set[int]] = {}
        self._repairs = 0
        self._past: dict[object, _Past] = {}
        self._kept_bytes = 0

    # ----------------------------------------------------------------------------- whom it hits

    def _injection(self, path: bytes) -> Injection:
        found = self._files.get(path)
        if found is None:
            if len(self._files) >= MOST_FILES:
                self._files.clear()
            name = f"{self.name} {path.decode(errors='replace')}"
            found = self._files[path] = Injection(
                name, self.fault, seed=self._seed, since=self._since, log=self.log
            )
        return found

    def _block(self, access: Access) -> int | None:
        """The block that is judged, or None if it touches none of those that are bad."""
        if access.operation == "fsync":
            return 0
        fault = self.fault
        first = max(access.offset, fault.bytes_from)
        last = min(access.offset + access.size, fault.bytes_to)
        if first >= last:
            return None
        block, end = first // BLOCK, -(-int(last) // BLOCK)
        repaired = self._repaired.get(access.key)
        if repaired:
            while block in repaired:
                block += 1
        return block if block < end else None

    def hits(self, access: Access, now: float) -> Chance | None:
        """The draws for an operation that it hits, else None."""
        fault = self.fault
        if access.operation not in fault.operations:
            return None
        if isinstance(fault, Full) and access.offset + access.size <= access.length:
            return None
        block = self._block(access)
        if block is None:
            return None
        injection, connection, request = self._injection(access.path), block + 1, 0
        if fault.per == "request":
            self._requests += 1
            connection, request = 0, self._requests
        if not injection.hits(now, connection, request, head=access.path):
            return None
        return injection.chance(block + 1, request)

    def note(self, access: Access, now: float, what: str, amount: float = 0.0) -> None:
        """Log what it did."""
        told = f"{what} {access.operation} {access.path.decode(errors='replace')}"
        block = access.offset // BLOCK + 1
        self.log.add(Decision(now, self.name, block, self._requests, told, amount, access.offset))

    # ----------------------------------------------------------------------------- what is written

    def written(self, access: Access, now: float) -> None:
        """A write got through."""
        if not self.fault.repaired_by_write:
            return
        if self._repairs > MOST_REPAIRED:
            self.note(access, now, "repairs forgotten at")
            self._repaired.clear()
            self._repairs = 0
        blocks = range(access.offset // BLOCK, -(-(access.offset + access.size) // BLOCK))
        repaired = self._repaired.setdefault(access.key, set())
        self._repairs -= len(repaired)
        repaired.update(blocks)
        self._repairs += len(repaired)

    def keep(self, access: Access, now: float, read: Callable[[int, int], bytes]) -> None:
        """Bytes are about to be written, or cut off: keep what is there, for `Old`."""
        past = self._past.get(access.key)
        if past is None:
            past = self._past[access.key] = _Past(access.length)
        end = min(access.offset + access.size, past.length)
        for block in range(access.offset // BLOCK, -(-end // BLOCK)):
            if block in past.blocks:
                continue
            if self._kept_bytes >= MOST_OLD_BYTES:
                self.note(access, now, "not kept")
                return
            past.blocks[block] = read(block * BLOCK, BLOCK)
            self._kept_bytes += BLOCK

    def past(self, access: Access, read: Callable[[int, int], bytes]) -> bytes:
        """The bytes as they were."""
        past = self._past.get(access.key)
        if past is None:
            return read(access.offset, access.size)
        size = min(access.size, past.length - access.offset)
        if size <= 0:
            return b""
        new = bytearray(read(access.offset, size).ljust(size, b"\0"))
        first, last = access.offset // BLOCK, (access.offset + size - 1) // BLOCK
        for block in range(first, last + 1):
            old = past.blocks.get(block)
            if old is not None:
                at = block * BLOCK - access.offset
                start = max(0, -at)
                piece = old[start : start + size - max(0, at)]
                new[max(0, at) : max(0, at) + len(piece)] = piece
        return bytes(new)


class Rules:
    """All faults in force at one disk, in the order in which they were made."""

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}

    def __bool__(self) -> bool:
        return bool(self._rules)

    def __contains__(self, name: str) -> bool:
        return name in self._rules

    def add(self, rule: Rule) -> None:
        """Put one in force. Raises ValueError for a name that is taken, or one too many."""
        if rule.name in self._rules:
            raise ValueError(f'a fault called "{rule.name}" is made there already')
        if len(self._rules) >= MOST_RULES:
            raise ValueError(f"{MOST_RULES} faults are made there: undo some")
        self._rules = {**self._rules, rule.name: rule}

    def remove(self, name: str) -> None:
        """Take one out of force, if it is in it."""
        self._rules = {key: rule for key, rule in self._rules.items() if key != name}

    def clear(self) -> None:
        """Take all out of force."""
        self._rules = {}

    def all(self) -> Iterable[Rule]:
        """Each of them."""
        return self._rules.values()

    def decide(self, access: Access, now: float) -> Fate | None:
        """What becomes of an operation; None if nothing hits it.

        Waits add up, in order; the first fault that makes it fail decides.
        """
        fate: Fate | None = None
        for rule in self._rules.values():
            chance = rule.hits(access, now)
            if chance is None:
                continue
            fate = fate or Fate()
            fate.rules += (rule.name,)
            fault = rule.fault
            if isinstance(fault, Latency):
                seconds = drawn(fault.seconds, chance)
                fate.seconds += seconds
                rule.note(access, now, "delayed", seconds)
            elif isinstance(fault, Hang):
                seconds = drawn(fault.seconds, chance)
                fate.seconds += seconds
                fate.errno = getattr(errno, fault.errno)
                fate.killable = fault.killable
                rule.note(access, now, "hung", seconds)
                break
            elif isinstance(fault, Old):
                fate.old = fate.old or rule
                rule.note(access, now, "gave old")
            else:
                name = fault.errno if isinstance(fault, Error) else "ENOSPC"
                fate.errno = getattr(errno, name)
                rule.note(access, now, "failed")
                break
        return fate

    def before_write(self, access: Access, now: float, read: Callable[[int, int], bytes]) -> None:
        """A write, or a cut of the file, is about to be done."""
        for rule in self._rules.values():
            if isinstance(rule.fault, Old):
                rule.keep(access, now, read)

    def after_write(self, access: Access, now: float) -> None:
        """A write got through."""
        for rule in self._rules.values():
            rule.written(access, now)
