"""A process that is to suffer, and its kin.

It is held by its pidfd from the moment it is named, so it is never another one that has got its id since.
"""

from __future__ import annotations

import os
import select
import signal
import weakref
from typing import TYPE_CHECKING, NamedTuple, Protocol

from brownout.errors import FaultRefused
from brownout.fault.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Member", "Stat", "Subject", "every", "look", "tree"]

KERNEL_THREAD = 0x00200000  # PF_KTHREAD of linux/sched.h


class Member(Protocol):
    """What names a process by its id: what subprocess, multiprocessing and asyncio give."""

    @property
    def pid(self) -> int | None:
        """The id, or None while it is not started."""


class Stat(NamedTuple):
    """What `/proc/<pid>/stat` says of a process."""

    pid: int
    state: str
    parent: int
    flags: int
    start: int

    @property
    def identity(self) -> Identity:
        """The process as one that can be found again."""
        return Identity(self.pid, self.start)

    @property
    def stopped(self) -> bool:
        """Whether a signal or a tracer has stopped it."""
        return self.state in "Tt"

    @property
    def ended(self) -> bool:
        """Whether it is dead, or dead and not yet waited for."""
        return self.state in "ZXx"


def look(pid: int) -> Stat | None:
    """How a process is right now; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *numbers = text[text.rindex(b")") + 2 :].split(b" ", 20)  # a name may hold anything
    return Stat(pid, state.decode(), int(numbers[0]), int(numbers[5]), int(numbers[18]))


def every() -> Iterator[Stat]:
    """Each process that we can see and that has not ended."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := look(int(name))) and not stat.ended:
            yield stat


def tree(roots: Iterable[Identity]) -> list[Stat]:
    """The roots, as far as they live, and all that descend from them.

    A process whose parent has died belongs to whoever adopted it, and is in no tree of its old kin.
    """
    found = {stat.pid: stat for stat in every()}
    kin: dict[int, list[int]] = {}
    for stat in found.values():
        kin.setdefault(stat.parent, []).append(stat.pid)
    taken: dict[int, Stat] = {}
    left = [pid for pid, start in roots if pid in found and found[pid].start == start]
    while left:
        pid = left.pop()
        if pid not in taken:
            taken[pid] = found[pid]
            left.extend(kin.get(pid, ()))
    return list(taken.values())


class Subject:
    """One process, that we started or that the user named by its id.

    Raises FaultRefused for one that no fault may touch.
    """

    def __init__(self, process: int | Member) -> None:
        self.pid = _pid(process)
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            raise self.ended() from None
        except OSError as error:  # EINVAL: the id of a thread
            raise FaultRefused(
                f"process {self.pid} can't be held ({error.strerror}): is it the id of a thread? Give the "
                "id of its process"
            ) from error
        weakref.finalize(self, os.close, self.pidfd)
        stat = look(self.pid)
        if stat is None or not self.alive:
            raise self.ended()
        self.identity = stat.identity
        self.check()

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)

    def check(self) -> None:
        """Refuse a process that no fault may touch. Asked anew for each fault: parents change."""
        stat = look(self.pid)
        if stat is None or not self.alive:
            raise self.ended()
        if self.pid == 1:
            raise FaultRefused("process 1 (init) is left alone: the machine hangs on it")
        if self.pid == os.getpid():
            raise FaultRefused(
                f"process {self.pid} is this one, and could not undo what is done to it. Put the victim "
                "into a child"
            )
        if self.pid in _ancestors():
            raise FaultRefused(
                f"process {self.pid} is an ancestor of this one ({os.getpid()}), which would suffer with it "
                "and could not undo it. Name a child, or a process beside us"
            )
        if stat.flags & KERNEL_THREAD:
            raise FaultRefused(f"process {self.pid} is a thread of the kernel, and left alone")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it has not ended. Raises FaultRefused if it is another user's."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass
        except PermissionError as error:
            raise self.foreign() from error

    def foreign(self) -> FaultRefused:
        """What is said where we have no right to touch it."""
        return FaultRefused(
            f"process {self.pid} is out of reach: be its user, or root with all rights"
        )

    def ended(self) -> FaultRefused:
        """What is said of one that has ended."""
        return FaultRefused(f"process {self.pid} has ended: there is nothing to do harm to")

    def __str__(self) -> str:
        return f"process {self.pid}"


def _pid(process: object) -> int:
    if not hasattr(os, "pidfd_open"):
        raise FaultRefused("faults of processes need Linux 5.3 or newer (pidfd_open)")
    if getattr(process, "returncode", None) is not None:  # its id may be another one's by now
        raise FaultRefused(f"{process!r} has ended: there is nothing to do harm to")
    pid = process if isinstance(process, int) else getattr(process, "pid", process)
    if pid is None:
        raise FaultRefused(f"{process!r} is not started yet")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid < 1:
        raise FaultRefused(
            f"{process!r} names no process: give its id (a whole number from 1), or what subprocess, "
            "multiprocessing or asyncio returned. Never a name: a stranger may have it too"
        )
    return pid


def _ancestors() -> list[int]:
    found: list[int] = []
    at = os.getppid()
    while at and (stat := look(at)):
        found.append(at)
        at = stat.parent
    return found
