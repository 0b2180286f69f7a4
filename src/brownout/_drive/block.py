"""A block as one attempt, under threads and under asyncio."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from brownout._core.attempt import Attempt
from brownout._core.flow import Call, Options
from brownout._drive.clock import clock
from brownout._drive.context import DEADLINE, ambient
from brownout._drive.stall import process

if TYPE_CHECKING:
    from types import TracebackType

    from brownout._core.guard import Core


class AttemptBlock:
    """A block as one attempt; gives the Attempt, so that the block can say what it showed."""

    __slots__ = ("_attempt", "_call", "_core", "_options", "_timer", "_token")

    def __init__(self, core: Core, options: Options) -> None:
        self._core = core
        self._options = options

    def _begin(self) -> Attempt:
        now = clock.now()
        self._call = Call(self._core, self._options, threading.get_ident(), now, ambient())
        admitted = self._call.admit(now)
        if not isinstance(admitted, Attempt):
            raise admitted
        if self._options.keep is not None:
            admitted.keep = self._options.keep
        self._attempt = admitted
        return admitted

    def __enter__(self) -> Attempt:
        attempt = self._begin()
        attempt.shard.late = attempt.shard.late or process
        self._token = DEADLINE.set(attempt.deadline)
        return attempt

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call.settle(self._attempt, error, clock.now())
        DEADLINE.reset(self._token)

    async def __aenter__(self) -> Attempt:
        from brownout._drive.aio import Timer, on_a_loop

        on_a_loop()
        attempt = self._begin()
        self._timer = Timer(self._core, attempt)
        try:
            self._timer.__enter__()
        except BaseException as error:
            self._call.settle(attempt, error, clock.now())
            raise
        return attempt

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._timer.__exit__(kind, error, trace)
        except BaseException as ours:
            error = ours
            raise
        finally:
            self._call.settle(self._attempt, error, clock.now())
