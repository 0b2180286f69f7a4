"""Policies: what a guard is asked to do. Immutable values; they hold no state of any target."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, cast

from brownout._core.state import State
from brownout._core.value import Value
from brownout.errors import BrownoutError, ConfigurationError, TimedOut

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout._core.journal import Journal
    from brownout._core.ledger import Asker


class Retry(Value):
    """Try again when it is safe: never sent, or turned away, or declared to be idempotent.

    `attempts` counts the first one; `budget` is the share of calls that may be extra attempts (one budget
    per target); the wait before retry n is drawn from the upper half of `backoff * 2**(n - 1)` seconds,
    at most `backoff_most`. A Retry-After up to `backoff_most` is waited for, if the deadline leaves the
    time; a longer one ends the call.
    """

    attempts: int = 3
    budget: float = 0.1
    backoff: float = 0.05
    backoff_most: float = 2.0


class Breaker(Value):
    """Stop calling a target that is UNRESPONSIVE or CRASHED, and look again with a few probes.

    `open_at` opens it at that state or worse instead (a partial failure is then made total: say so on
    purpose). After `wait` seconds (jittered, doubled up to `wait_most` while probes fail) at most `probes`
    attempts are let through, each on a lease of `lease` seconds (None: as long as was waited for them, in
    the end as long as an attempt may take); when all went well the share of calls admitted rises to all
    of them over `ramp` seconds.
    """

    open_at: State | None = None
    probes: int = 3
    wait: float = 1.0
    wait_most: float = 15.0  # less than the window: it looks again before it is forgotten why
    lease: float | None = None
    ramp: float = 2.0


class Policy(Value):
    """All that a guard was asked to do, checked as a whole when the guard is built."""

    target: str
    timeout: float = inf
    retry: Retry | None = None
    breaker: Breaker | None = Breaker()
    limit: int | None = None
    fallback: Callable[..., Any] | None = None
    idempotent: bool = False
    answers: tuple[type[BaseException], ...] = ()
    health: str | Callable[[], bool] | None = None
    ask: Asker | Callable[[str], Any] | None = None
    journal: str | Journal | None = None
    dead_band: tuple[float, float] | None = None
    false_alarm_every: float | None = None

    def __repr__(self) -> str:
        return f"Policy({self.target!r})"  # not its `health`: a URL may hold a password

    def check(self, *more: str) -> None:
        """Raise ConfigurationError with every fault of this policy, and `more`, and the ways out."""
        name = self._name_faults()
        faults = [
            *name,
            *self._number_faults(),
            *self._retry_faults(),
            *self._breaker_faults(),
            *self._answer_faults(),
            *self._judge_faults(),
            *more,
        ]
        if faults:
            lines = "\n".join(f"  - {fault}" for fault in faults)
            who = "..." if name else repr(self.target)  # a URL may hold a password
            raise ConfigurationError(f"Guard({who}) can't work:\n{lines}")

    def _name_faults(self) -> list[str]:
        name = self.target
        if not isinstance(name, str) or not name or len(name) > 100 or not name.isprintable():
            return ["the target's name must be 1 to 100 printable characters"]
        if "://" in name or "?" in name or "@" in name:
            return [
                "the target's name must not be a URL (it is shown and logged): give it a short name"
            ]
        return []

    def _number_faults(self) -> list[str]:
        faults: list[str] = []
        if not _number(self.timeout) or not self.timeout > 0:
            faults.append(
                f"timeout={self.timeout!r}: it must be a number of seconds above 0, or left out"
            )
        if self.limit is not None and not (_whole(self.limit) and 1 <= self.limit <= 1_000_000):
            faults.append(
                f"limit={self.limit!r}: it must be a whole number from 1 to 1,000,000, or left out"
            )
        if self.fallback is not None and not callable(self.fallback):
            faults.append(
                f"fallback={self.fallback!r}: it must be a function that takes what the call takes"
            )
        return faults

    def _answer_faults(self) -> list[str]:
        if not _exceptions(self.answers):
            return [f"answers={self.answers!r}: it must be a tuple of exception classes"]
        return [
            f"answers: {answer.__name__} takes in {what}, which would count as a success;"
            " name what the target says no with, such as NotFound"
            for answer in self.answers
            if (what := _no_answer(answer))
        ]

    def _judge_faults(self) -> list[str]:
        faults: list[str] = []
        band, every = self.dead_band, self.false_alarm_every
        if band is not None and not (
            isinstance(band, tuple)
            and len(band) == 2
            and all(_number(x) and 0 <= x < inf for x in band)
        ):
            faults.append(
                f"dead_band={band!r}: write (share, seconds), such as (0.25, 0.001); the larger counts"
            )
        if every is not None and not (_span(every) and every >= 60.0):
            faults.append(
                f"false_alarm_every={every!r}: it must be a number of seconds, 60 at least; a day is 86,400"
            )
        return faults

    def _retry_faults(self) -> list[str]:
        retry = self.retry
        if retry is None:
            return []
        if not isinstance(retry, Retry):
            return [f"retry={retry!r}: write retry=Retry(attempts=3, budget=0.1)"]
        faults: list[str] = []
        if not (_whole(retry.attempts) and 2 <= retry.attempts <= 10):
            faults.append(
                f"Retry(attempts={retry.attempts!r}): it must be 2 to 10; leave retry out for one attempt"
            )
        if not (_number(retry.budget) and 0 < retry.budget <= 1):
            faults.append(
                f"Retry(budget={retry.budget!r}): it must be above 0 and at most 1: 0.1 is one in ten calls"
            )
        most = retry.backoff_most
        if not (_span(most) and _number(retry.backoff) and 0 <= retry.backoff <= most):
            faults.append(
                f"Retry(backoff={retry.backoff!r}, backoff_most={most!r}):"
                " the first must lie between 0 and the second, in seconds"
            )
        return faults

    def _breaker_faults(self) -> list[str]:
        breaker = self.breaker
        if breaker is None:
            return []
        if not isinstance(breaker, Breaker):
            return [f"breaker={breaker!r}: write breaker=Breaker(), or None for no breaker"]
        faults: list[str] = []
        if breaker.open_at is State.HEALTHY:
            faults.append(
                "Breaker(open_at=State.HEALTHY) would never let a call through: name a worse state"
            )
        elif breaker.open_at is not None and not isinstance(breaker.open_at, State):
            faults.append(f"Breaker(open_at={breaker.open_at!r}): write open_at=State.DEGRADED")
        if not (_whole(breaker.probes) and 1 <= breaker.probes <= 100):
            faults.append(
                f"Breaker(probes={breaker.probes!r}): it must be a whole number from 1 to 100"
            )
        spans = ("wait", "wait_most", "ramp", *(["lease"] if breaker.lease is not None else []))
        faults += [
            f"Breaker({name}={getattr(breaker, name)!r}): it must be a number of seconds above 0"
            for name in spans
            if not _span(getattr(breaker, name))
        ]
        if faults:
            return faults
        if breaker.wait > breaker.wait_most:
            faults.append(
                f"Breaker(wait={breaker.wait!r}, wait_most={breaker.wait_most!r}):"
                " the first must not be more than the second"
            )
        if breaker.lease is not None and _span(self.timeout) and breaker.lease < self.timeout:
            faults.append(
                f"Breaker(lease={breaker.lease!r}) is shorter than timeout={self.timeout!r}: probes that"
                " are answered in between would count as hung, and it might never close; leave lease out"
            )
        return faults


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value  # noqa: PLR0124 - NaN


def _span(value: object) -> bool:
    return _number(value) and 0 < value < inf  # type: ignore[operator]


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _exceptions(value: object) -> bool:
    if not isinstance(value, tuple):
        return False
    classes = cast("tuple[object, ...]", value)
    return all(isinstance(x, type) and issubclass(x, BaseException) for x in classes)


def _no_answer(answer: type[BaseException]) -> str:
    """What is no answer of any target, and would be taken for one; "" if nothing."""
    if not issubclass(answer, Exception):
        return "a cancel or the end of the process"
    if issubclass(answer, BrownoutError) or issubclass(TimedOut, answer):
        return "our own refusals or time-outs"
    return "a connection that was refused" if issubclass(ConnectionRefusedError, answer) else ""
