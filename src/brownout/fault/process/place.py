"""The places where a fault of a process is made: a process, and an address that one listens on.

with Process(child).make(Pause(seconds=2)):
    ...
with Listener("127.0.0.1:8080").make(FillBacklog()):
    ...
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from brownout._core.fault import Injection, Log
from brownout.errors import ConfigurationError
from brownout.fault import record as records
from brownout.fault.kind import (
    AbortConnections,
    ExhaustFiles,
    FillBacklog,
    Freeze,
    Kill,
    Pause,
    Starve,
)
from brownout.fault.made import Made
from brownout.fault.process.abort import abort
from brownout.fault.process.backlog import fill
from brownout.fault.process.course import Course
from brownout.fault.process.files import exhaust
from brownout.fault.process.freeze import freeze
from brownout.fault.process.starve import starve
from brownout.fault.process.stop import kill, pause
from brownout.fault.process.subject import Member, Subject
from brownout.fault.tcp.address import Address

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout._core.fault import Fault
    from brownout.fault.process.abort import Chooser
    from brownout.fault.process.diag import Socket
    from brownout.fault.process.mechanism import Mechanism

__all__ = ["Listener", "Process"]


class Process:
    """A process: its id, or what subprocess, multiprocessing or asyncio returned for it.

    It is held from now on, so that it is never another one. Raises FaultRefused for one that has ended, for
    process 1, for this process and its ancestors, and for threads of the kernel. `seed` decides whom a
    share hits. `target` is the guarded target that it is, for `status`.
    """

    def __init__(self, process: int | Member, *, target: str = "", seed: int = 0) -> None:
        self._subject = Subject(process)
        self._target = target
        self._seed = seed

    @property
    def pid(self) -> int:
        """Its id."""
        return self._subject.pid

    def make(self, fault: Fault, *, seconds: float = 60.0, name: str | None = None) -> Made:
        """Make a fault; it is undone on leaving the block, and after `seconds` at the latest.

        Raises FaultRefused if it may not or can't be made here, ConfigurationError for a kind that is none
        of a process.
        """
        self._subject.check()
        injection = _injection(fault, name, self._seed)
        if isinstance(fault, Pause):
            seconds = min(seconds, fault.seconds)
        mechanism = self._mechanism(fault, injection)
        return _made(str(self._subject), mechanism, injection, seconds, self._target)

    def _mechanism(self, fault: Fault, injection: Injection) -> Mechanism:
        subject = self._subject
        match fault:
            case Pause():
                return pause(subject)
            case Kill():
                return kill(subject)
            case Freeze():
                return freeze(subject)
            case Starve():
                return starve(subject, fault)
            case ExhaustFiles():
                return exhaust(subject, fault.left)
            case AbortConnections():
                return abort(subject, _chooser(injection))
            case _:
                raise ConfigurationError(
                    f"{fault}: no fault of a process; those are Pause, Kill, Freeze, Starve, ExhaustFiles "
                    "and AbortConnections"
                )


class Listener:
    """An address that a process of this machine listens on: "host:port", "[::1]:port" or "unix:/path"."""

    def __init__(self, address: str, *, target: str = "") -> None:
        self._address = Address.read(address)
        self._target = target

    def make(self, fault: Fault, *, seconds: float = 60.0, name: str | None = None) -> Made:
        """Make a fault, as `Process.make` does. FillBacklog is the one there is."""
        if not isinstance(fault, FillBacklog):
            raise ConfigurationError(f"{fault}: the one fault of a listener is FillBacklog")
        injection = _injection(fault, name, 0)
        mechanism = fill(self._address)
        return _made(str(self._address), mechanism, injection, seconds, self._target)


def _injection(fault: Fault, name: str | None, seed: int) -> Injection:
    return Injection(name or fault.kind, fault, seed=seed, since=time.monotonic(), log=Log())


def _made(
    place: str, mechanism: Mechanism, injection: Injection, seconds: float, target: str
) -> Made:
    def held(act: Callable[[], None]) -> bool:
        with records.claimed(made.folder, made.id) as found:
            if found is not None:
                act()
            return found is not None

    course = Course(mechanism, injection, held)
    made = Made(
        place=place,
        mechanism=mechanism.name,
        fault=injection.fault,
        seconds=seconds,
        name=injection.name,
        target=target,
        log=injection.log,
        undo_steps=mechanism.steps,
        apply=course.begin,
        undo=course.end,
        gone=course.ended,
    )
    try:
        return made.make()
    except BaseException:
        mechanism.close()
        raise


def _chooser(injection: Injection) -> Chooser:
    def chosen(found: list[Socket]) -> list[Socket]:
        hit: list[Socket] = []
        order = sorted(found, key=lambda one: (one.local[1], one.peer[1], one.peer[0]))
        for number, one in enumerate(order, 1):
            now = time.monotonic()
            if injection.hits(now, number, client=one.peer[0].removeprefix("::ffff:")):
                injection.note(now, number, 0, "reset")
                hit.append(one)
        return hit

    return chosen
