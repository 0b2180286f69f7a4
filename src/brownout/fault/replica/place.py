"""What the three kinds of copies have in common: how a fault is made at one, and how the lag is read."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from brownout.errors import FaultRefused
from brownout.fault.made import Made

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from brownout._core.fault import Fault
    from brownout.fault.record import Step
    from brownout.fault.replica.home import Home
    from brownout.fault.replica.lag import Lag

__all__ = ["Mechanism", "Replica"]


class Mechanism(NamedTuple):
    """How one fault is made, undone, and seen to be gone."""

    name: str
    enter: Callable[[], object]
    leave: Callable[[], object]
    gone: Callable[[], bool]
    steps: Sequence[Step] = ()


class Replica:
    """A copy that we started, and its original; a context manager, sync and async.

    `lag` reads how far it truly is behind.
    """

    def __init__(self, where: str, lag: Lag, *, home: Home | None, target: str) -> None:
        self.lag = lag
        self._where = where
        self._home = home
        self._target = target
        self._making = threading.Lock()
        self._made: dict[str, Made] = {}

    def seconds_behind(self) -> float:
        """For how long it has lacked something that the original has; 0 if it holds all: see `Lag`."""
        return self.lag.seconds_behind()

    def position(self) -> int:
        """What the original is at, to pass to `fence`."""
        return self.lag.position()

    def fence(self, position: int | None = None, *, seconds: float = 1.0) -> float:
        """Wait until it holds a position, or without one all that the original has: see `Lag`."""
        return self.lag.fence(position, seconds=seconds)

    def make(self, fault: Fault, *, seconds: float = 60.0, name: str | None = None) -> Made:
        """Make a fault; it is undone on leaving the block, and after `seconds` at the latest.

        Raises ConfigurationError for a kind that can't be made here, FaultRefused if one of its kind is in
        force, or the servers have ended.
        """
        with self._making:
            if not self._alive():
                raise FaultRefused(f"{self._where} has ended: there is nothing to make a fault at")
            before = self._made.get(fault.kind)
            if before is not None and before.active:
                raise FaultRefused(f"{before.fault} is in force at {self._where}: undo it first")
            way = self._mechanism(fault)
            made = Made(
                place=self._where,
                mechanism=way.name,
                fault=fault,
                seconds=seconds,
                name=name,
                target=self._target,
                undo_steps=way.steps,
                apply=way.enter,
                undo=lambda: self._alive() and way.leave(),
                gone=lambda: not self._alive() or way.gone(),
            ).make()
            self._made[fault.kind] = made
            return made

    def _alive(self) -> bool:
        """Whether its servers are there: a fault ends with them."""
        return self._home is None or self._home.active

    def _mechanism(self, fault: Fault) -> Mechanism:
        raise NotImplementedError

    def close(self) -> None:
        """Undo its faults, end its servers and remove its files. Raises UndoFailed."""
        try:
            for made in list(self._made.values()):
                made.undo()
        finally:
            self.lag.close()
            self._close()
            if self._home is not None:
                self._home.close()

    def _close(self) -> None:
        """Close what it has opened."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        import asyncio

        await asyncio.to_thread(self.close)
