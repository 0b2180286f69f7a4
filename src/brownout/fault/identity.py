"""A process, named so that no other one can be meant: its id and the instant it was started.

An id alone is given to another process once its owner has died. So a process is looked at by both, and
acted on through a pidfd that was opened first and compared afterwards.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Identity", "home"]

_GONE = "XxZ"  # dead, or dead and not yet waited for


class Identity(NamedTuple):
    """A process: its id, and when it was started (field 22 of /proc/<pid>/stat, in clock ticks)."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Identity:
        """The process that has this id now. Raises ProcessLookupError if none has."""
        found = _stat(pid)
        if found is None or found[0] in _GONE:
            raise ProcessLookupError(f"there is no process {pid}")
        return cls(pid, found[1])

    @classmethod
    def mine(cls) -> Identity:
        """This very process."""
        return cls.of(os.getpid())

    def state(self) -> str | None:
        """The kernel's letter for it ("R", "S", "D", "T"...); None once it has died."""
        found = _stat(self.pid)
        if found is None or found[1] != self.start or found[0] in _GONE:
            return None
        return found[0]

    def alive(self) -> bool:
        """Whether it still runs, or sleeps, or is stopped."""
        return self.state() is not None

    @contextmanager
    def held(self) -> Generator[int | None]:
        """A pidfd of it for the length of the block; None if it has died."""
        try:
            held = os.pidfd_open(self.pid)
        except (ProcessLookupError, ValueError, OverflowError):
            yield None
            return
        try:
            yield held if self.alive() else None
        finally:
            os.close(held)

    def signal(self, number: signal.Signals) -> bool:
        """Send it a signal; False if it has died. Raises PermissionError if it is another user's."""
        with self.held() as held:
            if held is None:
                return False
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(held, number)
                return True
            return False


def _stat(pid: int) -> tuple[str, int] | None:
    """State and start of a process. Its name may hold blanks and brackets: it ends at the last one."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            rest = file.read().rpartition(b")")[2].split()
        return rest[0].decode(), int(rest[19])
    except (OSError, ValueError, IndexError):
        return None


def home() -> str:
    """What makes ids of processes comparable: this boot of the machine, and this space of ids."""
    return _home(os.getpid())


@cache
def _home(_pid: int) -> str:
    """It never changes within a process, and is asked for with every record."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
