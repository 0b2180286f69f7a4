"""Exhaust a process' files: its own limit (RLIMIT_NOFILE), lowered to what it has open and some more."""

from __future__ import annotations

import os
import resource
import time
from typing import TYPE_CHECKING

from brownout.fault.identity import Identity
from brownout.fault.process.mechanism import Mechanism
from brownout.fault.process.subject import tree
from brownout.fault.record import Step

if TYPE_CHECKING:
    from brownout.fault.process.subject import Subject

__all__ = ["exhaust", "limited", "restore"]

NOFILE = resource.RLIMIT_NOFILE


def exhaust(subject: Subject, left: int) -> Mechanism:
    """Lower the soft limit, by prlimit(2). The hard one stays: the process may notice, and raise it again."""
    try:
        before = resource.prlimit(subject.pid, NOFILE)
        now = _bound(subject.pid, left, before[0])
    except PermissionError as error:
        raise subject.foreign() from error
    ours = (now, before[1])
    # A child that is forked from now on inherits the limit, and gets it back as well.
    since = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
    return Mechanism(
        name=f"prlimit NOFILE {now}",
        enter=lambda: _limit(subject, ours),
        leave=lambda: restore(subject.identity, ours, before, since),
        steps=(Step("files", process=subject.identity, ours=ours, before=before, since=since),),
    )


def _bound(pid: int, left: int, most: int) -> int:
    """The limit under which `left` more can be opened. It bounds numbers, and holes are filled first."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    number = 0
    while number < most and (left or number in taken):
        left -= number not in taken
        number += 1
    return number


def _limit(subject: Subject, ours: tuple[int, int]) -> None:
    with subject.identity.held() as held:
        if held is not None:
            resource.prlimit(subject.pid, NOFILE, ours)


def restore(
    process: tuple[int, int], ours: tuple[int, int], before: tuple[int, int], since: int
) -> None:
    """Give the limit back to the process and its newer kin; who has got another one meanwhile keeps that."""
    for identity in _ours(process, ours, since):
        with identity.held() as held:
            if held is not None:
                resource.prlimit(identity.pid, NOFILE, (before[0], before[1]))


def limited(
    process: tuple[int, int], ours: tuple[int, int], before: tuple[int, int], since: int
) -> bool:
    """Whether our limit is in force nowhere."""
    return tuple(ours) == tuple(before) or not _ours(process, ours, since)


def _ours(process: tuple[int, int], ours: tuple[int, int], since: int) -> list[Identity]:
    root = Identity(*process)
    found: list[Identity] = []
    for stat in tree([root]):
        try:
            mine = resource.prlimit(stat.pid, NOFILE) == tuple(ours)
        except (
            ProcessLookupError,
            PermissionError,
        ):  # ended; or became another user's, and is out of reach
            continue
        if mine and (stat.identity == root or stat.start >= since):
            found.append(stat.identity)
    return found
