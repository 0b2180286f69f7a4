"""A busy neighbour: it takes the CPU that the process runs on, where there are no quotas to be had.

The process is tied to one CPU, and so are the neighbours. With the right to it (CAP_SYS_NICE) one
neighbour of real-time priority runs for all but the share of each period; else so many of plain priority
that the scheduler's fairness leaves the process its share. That is weaker in three ways: only the one
process is starved and who it forks from then on, it may untie itself, and others on that CPU suffer too.

A neighbour waits to be told to begin and ends when its standard input does, so with its maker.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from brownout.errors import BrownoutError
from brownout.fault.identity import Identity
from brownout.fault.process.mechanism import Mechanism
from brownout.fault.process.subject import tree
from brownout.fault.record import Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from brownout.fault.kind import Starve
    from brownout.fault.process.subject import Subject

__all__ = ["crowd", "tied", "untie"]

MOST = 64  # neighbours of plain priority

# argv: cpu, seconds busy, seconds idle. Says "real" or "plain"; obeys one letter a line on its input.
PROGRAM = """
import os, select, sys, time
cpu, busy, idle = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
os.sched_setaffinity(0, {cpu})
real = idle > 0
if real:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except OSError:
        real = False
print("real" if real else "plain", flush=True)
on = False
while True:
    if select.select([0], [], [], 0 if on else None)[0]:
        told = os.read(0, 1)
        if not told:
            sys.exit()
        on = told == b"+"
    if on:
        end = time.monotonic() + busy
        while time.monotonic() < end:
            pass
        if idle:
            time.sleep(idle)
"""


class _Neighbour:
    def __init__(self, cpu: int, busy: float, idle: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PROGRAM, str(cpu), str(busy), str(idle)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A session of its own: the scheduler shares by session first, where it groups by them.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._input = self._process.stdin
        told = self._process.stdout.readline()
        self._process.stdout.close()
        if not told:
            self.end()
            raise BrownoutError(f"a busy neighbour on CPU {cpu} did not start")
        self.real = told == b"real\n"

    def tell(self, letter: bytes) -> None:
        self._input.write(letter)
        self._input.flush()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._input.close()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def step(self) -> Step:
        pid, start = Identity.of(self._process.pid)
        return Step("terminate", pid=pid, start=start)


def crowd(subject: Subject, fault: Starve, why: str) -> Mechanism:
    """Busy neighbours on the CPU that the process ran on last; `why` there is nothing better."""
    allowed = os.sched_getaffinity(subject.pid)
    cpu = _last_cpu(subject.pid)
    cpu = cpu if cpu in allowed else min(allowed)
    details = {
        "process": subject.identity,
        "cpu": cpu,
        "before": sorted(allowed),
        "threads": [(thread, sorted(mask)) for thread, mask in _masks(subject.pid)],
        "since": int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")),
    }
    neighbours = _neighbours(cpu, fault)
    kind = "real-time" if any(each.real for each in neighbours) else "plain"

    def enter() -> None:
        try:
            for thread, _ in _masks(subject.pid):
                _tie(thread, [cpu])
        except PermissionError as error:
            raise subject.foreign() from error
        for each in neighbours:
            each.tell(b"+")

    def leave() -> None:
        for each in neighbours:
            each.tell(b"-")

    def close() -> None:
        for each in neighbours:
            each.end()

    return Mechanism(
        name=f"{len(neighbours)} busy neighbour(s) of {kind} priority on CPU {cpu}, since {why}",
        enter=enter,
        leave=leave,
        steps=(Step("untie", **details), *(each.step for each in neighbours)),
        close=close,
        closed=lambda: all(each.ended for each in neighbours),
    )


def _neighbours(cpu: int, fault: Starve) -> list[_Neighbour]:
    busy = fault.period_seconds * (1 - fault.cpu_share)
    if busy <= 0:
        return []
    first = _Neighbour(cpu, busy, fault.period_seconds - busy)
    if first.real:
        return [first]
    first.end()
    count = min(MOST, math.ceil(1 / fault.cpu_share) - 1)
    return [_Neighbour(cpu, fault.period_seconds, 0.0) for _ in range(count)]


def _last_cpu(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[36])


def _masks(pid: int) -> Iterator[tuple[int, set[int]]]:
    """The threads of a process, and the CPUs that each may run on."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for name in os.listdir(f"/proc/{pid}/task"):
            with suppress(ProcessLookupError):
                yield int(name), os.sched_getaffinity(int(name))


def _tie(thread: int, cpus: Sequence[int]) -> None:
    with suppress(ProcessLookupError):
        os.sched_setaffinity(thread, cpus)


def untie(
    process: tuple[int, int],
    cpu: int,
    before: Sequence[int],
    threads: Sequence[tuple[int, Sequence[int]]],
    since: int,
) -> None:
    """Let it run where it could before; what it has chosen itself meanwhile is left alone."""
    known = dict(threads)
    for thread in _tied(process, cpu, known, since):
        _tie(thread, known.get(thread, before))


def tied(
    process: tuple[int, int],
    cpu: int,
    before: Sequence[int],
    threads: Sequence[tuple[int, Sequence[int]]],
    since: int,
) -> bool:
    """Whether one of its threads, or of its newer kin, is tied to that CPU by us."""
    return list(before) != [cpu] and bool(_tied(process, cpu, dict(threads), since))


def _tied(
    process: tuple[int, int], cpu: int, known: dict[int, Sequence[int]], since: int
) -> list[int]:
    root = Identity(*process)
    return [
        thread
        for stat in tree([root])
        if stat.identity == root or stat.start >= since
        for thread, mask in _masks(stat.pid)
        if mask == {cpu} and list(known.get(thread, ())) != [cpu]
    ]
