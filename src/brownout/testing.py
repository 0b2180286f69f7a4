"""For tests: a clock that moves only when somebody waits, and a target that does what a script says.

    with FakeClock() as clock:
        target = Script(clock, fail(ConnectionResetError()), answer("ok", seconds=0.2))
        assert guard.call(target.call) == "ok"
        assert clock.run(guard.acall(target.acall)) == "ok"

Nothing here waits for real: a minute of back-off passes at once, under threads and under asyncio.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from brownout._drive.clock import clock as the_clock
from brownout._drive.context import remaining

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType
    from typing import Self

T = TypeVar("T")

__all__ = ["FakeClock", "Script", "Step", "answer", "fail", "hang"]

_NOTHING_COMES_SECONDS = 5.0


class FakeClock:
    """In place of brownout's clock, as a context manager: time passes only by waiting.

    `sleep` and `advance` move it. `run` runs a coroutine on an event loop that goes by it, so that
    time-outs and `asyncio.sleep` cost no time either. It holds for guards in every thread, and must
    not be nested. Adapters to real clients go by the real clock.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start

    def now(self) -> float:
        """The instant, in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    sleep = advance

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, as `asyncio.run` does, on a loop that goes by this clock.

        Raises RuntimeError if all its tasks wait for something that no timer ends.
        """
        import asyncio
        import selectors

        fake = self

        class Selector(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> list[Any]:
                ready: list[Any] = super().select(0)
                if not ready and timeout:
                    fake.advance(max(0.0, timeout))
                if ready or timeout is not None:
                    return ready
                ready = super().select(_NOTHING_COMES_SECONDS)  # from another thread, perhaps
                if not ready:
                    raise RuntimeError("all tasks wait for something that no timer ends")
                return ready

        class Loop(asyncio.SelectorEventLoop):
            def time(self) -> float:
                return fake.now()

        with asyncio.Runner(loop_factory=lambda: Loop(Selector())) as runner:
            return runner.run(main)

    def __enter__(self) -> Self:
        the_clock.now, the_clock.sleep = self.now, self.sleep
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        the_clock.reset()


class Step(NamedTuple):
    """What a scripted target does with one attempt: after `seconds`, a value or an error."""

    seconds: float
    value: Any = None
    error: BaseException | None = None


def answer(value: Any = None, *, seconds: float = 0.0) -> Step:
    """It answers."""
    return Step(seconds, value)


def fail(error: BaseException, *, seconds: float = 0.0) -> Step:
    """It fails: the caller sees this exception."""
    return Step(seconds, error=error)


def hang() -> Step:
    """It says nothing, for as long as anybody waits."""
    return Step(inf)


class Script:
    """A target that does what its script says, a step an attempt; the last step is repeated.

    `call` is for `def` callers: it waits for no longer than it was given, then raises TimeoutError,
    as a client does that was handed `remaining()`. `acall` is for asyncio. `called_at` has the
    instant of each attempt.
    """

    def __init__(self, clock: FakeClock, *steps: Step) -> None:
        self._clock = clock
        self._steps = steps
        self.called_at: list[float] = []

    def _next(self) -> Step:
        step = self._steps[min(len(self.called_at), len(self._steps) - 1)]
        self.called_at.append(self._clock.now())
        return step

    def call(self, *_: Any) -> Any:
        """One attempt, by a thread. Raises RuntimeError if it hangs and nothing bounds it."""
        step = self._next()
        left = remaining()
        if step.seconds == inf and left == inf:
            raise RuntimeError("the script hangs, and neither a time-out nor a deadline ends it")
        if step.seconds > left:
            self._clock.sleep(left)
            raise TimeoutError("timed out")
        self._clock.sleep(step.seconds)
        if step.error is not None:
            raise step.error
        return step.value

    async def acall(self, *_: Any) -> Any:
        """One attempt, by a task."""
        import asyncio

        step = self._next()
        if step.seconds == inf:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(step.seconds)
        if step.error is not None:
            raise step.error
        return step.value
