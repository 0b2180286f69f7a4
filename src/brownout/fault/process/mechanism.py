"""How a fault is made at a process: what brings it into force, and what undoes it, from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout.fault.record import Step

__all__ = ["Mechanism"]


def _nothing() -> None:
    pass


def _yes() -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanism:
    """One way to make a fault, ready but not in force.

    `enter` brings it into force and may be called again, `leave` takes it out of force for a while.
    `steps` undo it for good, from this process or another; `close` frees what only this one holds, before
    them, and `closed` says whether that is observed to be gone.
    """

    name: str
    enter: Callable[[], None]
    leave: Callable[[], None] = _nothing
    steps: tuple[Step, ...] = ()
    close: Callable[[], None] = _nothing
    closed: Callable[[], bool] = _yes
