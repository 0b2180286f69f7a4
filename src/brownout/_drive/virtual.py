"""The driver for virtual time: the same flow on a heap of instants, without loop, thread or clock.

The guarded function does no work here: it says how an attempt would end, as (seconds, value, error), and
the driver lets that time pass. So thousands of calls overlap, and the same script decides the same.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from brownout._core.attempt import Attempt
from brownout._core.flow import Ask, Call, Done, Start, recover, timed_out
from brownout.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from brownout._core.flow import Command, Options
    from brownout._core.guard import Core

    Ending = tuple[float, Any, BaseException | None]

R = TypeVar("R")


class Virtual:
    """A clock that goes from one event to the next, and the calls that are under way in it."""

    __slots__ = ("_events", "_now", "_number")

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def now(self) -> float:
        """The instant, in seconds."""
        return self._now

    def at(self, instant: float, event: Callable[[], None]) -> None:
        """Let `event` happen then; of two at one instant the one that was asked for first."""
        self._number += 1
        heappush(self._events, (max(instant, self._now), self._number, event))

    def run(self, until: float = inf) -> None:
        """Let everything happen up to the instant `until`, or until nothing is left to happen."""
        while self._events and self._events[0][0] <= until:
            self._now, _, event = heappop(self._events)
            event()
        if until < inf:
            self._now = max(self._now, until)

    def call(
        self,
        core: Core,
        options: Options,
        fn: Callable[[], Ending],
        told: Callable[[Done], None],
        deadline: float = inf,
    ) -> None:
        """Begin one guarded call now; `told` hears how it ended. `deadline` is an instant."""
        call = Call(core, options, 0, self._now, deadline)
        attempt = call.admit(self._now)
        if isinstance(attempt, Refused):
            self._follow(recover(call, None, attempt, self._now), call, fn, told)
            return

        def ended(done: Done) -> None:
            if done.error is None:
                call.settle(attempt, None, self._now)
                told(done)
            else:
                self._follow(recover(call, attempt, done.error, self._now), call, fn, told)

        self._attempt(core, attempt, fn, ended)

    def resolve(
        self,
        flow: Generator[Command, tuple[float, Done | None], R],
        ask: Callable[[Ask], Ending],
        told: Callable[[R], None],
    ) -> None:
        """Begin a flow that asks; `ask` says how a question would end, `told` hears how the flow did."""
        self._follow(flow, None, ask, told)

    def _question(
        self, command: Ask, ask: Callable[[Ask], Ending], step: Callable[[Done], None]
    ) -> None:
        """Let a question take its time, but no longer than it has."""
        seconds, value, error = ask(command)
        if seconds > command.seconds:
            seconds, error = command.seconds, TimeoutError("the question took too long")
        done = Done(None if error else value, error)
        self.at(self._now + seconds, lambda: step(done))

    def _attempt(
        self, core: Core, attempt: Attempt, fn: Callable[[], Ending], ended: Callable[[Done], None]
    ) -> None:
        """Let an attempt take its time, but no longer than it has."""
        seconds, value, error = fn()
        end = self._now + seconds

        def expires() -> None:
            ended(Done(None, timed_out(core.target.name, attempt, self._now)))

        if end > attempt.deadline:
            self.at(attempt.deadline, expires)
        elif end < inf:
            self.at(end, lambda: ended(Done(None if error else value, error)))

    def _follow(
        self,
        flow: Generator[Command, tuple[float, Done | None], R],
        call: Call | None,
        fn: Callable[..., Ending],
        told: Callable[[R], None],
    ) -> None:
        """Carry out a flow's commands; what it waits for resumes it."""

        def step(done: Done | None = None) -> None:
            go_on(lambda: flow.send((self._now, done)))

        def go_on(ask: Callable[[], Command]) -> None:
            try:
                command = ask()
            except StopIteration as stop:
                told(stop.value)
                return
            if isinstance(command, Ask):
                self._question(command, fn, step)
                return
            if not isinstance(command, Start):
                self.at(self._now + command.seconds, step)
                return
            flow.send((self._now, None))  # it waits for what was started
            assert call is not None
            if isinstance(command.what, Attempt):
                self._attempt(call.core, command.what, fn, step)
            else:
                step(self._fallback(call.options))

        go_on(lambda: next(flow))

    @staticmethod
    def _fallback(options: Options) -> Done:
        assert options.fallback is not None
        try:
            return Done(options.fallback(), None)
        except BaseException as error:
            return Done(None, error)
