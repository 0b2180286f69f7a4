"""Observers, verdicts and rows to test with."""

from math import inf

from brownout import Number, State, Verdict
from brownout.fleet import Observer, Row, Seen
from brownout.fleet.wire import Told

NOW = 1_800_000_000.0


def observer(
    name: str = "load", *, zone: str = "zone-a", written: float = NOW, ended: float | None = None
) -> Observer:
    return Observer(f"host/{name}", name, zone, "host", 7, NOW - 60, written, ended)


def verdict(
    state: State | None = State.HEALTHY,
    *,
    target: str = "quotes",
    operation: str = "read",
    because: str = "all is well",
    claim: bool | None = None,
    in_flight: int = 2,
    unanswered: int = 3,
    p99: float = 0.2,
) -> Verdict:
    return Verdict(
        target=target,
        operation=operation,
        state=state,
        kind="" if state is State.HEALTHY else "silent",
        extent=0.25,
        because=because,
        numbers=(
            Number("calls", 100.0, None, "1"),
            Number("unanswered", unanswered, 1.5, "1"),
            Number("in_flight", in_flight, None, "1"),
            Number("p50_seconds", 0.006, 0.005, "s"),
            Number("p99_seconds", p99, None, "s"),
            Number("silent_after_seconds", inf, None, "s"),
        ),
        shape=(1, 8, 2, 0, 0, 0, 0, 0, 4, 0),
        since=NOW - 36,
        at=NOW,
        claim=claim,
    )


def seen(
    state: State | None = State.HEALTHY,
    *,
    by: Observer | None = None,
    target: str = "quotes",
    **more: object,
) -> Seen:
    one = verdict(state, target=target, **more)  # type: ignore[arg-type]
    return Seen(by or observer(), target, one.claim, int(one.number("in_flight")), (one,))


def told(target: str = "quotes", *, at: float = NOW, after: str | None = "DEGRADED") -> Told:
    return Told(target, at, 55.5, "HEALTHY", after, "two humps", contradiction=True)


def only(rows: tuple[Row, ...]) -> Row:
    (row,) = rows
    return row
