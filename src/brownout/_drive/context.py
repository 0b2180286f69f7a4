"""What a call inherits from its caller: the deadline, by a context variable.

Tasks and `asyncio.to_thread` copy the context by themselves. A deadline that was lifted no longer holds
in the copies either: its end is one object, which they share.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar, Token
from math import inf
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from brownout._drive.clock import clock
from brownout.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

P = ParamSpec("P")
T = TypeVar("T")

DEADLINE: ContextVar[float] = ContextVar("brownout_deadline", default=inf)


class End(float):
    """The instant of a deadline that can be lifted; `then` is what holds from then on."""

    __slots__ = ("lifted", "then")
    lifted: bool
    then: float


def instant(end: float) -> float:
    """The instant that an entry of the context stands for."""
    while isinstance(end, End):
        if not end.lifted:
            return float(end)
        end = end.then
    return end


def ambient() -> float:
    """The instant that bounds what is called now; infinite without one."""
    end = DEADLINE.get()
    return end if end.__class__ is float else instant(end)


class deadline:  # noqa: N801 - it is used like a function: with deadline(2.0):
    """Bound everything below by a span in seconds: `with deadline(2.0): ...`.

    The calls made inside, and the next hop, get what is left of it. A nested deadline only shortens.
    Nothing is interrupted by it except guarded calls. Tasks started inside and `asyncio.to_thread`
    inherit it; for other threads there is `deadline.carry`, and for work that is to outlive the call
    `deadline.detach`. Raises ConfigurationError if `seconds` is no number of seconds from 0 up.
    """

    __slots__ = ("_ends", "_seconds", "_tokens")

    def __init__(self, seconds: float) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
            raise ConfigurationError(f"deadline({seconds!r}): give a number of seconds, 0 or more")
        self._seconds = seconds
        self._tokens: list[Token[float]] = []
        self._ends: list[End] = []

    def __enter__(self) -> float:
        """The instant it ends, on the monotonic clock."""
        end = End(min(clock.now() + self._seconds, ambient()))
        end.lifted, end.then = False, DEADLINE.get()
        self._ends.append(end)
        self._tokens.append(DEADLINE.set(end))
        return float(end)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.pop()
        DEADLINE.reset(self._tokens.pop())

    def lift(self) -> None:
        """End the bound early, for everything that was started under it too: tasks, carried functions.

        For servers, when the answer is out and what still runs is background work. What was already
        bounded by it (a guarded attempt in flight, a nested deadline) stays so.
        """
        for end in self._ends:
            end.lifted = True

    @staticmethod
    def detach() -> Detached:
        """Free everything inside from the deadline: `with deadline.detach(): create_task(audit())`.

        For background work that is to outlive the call: it starts without a deadline, and may set its own.
        """
        return Detached()

    @staticmethod
    def carry(fn: Callable[P, T]) -> Callable[P, T]:
        """Bind `fn` to the deadline of this moment: `pool.submit(deadline.carry(fn), x)`.

        For threads and executors, which inherit nothing. The instant is kept, not the span: the time that
        `fn` waits in a queue is part of it. A shorter deadline where it runs still holds. `def` and
        `async def` keep their colour. Raises TypeError for a generator, of which a call is not the work.
        """
        import inspect

        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(f"{fn!r} is a generator: its work is not done in the call")
        carried = DEADLINE.get()
        if inspect.iscoroutinefunction(fn):

            @functools.wraps(fn)
            async def bound_async(*args: Any, **kwargs: Any) -> Any:
                with _Bound(carried):
                    return await fn(*args, **kwargs)

            return bound_async  # type: ignore[return-value]

        @functools.wraps(fn)
        def bound(*args: P.args, **kwargs: P.kwargs) -> T:
            with _Bound(carried):
                return fn(*args, **kwargs)

        return bound


class Detached:
    """A block without a deadline, made by `deadline.detach()`."""

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens: list[Token[float]] = []

    def __enter__(self) -> None:
        self._tokens.append(DEADLINE.set(inf))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        DEADLINE.reset(self._tokens.pop())


class _Bound(Detached):
    """A block under the deadline of another place, or its own where that is shorter."""

    __slots__ = ("_end",)

    def __init__(self, end: float) -> None:
        super().__init__()
        self._end = end

    def __enter__(self) -> None:
        here = DEADLINE.get()
        self._tokens.append(DEADLINE.set(here if instant(here) < instant(self._end) else self._end))


def remaining() -> float:
    """Seconds left until the ambient deadline: infinite without one, 0.0 when it has passed.

    Inside a guarded call this is also bounded by the guard's time-out, so it is what to hand to a client:
    `requests.get(url, timeout=brownout.remaining())`.
    """
    end = ambient()
    return end if end == inf else max(0.0, end - clock.now())
