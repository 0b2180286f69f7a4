"""The place where a pool is used up."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from brownout.errors import ConfigurationError, FaultRefused
from brownout.fault.kind import HoldConnections
from brownout.fault.made import Made

from .slots import TAKE_SECONDS, Slots, slots_of

if TYPE_CHECKING:
    from typing import Self

    from brownout._core.fault import Fault

__all__ = ["Pool"]

PROBE_SECONDS = 1.0


class Pool:
    """A pool of SQLAlchemy, psycopg_pool, asyncpg or httpx. `target` is the guarded target behind it.

    Raises ConfigurationError for any other.
    """

    def __init__(self, pool: object, *, target: str = "") -> None:
        self._pool = pool
        self._target = target

    def make(self, fault: Fault, *, seconds: float = 60.0, name: str | None = None) -> Made:
        """Take connections out of it; they are given back on leaving the block.

        With a pool for asyncio, call it on the pool's loop and enter it by `async with`, which makes it.
        Raises FaultRefused if the pool does not give so many within 3 s, ConfigurationError for another kind,
        or a pool that is not known.
        """
        if not isinstance(fault, HoldConnections):
            raise ConfigurationError(f"{fault}: the one fault of a pool is HoldConnections")
        slots = slots_of(self._pool)
        held = _Held(slots, fault.count)
        kind = Made if slots.loop is None else _OnLoop
        made = kind(
            place=f"pool of {slots.of} (0x{id(self._pool):x})",
            mechanism=slots.of,
            fault=fault,
            seconds=seconds,
            name=name,
            target=self._target,
            apply=held.take,
            undo=held.give,
            gone=held.gone,
        )
        if isinstance(made, _OnLoop):
            made.loop = slots.loop
            return made
        return made.make()


class _OnLoop(Made):
    """A fault that is made and undone by the loop's help, so never while the loop waits for it."""

    loop: asyncio.AbstractEventLoop | None = None

    def make(self) -> Self:
        self._off_the_loop()
        return super().make()

    def undo(self) -> None:
        if self.active:
            self._off_the_loop()
        super().undo()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.make)

    def _off_the_loop(self) -> None:
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            return
        if here is self.loop:
            raise FaultRefused(
                f"{self.fault} at {self.place}: the loop has to go on meanwhile. Enter it by `async with`, "
                "or await asyncio.to_thread(made.undo)"
            )


class _Held:
    """Slots that were taken, and are given back once."""

    def __init__(self, slots: Slots, count: int) -> None:
        self._slots = slots
        self._count = count
        self._taking: _Taking | None = None
        self._probe: _Taking | None = None
        self._ended = False

    def take(self) -> None:
        self._taking = _Taking(self._slots, self._count)
        if self._taking.done(TAKE_SECONDS):
            return
        got, why = len(self._taking.taken), self._taking.problem
        raise FaultRefused(
            f"the pool of {self._slots.of} gave {got} of {self._count} connections"
            f"{f' ({why})' if why else ''} within {TAKE_SECONDS:g} s: it has fewer, or they are in use"
        )

    def give(self) -> None:
        if self._taking is not None:
            self._taking.give()

    def gone(self) -> bool:
        """Whether all were given back, and the pool gives one to who asks."""
        if self._taking is not None and not self._taking.given:
            return False
        if self._taking is None or self._slots.closed():
            return self._end()
        probe = self._probe or _Taking(self._slots, 1)
        self._probe = probe
        if not probe.done(PROBE_SECONDS):
            if probe.problem:
                self._probe = None
            return False
        probe.give()
        return self._end()

    def _end(self) -> bool:
        if self._probe is not None:
            self._probe.give()
        if not self._ended:
            self._ended = True
            self._slots.end()
        return True


class _Taking:
    """Takes slots in a thread of its own, since no pool promises to answer in time.

    What it is given after it was told to give all back, it gives back at once.
    """

    def __init__(self, slots: Slots, count: int) -> None:
        self._slots = slots
        self._lock = threading.Lock()
        self._given_up = False
        self._all = threading.Event()
        self.taken: list[Any] = []
        self.problem = ""
        self._thread = threading.Thread(target=self._run, args=(count,), daemon=True)
        self._thread.start()

    @property
    def given(self) -> bool:
        """Whether all that was taken was given back."""
        return self._given_up and not self.taken

    def done(self, seconds: float) -> bool:
        """Whether it has them all; waits so long for it."""
        return self._all.wait(seconds) and not self.problem

    def give(self) -> None:
        """Give all back. Raises what the pool raises, after the last; what it refused once is let go."""
        with self._lock:
            self._given_up = True
        failed: Exception | None = None
        while self.taken:
            one = self.taken.pop()
            try:
                self._slots.give(one)
            except Exception as error:
                if not self._slots.closed():
                    failed = error
        if failed is not None:
            raise failed

    def _run(self, count: int) -> None:
        try:
            for _ in range(count):
                one = self._slots.take()
                with self._lock:
                    late = self._given_up
                    if not late:
                        self.taken.append(one)
                if late:
                    self._slots.give(one)
                    return
        except Exception as error:
            self.problem = f"{type(error).__name__}: {error}"
        finally:
            self._all.set()
