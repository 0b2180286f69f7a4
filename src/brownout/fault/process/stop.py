"""Stop and continue, and kill, by signals: Pause, Kill, and Freeze where there are no control groups."""

from __future__ import annotations

import time
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import TYPE_CHECKING

from brownout.errors import BrownoutError
from brownout.fault.process.mechanism import Mechanism
from brownout.fault.process.subject import look, tree
from brownout.fault.record import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from brownout.fault.identity import Identity
    from brownout.fault.process.subject import Stat, Subject

__all__ = ["kill", "pause", "resume", "running", "stop_tree"]

WAIT_SECONDS = 3.0


def pause(subject: Subject) -> Mechanism:
    """SIGSTOP and SIGCONT. Who was stopped before us stays so."""
    return _stopping("SIGSTOP", [subject.identity], descend=False)


def stop_tree(subject: Subject) -> Mechanism:
    """SIGSTOP to a whole tree, again until nobody in it runs: weaker than the freezer, since it shows."""
    return _stopping(
        "SIGSTOP to the tree", [stat.identity for stat in tree([subject.identity])], descend=True
    )


def _stopping(name: str, members: list[Identity], *, descend: bool) -> Mechanism:
    spared = [stat.identity for stat in _suffering(members, (), descend=descend) if stat.stopped]
    step = Step("resume", members=members, descend=descend, spared=spared)
    return Mechanism(
        name=name,
        enter=lambda: _stop(members, spared, descend=descend),
        leave=lambda: resume(members, descend=descend, spared=spared),
        steps=(step,),
    )


def _suffering(
    members: Sequence[Identity], spared: Sequence[Identity], *, descend: bool
) -> list[Stat]:
    """Who of them lives, but those that were stopped before us."""
    if descend:
        found = tree(members)
    else:
        seen = [(look(pid), start) for pid, start in members]
        found = [stat for stat, start in seen if stat and stat.start == start and not stat.ended]
    left = {(pid, start) for pid, start in spared}  # lists, once they were JSON
    return [stat for stat in found if stat.identity not in left]


def _stop(members: Sequence[Identity], spared: Sequence[Identity], *, descend: bool) -> None:
    """Stop them all, until two looks in a row find the same processes and none that runs.

    One look is not enough: who is seen stopped may have forked while we were looking. In "D" it runs no
    code of its own, and is stopped on its way out of the kernel.
    """
    end = time.monotonic() + WAIT_SECONDS
    before: set[Identity] | None = None
    while True:
        found = _suffering(members, spared, descend=descend)
        run = [stat for stat in found if not (stat.stopped or stat.state == "D")]
        for stat in run:
            stat.identity.signal(SIGSTOP)
        now = {stat.identity for stat in found}
        if not run and (now == before or not descend):
            return
        before = None if run else now
        if time.monotonic() > end:
            told = ", ".join(f"{stat.pid} ({stat.state})" for stat in run[:5])
            raise BrownoutError(f"not stopped in {WAIT_SECONDS:g} s: process {told}. Is it frozen?")
        if run:
            time.sleep(0.0005)


def resume(members: Sequence[Identity], *, descend: bool, spared: Sequence[Identity]) -> None:
    """Continue them, and with `descend` all who descend from them, but those stopped before us.

    Also who is not seen stopped: a stop that was sent a moment ago would come after it.
    """
    for stat in _suffering(members, spared, descend=descend):
        stat.identity.signal(SIGCONT)


def running(members: Sequence[Identity], *, descend: bool, spared: Sequence[Identity]) -> bool:
    """Whether none of them is stopped."""
    return not any(stat.stopped for stat in _suffering(members, spared, descend=descend))


def kill(subject: Subject) -> Mechanism:
    """SIGKILL. There is no undo: it is over when the process is seen dead."""
    return Mechanism(name="SIGKILL", enter=lambda: _kill(subject))


def _kill(subject: Subject) -> None:
    subject.send(SIGKILL)
    wait_for(
        lambda: not subject.alive, f"{subject} does not die: is it frozen, or stuck in the kernel?"
    )


def wait_for(done: Callable[[], bool], otherwise: str) -> None:
    """Wait until that holds; BrownoutError with that message after `WAIT_SECONDS`."""
    end = time.monotonic() + WAIT_SECONDS
    while not done():
        if time.monotonic() > end:
            raise BrownoutError(f"{otherwise} ({WAIT_SECONDS:g} s)")
        time.sleep(0.0005)
