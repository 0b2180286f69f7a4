"""What a call inherits from its caller: the deadline, by a context variable."""

from __future__ import annotations

from contextvars import ContextVar, Token
from math import inf
from typing import TYPE_CHECKING

from brownout._drive.clock import clock
from brownout.errors import ConfigurationError

if TYPE_CHECKING:
    from types import TracebackType

DEADLINE: ContextVar[float] = ContextVar("brownout_deadline", default=inf)


class deadline:  # noqa: N801 - it is used like a function: with deadline(2.0):
    """Bound everything below by a span in seconds: `with deadline(2.0): ...`.

    The calls made inside, and the next hop, get what is left of it. A nested deadline only shortens.
    Nothing is interrupted by it except guarded calls. Raises ConfigurationError if `seconds` is no
    number of seconds from 0 up.
    """

    __slots__ = ("_seconds", "_tokens")

    def __init__(self, seconds: float) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
            raise ConfigurationError(f"deadline({seconds!r}): give a number of seconds, 0 or more")
        self._seconds = seconds
        self._tokens: list[Token[float]] = []

    def __enter__(self) -> float:
        """The instant it ends, on the monotonic clock."""
        end = min(clock.now() + self._seconds, DEADLINE.get())
        self._tokens.append(DEADLINE.set(end))
        return end

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        DEADLINE.reset(self._tokens.pop())


def remaining() -> float:
    """Seconds left until the ambient deadline: infinite without one, 0.0 when it has passed.

    Inside a guarded call this is also bounded by the guard's time-out, so it is what to hand to a client:
    `requests.get(url, timeout=brownout.remaining())`.
    """
    end = DEADLINE.get()
    return end if end == inf else max(0.0, end - clock.now())
