"""Many observers side by side: one row for each target.

A target's row has the worst state that any observer has evidence of, with that observer's sentence.
An observer that has not written for more than 5 s is stale: it is listed with its age and counts for
nothing, because no evidence is a gap and never the last state. Instants are wall seconds here: what
observers share is no monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from brownout._core.because import Verdict, seconds
from brownout._core.sketch import Sketch
from brownout._core.state import State

if TYPE_CHECKING:
    from collections.abc import Iterable

STALE_SECONDS = 5.0  # five writes: fewer would take a busy machine for a dead observer


class Observer(NamedTuple):
    """A process that looks at targets: its name and zone, where it runs, and since when.

    `started`, `written` (its last word) and `ended` (None: it has not said that it ended) are wall
    seconds. `lost` counts the changes that it could not write, `left_out` the targets that were too many.
    """

    id: str
    name: str
    zone: str
    host: str
    pid: int
    started: float
    written: float
    ended: float | None = None
    lost: int = 0
    left_out: int = 0

    def age(self, now: float) -> float:
        """Seconds since its last word. A word from the future is as old as it is far away."""
        return abs(now - self.written)

    def stale(self, now: float) -> bool:
        """Whether its last word is too old to be evidence."""
        return self.age(now) > STALE_SECONDS


class Seen(NamedTuple):
    """What one observer sees of one target: the verdict on each operation, the worst first.

    `left_out` counts the operations that were too many to be written.
    """

    observer: Observer
    target: str
    claim: bool | None
    in_flight: int
    verdicts: tuple[Verdict, ...]
    left_out: int = 0

    @property
    def state(self) -> State | None:
        """The state of the worst operation that has evidence; None when none has."""
        return self.verdicts[0].state if self.verdicts else None

    @property
    def contradiction(self) -> bool:
        """The target's health check says ok to this observer, whose calls suffer."""
        return bool(self.claim) and self.state not in {None, State.HEALTHY}


class Together(NamedTuple):
    """The latencies of one operation, of several observers, added up: exactly, as if one had seen all.

    `calls` counts those that were answered or waited; a quantile is infinite if so many never answered.
    """

    observers: int
    calls: int
    p50_seconds: float
    p99_seconds: float


class Row(NamedTuple):
    """One target as all its observers see it.

    `verdict` is the worst one and `observer` whose it is (None without evidence: then `because` says
    why there is none). `seen_by` of the `observers` that have evidence say the same state. `in_flight`
    and `unanswered` are sums over all operations and observers; `claim` is False as soon as one health
    check is not ok, None if nobody asked. `fresh` and `stale` hold what each observer sees.
    """

    target: str
    state: State | None
    because: str
    verdict: Verdict | None
    observer: Observer | None
    seen_by: int
    observers: int
    contradiction: bool
    claim: bool | None
    in_flight: int
    unanswered: int
    fresh: tuple[Seen, ...]
    stale: tuple[Seen, ...]

    @property
    def together(self) -> Together | None:
        """What all fresh observers saw of the operation that decided; None without evidence."""
        if self.verdict is None:
            return None
        sketch, observers = Sketch(), 0
        for verdict in (one for seen in self.fresh for one in seen.verdicts):
            if verdict.operation == self.verdict.operation and verdict.latencies.rows:
                sketch.hear(verdict.latencies)
                observers += 1
        return Together(observers, sketch.count, sketch.quantile(0.5), sketch.quantile(0.99))

    @property
    def ill(self) -> bool:
        """Somebody's calls suffer: there is evidence, and it does not say HEALTHY."""
        return self.state not in {None, State.HEALTHY}


def rows(seen: Iterable[Seen], now: float) -> tuple[Row, ...]:
    """One row for each target: the worst state first, those without evidence last, then by name."""
    by_target: dict[str, list[Seen]] = {}
    for one in seen:
        by_target.setdefault(one.target, []).append(one)
    every = [_row(target, group, now) for target, group in by_target.items()]
    return tuple(sorted(every, key=lambda row: (-_severity(row.state), row.target)))


def _row(target: str, group: list[Seen], now: float) -> Row:
    stale = tuple(one for one in group if one.observer.stale(now))
    fresh = tuple(sorted((one for one in group if not one.observer.stale(now)), key=_rank))
    known = [one for one in fresh if one.state is not None]
    lead = known[0] if known else None
    state = lead.state if lead else None
    claims = [one.claim for one in fresh if one.claim is not None]
    return Row(
        target=target,
        state=state,
        because=lead.verdicts[0].because if lead else _gap(fresh, stale, now),
        verdict=lead.verdicts[0] if lead else None,
        observer=lead.observer if lead else None,
        seen_by=sum(1 for one in known if one.state is state),
        observers=len(known),
        contradiction=any(one.contradiction for one in known),
        claim=all(claims) if claims else None,
        in_flight=sum(one.in_flight for one in fresh),
        unanswered=sum(_count(one, "unanswered") for one in fresh),
        fresh=fresh,
        stale=stale,
    )


def _severity(state: State | None) -> int:
    return -1 if state is None else state.severity


def _rank(one: Seen) -> tuple[int, int, str]:
    return -_severity(one.state), -_count(one, "calls"), one.observer.id


def _count(one: Seen, name: str) -> int:
    """The sum of a number over the operations; those that lack it have none of it."""
    numbers = (number for verdict in one.verdicts for number in verdict.numbers)
    return int(sum(number.value for number in numbers if number.name == name))


def _gap(fresh: tuple[Seen, ...], stale: tuple[Seen, ...], now: float) -> str:
    if fresh:
        calls = fresh[0].verdicts
        return calls[0].because if calls else "no evidence: it has not been called"
    return (
        f"no evidence: {absence(min(stale, key=lambda one: one.observer.age(now)).observer, now)}"
    )


def absence(observer: Observer, now: float) -> str:
    """Why an observer is not counted, as a sentence without its end."""
    who = f"{observer.name} (pid {observer.pid})"
    age = seconds(observer.age(now))
    if observer.ended is not None:
        return f"{who} ended {age} ago"
    if observer.written > now:
        return f"{who} wrote at a time that is {age} ahead"
    return f"{who} has not been heard of for {age}"
