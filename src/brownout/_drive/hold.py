"""Holding an attempt whose answer is still being read, under threads and under asyncio."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from brownout._core.attempt import Attempt
from brownout._core.flow import timed_out
from brownout._drive.clock import clock
from brownout._drive.context import DEADLINE
from brownout.errors import TimedOut

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from types import TracebackType

    from brownout._core.guard import Core
    from brownout._core.operation import Operation
    from brownout._core.outcome import OutcomeClass


def keeper(core: Core, operation: Operation) -> Callable[[Attempt], Holding]:
    """What holds the attempts of a guard's calls of an operation."""
    return partial(Holding, core, operation)


class Holding:
    """A held attempt in its reader's hands. The table does not keep it: it may become garbage."""

    __slots__ = ("_core", "_held", "_holds", "_operation")

    def __init__(self, core: Core, operation: Operation, attempt: Attempt) -> None:
        self._core = core
        self._operation = operation
        self._holds = operation.evidence.holds
        self._held = self._holds.take(attempt, core.limit, clock.now())

    def listening(self) -> Turn:
        """A block in which we wait for more of the answer: it is the target's turn."""
        return Turn(self._core, self._held)

    def settle(self, class_: OutcomeClass) -> None:
        """End it, and say what it showed. The first word counts."""
        now = clock.now()
        if self._holds.end(self._held, class_, now):
            self._core.hear(self._operation, class_, now)

    def end(self) -> None:
        """End it, where nobody knows how it would have gone on."""
        self.settle(self._held.left())

    def __del__(self) -> None:
        # In the midst of anything: no lock, no fold, no error. Not held at all if the making failed.
        with suppress(Exception):
            self._holds.end(self._held, self._held.left(), clock.now())


class Turn:
    """The target's turn, as a block. One that fails is not over: whoever ends the attempt says how."""

    __slots__ = ("_core", "_held", "_timer", "_token")

    def __init__(self, core: Core, held: Any) -> None:
        self._core = core
        self._held = held
        self._timer: Any = None

    def __enter__(self) -> None:
        self._token: Token[float] = DEADLINE.set(self._held.attempt.deadline)
        self._held.listen(clock.now())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        DEADLINE.reset(self._token)
        if error is None:
            self._held.heard(clock.now())

    async def __aenter__(self) -> None:
        attempt, now = self._held.attempt, clock.now()
        if attempt.deadline < inf:
            if now >= attempt.deadline:
                raise timed_out(self._core.target.name, attempt, now)
            from brownout._drive.aio import Timer

            self._timer = Timer(self._core, Attempt(attempt.shard, now, attempt.deadline))
            self._timer.__enter__()
        self._held.listen(now)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            try:
                self._timer.__exit__(kind, error, trace)
            except TimedOut:
                name = self._core.target.name
                raise timed_out(name, self._held.attempt, clock.now()) from error
        if error is None:
            self._held.heard(clock.now())
