"""Many observers side by side: one row for each target, who suffers from it, and what is to blame.

A target's row has the worst state that any observer has evidence of, with that observer's sentence; its
scope says who suffers (`scope`), from what all have counted since that began; its blame, what explains it
(`blame`).
An observer that has not written for more than 5 s is stale: it is listed with its age and counts for
nothing, because no evidence is a gap and never the last state. Instants are wall seconds here: what
observers share is no monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from brownout._core.blame import Edge, explained, strained
from brownout._core.contradiction import contradiction
from brownout._core.scope import (
    HEALTHY,
    NOBODY,
    OBSERVER,
    PART,
    SURE,
    TARGET,
    ZONE,
    Scope,
    Tally,
    decide,
    suffers,
)
from brownout._core.sketch import Sketch
from brownout._core.state import State
from brownout._core.words import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from brownout._core.because import Verdict

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

    @property
    def own(self) -> str:
        """What the observer itself is in trouble with; "" if nothing."""
        return next((verdict.own for verdict in self.verdicts if verdict.own), "")

    @property
    def edge(self) -> Edge:
        """It as an edge of the call graph."""
        since = self.verdicts[0].since if self.verdicts else 0.0
        return Edge(self.observer.id, self.observer.name, self.target, self.state, since)


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
    check is not ok, None if nobody asked. `fresh` and `stale` hold what each observer sees. `scope` says who
    suffers; `strained` why observers of it are themselves to blame, as sentences; `blame` is the path
    from the target to what explains its state ("quotes", "db"), empty if nothing further down does.
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
    scope: Scope = NOBODY
    strained: tuple[str, ...] = ()
    blame: tuple[str, ...] = ()

    @property
    def partition(self) -> str:
        """The zone that can't reach the target as others can ("zone-a | cache"); "" if there is none."""
        return f"{', '.join(self.scope.zones)} | {self.target}" if self.scope.kind == ZONE else ""

    @property
    def contradiction_because(self) -> str:
        """What it says of itself beside what its callers suffer, as a sentence; "" where the two agree."""
        led = next((one for one in self.fresh if one.contradiction), None)
        return contradiction(led.verdicts[0]) if led else ""

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
    edges = [one.edge for row in every for one in row.fresh]
    ours = strained(edges)
    every = [_scoped(row, edges, ours) if row.ill else row for row in every]
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


def _scoped(row: Row, edges: list[Edge], ours: dict[str, str]) -> Row:
    """A row with who suffers, and what is to blame."""
    blamed = {
        one.observer.id: f"{one.observer.name}: {one.own}" if one.own else ours[one.observer.id]
        for one in row.fresh
        if one.own or one.observer.id in ours
    }
    scope = decide([_tally(one, row, blamed) for one in row.fresh if one.state is not None])
    if scope.kind in {"", HEALTHY}:
        mine = tuple(one.observer.id for one in row.fresh if one.edge.ill)
        if len(mine) == 1 and mine[0] in blamed:
            scope = Scope(OBSERVER, OBSERVER, (), mine, scope.posterior)
    strain = tuple(blamed[one.observer.id] for one in row.fresh if one.observer.id in blamed)
    blame = explained(row.target, edges, ours) if scope.kind != OBSERVER else ()
    return row._replace(scope=scope, strained=strain, blame=blame)


def _tally(one: Seen, row: Row, blamed: dict[str, str]) -> Tally:
    """What an observer counted since the trouble of the row began, of the operation that has it."""
    assert row.verdict is not None
    named = [verdict for verdict in one.verdicts if verdict.operation == row.verdict.operation]
    verdict = (named or list(one.verdicts))[0]
    age = verdict.at - row.verdict.since
    bad = calls = 0
    if not verdict.recent:
        calls = _number(verdict, "calls")
        bad = sum(
            _number(verdict, name) for name in ("failed", "overload", "refused", "unanswered")
        )
    elif age >= 0:
        fits = [recent for recent in verdict.recent if recent.seconds <= age]
        _, bad, calls = fits[-1] if fits else verdict.recent[0]
    ill = one.edge.ill and verdict.state is not State.HEALTHY
    who, zone = one.observer.id, one.observer.zone
    return Tally(who, zone, bad, max(calls, 1 if ill else 0), ill=ill, own=who in blamed)


def scope_sentence(row: Row) -> str:
    """Who suffers, as a sentence without its end; "" of a target that nobody suffers from."""
    if not row.ill:
        return ""
    known = [one for one in row.fresh if one.state is not None]
    if row.scope.kind == ZONE:
        zones = row.scope.zones
        inside = [one for one in known if one.observer.zone in zones]
        outside = [one for one in known if one.observer.zone not in zones]
        return (
            f"partition {row.partition}: {_suffering(inside, row)} of {len(inside)} observers in"
            f" {' and '.join(zones)} suffer, {_suffering(outside, row)} of {len(outside)} elsewhere"
        )
    if row.scope.kind == OBSERVER:
        return _alone(row, known)
    if row.scope.kind == TARGET:
        return f"all who call it suffer, {_suffering(known, row)} of {len(known)} observers for certain"
    if row.scope.kind == PART:
        return f"{len(row.scope.observers)} of {len(known)} observers suffer; they have no zone in common"
    if len(known) == 1:
        return "only one observer has evidence: nobody can say whether others suffer too"
    likely = {
        TARGET: "all of them",
        ZONE: "a zone",
        OBSERVER: "one observer",
        PART: "a part of them",
    }
    return (
        f"who suffers is not decided: {likely.get(row.scope.likeliest, 'nobody')} with"
        f" {100 * row.scope.posterior:.0f} %, {100 * SURE:.0f} % are wanted"
    )


def _suffering(some: list[Seen], row: Row) -> int:
    return sum(1 for one in some if suffers(_tally(one, row, {})))


def _alone(row: Row, known: list[Seen]) -> str:
    who = next(one.observer for one in known if one.observer.id in row.scope.observers)
    others = len(known) - 1
    zoned = [one for one in known if one.observer.zone and one.observer.zone == who.zone]
    only = f", the only observer in {who.zone}" if who.zone and len(zoned) == 1 and others else ""
    rest = f"; {others} other{'' if others == 1 else 's'} {'does' if others == 1 else 'do'} not"
    return f"{who.name} (pid {who.pid}) alone suffers{only}{rest if others else ''}"


def blame_sentence(row: Row) -> str:
    """What is to blame beside the target, as a sentence without its end; "" if nothing is known to be."""
    if row.strained:
        return "not the target but the observer is to blame: " + "; ".join(row.strained)
    if len(row.blame) > 1:
        return f"explained by {row.blame[-1]}: " + ", ".join(
            f"the calls of {caller} to {target} suffer too"
            for caller, target in zip(row.blame, row.blame[1:], strict=False)
        )
    return (
        f"{row.target} itself is to blame: most of what it calls looks ill to it"
        if row.blame
        else ""
    )


def _severity(state: State | None) -> int:
    return -1 if state is None else state.severity


def _rank(one: Seen) -> tuple[int, int, str]:
    return -_severity(one.state), -_count(one, "calls"), one.observer.id


def _count(one: Seen, name: str) -> int:
    """The sum of a number over the operations; those that lack it have none of it."""
    numbers = (number for verdict in one.verdicts for number in verdict.numbers)
    return int(sum(number.value for number in numbers if number.name == name))


def _number(verdict: Verdict, name: str) -> int:
    return int(next((number.value for number in verdict.numbers if number.name == name), 0))


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
