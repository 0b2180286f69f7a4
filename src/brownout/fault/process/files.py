"""Exhaust a process' files: its own limit (RLIMIT_NOFILE), lowered to what it has open and some more."""

from __future__ import annotations

import os
import resource
import subprocess
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
    before = _limit_of(subject.pid)
    if before is None:
        raise subject.ended()
    try:
        now = _bound(subject.pid, left, before[0])
    except FileNotFoundError:
        raise subject.ended() from None
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
    try:
        _set(subject.identity, ours)
    except PermissionError as error:
        raise subject.foreign() from error


def _limit_of(pid: int) -> tuple[int, int] | None:
    """The soft and the hard limit; None if it has ended. Anybody may read them, unlike by prlimit."""
    try:
        with open(f"/proc/{pid}/limits", "rb") as file:
            found = next(line for line in file if line.startswith(b"Max open files")).split()
    except (FileNotFoundError, ProcessLookupError, StopIteration):
        return None
    return int(found[3]), int(found[4])


def _set(identity: Identity, limits: tuple[int, int]) -> None:
    """Set them, as the user that the process is of where root may not (without CAP_SYS_RESOURCE)."""
    with identity.held() as held:
        if held is None:
            return
        try:
            resource.prlimit(identity.pid, NOFILE, limits)
        except ProcessLookupError:
            pass
        except PermissionError:
            if os.geteuid() != 0:
                raise
            _set_as_its_user(identity.pid, limits)


def _set_as_its_user(pid: int, limits: tuple[int, int]) -> None:
    owner = os.stat(f"/proc/{pid}")
    done = subprocess.run(
        ["/usr/bin/prlimit", f"--pid={pid}", f"--nofile={limits[0]}:{limits[1]}"],  # util-linux
        user=owner.st_uid,
        group=owner.st_gid,
        extra_groups=[],
        cwd="/",
        timeout=5,
        check=False,
        capture_output=True,
    )
    if done.returncode:
        raise PermissionError(done.stderr.decode(errors="replace").strip())


def restore(
    process: tuple[int, int], ours: tuple[int, int], before: tuple[int, int], since: int
) -> None:
    """Give the limit back to the process and its newer kin; who has got another one meanwhile keeps that."""
    for identity in _ours(process, ours, since):
        _set(identity, (before[0], before[1]))


def limited(
    process: tuple[int, int], ours: tuple[int, int], before: tuple[int, int], since: int
) -> bool:
    """Whether our limit is in force nowhere."""
    return tuple(ours) == tuple(before) or not _ours(process, ours, since)


def _ours(process: tuple[int, int], ours: tuple[int, int], since: int) -> list[Identity]:
    root = Identity(*process)
    return [
        stat.identity
        for stat in tree([root])
        if (stat.identity == root or stat.start >= since) and _limit_of(stat.pid) == tuple(ours)
    ]
