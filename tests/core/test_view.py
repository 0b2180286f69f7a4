from itertools import permutations
from math import inf
from typing import Any

import pytest

from brownout import State
from brownout._core.recent import Recent
from brownout._core.sketch import Latencies, Sketch
from brownout._core.view import (
    Seen,
    Together,
    absence,
    blame_sentence,
    rows,
    scope_sentence,
)
from tests.fleet.sample import NOW, observer, only, seen

LATE = NOW - 5.1


def test_the_worst_state_leads_with_its_own_sentence() -> None:
    one = seen(State.DEGRADED, by=observer("a"), because="a hump")
    other = seen(State.CRASHED, by=observer("b"), because="nobody listens")
    third = seen(State.HEALTHY, by=observer("c"))
    for group in permutations([one, other, third]):
        row = only(rows(group, NOW))
        assert row.state is State.CRASHED
        assert row.because == "nobody listens"
        assert row.observer == observer("b")
        assert (row.seen_by, row.observers) == (1, 3)
        assert row.ill


def test_observers_without_evidence_are_not_counted() -> None:
    group = [seen(State.DEGRADED, by=observer(name)) for name in ("a", "b")]
    row = only(rows([*group, seen(None, by=observer("c"))], NOW))
    assert (row.seen_by, row.observers) == (2, 2)
    assert len(row.fresh) == 3


def test_a_stale_observer_is_no_evidence() -> None:
    stale = seen(State.CRASHED, by=observer("a", written=LATE))
    row = only(rows([stale, seen(State.HEALTHY, by=observer("b"))], NOW))
    assert row.state is State.HEALTHY
    assert row.stale == (stale,)
    assert (row.observers, row.in_flight, row.unanswered) == (1, 2, 3)


@pytest.mark.parametrize(
    ("written", "ended", "why"),
    [
        (LATE, None, "no evidence: load (pid 7) has not been heard of for 5.1 s"),
        (LATE, LATE, "no evidence: load (pid 7) ended 5.1 s ago"),
        (NOW + 60, None, "no evidence: load (pid 7) wrote at a time that is 60 s ahead"),
    ],
)
def test_when_all_are_stale_there_is_no_evidence(
    written: float, ended: float | None, why: str
) -> None:
    row = only(rows([seen(State.CRASHED, by=observer(written=written, ended=ended))], NOW))
    assert row.state is None
    assert not row.ill
    assert row.because == why
    assert row.verdict is None


def test_five_seconds_are_not_yet_stale() -> None:
    assert (
        only(rows([seen(State.CRASHED, by=observer(written=NOW - 5))], NOW)).state is State.CRASHED
    )


def test_a_contradiction_is_one_as_soon_as_one_observer_has_it() -> None:
    a = seen(State.DEGRADED, by=observer("a"), claim=True)
    b = seen(State.UNRESPONSIVE, by=observer("b"), claim=False)
    row = only(rows([a, b], NOW))
    assert row.contradiction
    assert row.claim is False
    assert not only(rows([b], NOW)).contradiction
    assert only(rows([seen(State.HEALTHY)], NOW)).claim is None


def test_calls_in_flight_and_unanswered_are_added_up() -> None:
    row = only(
        rows([seen(by=observer("a"), in_flight=2), seen(by=observer("b"), in_flight=5)], NOW)
    )
    assert (row.in_flight, row.unanswered) == (7, 6)


def test_rows_stand_from_worst_to_unknown_then_by_name() -> None:
    states = {"b": State.HEALTHY, "a": State.HEALTHY, "c": None, "d": State.OVERLOADED}
    table = rows([seen(state, target=name) for name, state in states.items()], NOW)
    assert [row.target for row in table] == ["d", "a", "b", "c"]


def test_a_target_that_nobody_called_says_so() -> None:
    row = only(rows([seen()._replace(verdicts=())], NOW))
    assert row.because == "no evidence: it has not been called"


def test_an_absence_names_its_process() -> None:
    assert (
        absence(observer("shop", written=NOW - 12), NOW)
        == "shop (pid 7) has not been heard of for 12 s"
    )


def latencies(*seconds: float, left: int = 0) -> Latencies:
    sketch = Sketch()
    for each in seconds:
        sketch.add(each)
    for _ in range(left):
        sketch.add(1.0, censored=True)
    return sketch.told()


def saw(name: str, told: Latencies, operation: str = "read", written: float = NOW) -> Seen:
    one = seen(by=observer(name, written=written), operation=operation)
    return one._replace(verdicts=(one.verdicts[0].__replace__(latencies=told),))


def test_latencies_of_all_observers_are_added_up() -> None:
    fast, slow = latencies(*[0.01] * 98), latencies(0.5, 0.5)
    group = [saw("a", fast), saw("b", slow), saw("c", latencies())]
    group += [saw("d", latencies(9.0), operation="write"), saw("e", latencies(9.0), written=LATE)]
    everything = latencies(*[0.01] * 98, 0.5, 0.5)
    sketch = Sketch()
    sketch.hear(everything)
    for some in permutations(group):
        together = only(rows(some, NOW)).together
        assert together == Together(2, 100, sketch.quantile(0.5), sketch.quantile(0.99))
    assert sketch.quantile(0.99) == pytest.approx(0.5, rel=0.05)


def test_latencies_of_different_scales_are_added_up() -> None:
    row = only(rows([saw("a", latencies(*[0.1] * 9)), saw("b", latencies(3600.0))], NOW))
    together = row.together
    assert together is not None
    assert (together.observers, together.calls) == (2, 10)
    assert together.p50_seconds == pytest.approx(0.1, rel=0.1)
    assert together.p99_seconds == pytest.approx(3600.0, rel=0.1)


def test_a_hang_that_one_observer_sees_is_not_hidden_by_the_others() -> None:
    row = only(rows([saw("a", latencies(*[0.01] * 90)), saw("b", latencies(left=10))], NOW))
    assert row.together is not None
    assert row.together.p99_seconds == inf


def test_without_evidence_there_is_nothing_together() -> None:
    assert only(rows([seen(None)], NOW)).together is None
    assert only(rows([seen()._replace(verdicts=())], NOW)).together is None


# ----------------------------------------------------------------------------- scope and blame


def counted(
    name: str,
    bad: int,
    *,
    zone: str = "zone-a",
    state: State | None = None,
    target: str = "cache",
    calls: int = 25,
    own: str = "",
    claim: bool | None = None,
    since: float = NOW - 2.5,
) -> Seen:
    """What an observer sees of a target since 2.5 s; before that all was well."""
    worst = state or (State.CRASHED if bad else State.HEALTHY)
    one = seen(worst, by=observer(name, zone=zone), target=target, claim=claim)
    recent = tuple(
        Recent(span, bad, calls + (1000 if span > 2 else 0)) for span in (0.5, 1.0, 2.0, 30.0)
    )
    verdict = one.verdicts[0].__replace__(recent=recent, own=own, kind="silent", since=since)
    return one._replace(verdicts=(verdict,))


def zones(bad: int, **more: Any) -> list[Seen]:
    """Four observers in each of two zones; those of zone-a have so many bad calls."""
    return [
        counted(f"{zone}{number}", bad if zone == "zone-a" else 0, zone=zone, **more)
        for zone in ("zone-a", "zone-b")
        for number in range(4)
    ]


def test_a_zone_that_can_not_reach_it_is_a_partition() -> None:
    row = only(rows(zones(24), NOW))
    assert row.partition == "zone-a | cache"
    assert row.scope.zones == ("zone-a",)
    assert scope_sentence(row) == (
        "partition zone-a | cache: 4 of 4 observers in zone-a suffer, 0 of 4 elsewhere"
    )
    assert blame_sentence(row) == ""


def test_only_what_came_since_it_began_counts() -> None:
    """The calls of the last two seconds, not the thousand that were well before."""
    group = [counted(f"a{number}", 24) for number in range(4)]
    row = only(rows(group, NOW))
    assert row.scope.kind == "target"
    assert scope_sentence(row) == "all who call it suffer, 4 of 4 observers for certain"


def test_who_has_not_written_since_it_began_says_nothing_of_it() -> None:
    early = [one._replace(verdicts=(one.verdicts[0].__replace__(at=NOW - 4),)) for one in zones(0)]
    row = only(rows([*early, counted("x", 25, zone="zone-a")], NOW))
    assert row.scope.kind == ""
    assert "who suffers is not decided" in scope_sentence(row)


def test_one_alone_and_a_part() -> None:
    row = only(rows([*zones(0), counted("x", 25)], NOW))
    assert scope_sentence(row) == "x (pid 7) alone suffers; 8 others do not"
    alone = only(rows([*zones(0), counted("x", 25, zone="zone-c")], NOW))
    assert scope_sentence(alone) == (
        "x (pid 7) alone suffers, the only observer in zone-c; 8 others do not"
    )
    some = [*zones(0), *(counted(f"x{n}", 25, zone=f"zone-{'ab'[n % 2]}") for n in range(4))]
    assert scope_sentence(only(rows(some, NOW))) == (
        "4 of 12 observers suffer; they have no zone in common"
    )


def test_one_observer_can_not_say_it_of_others() -> None:
    row = only(rows([counted("x", 25)], NOW))
    assert row.scope.kind == ""
    assert scope_sentence(row).startswith("only one observer has evidence")
    assert scope_sentence(only(rows(zones(0), NOW))) == ""


def test_an_observer_that_was_late_itself_is_not_heard() -> None:
    late = counted("x", 25, own="its event loop stood still for 2 s")
    row = only(rows([*zones(0), late], NOW))
    assert row.scope.kind == "observer"
    assert blame_sentence(row) == (
        "not the target but the observer is to blame: x: its event loop stood still for 2 s"
    )


def test_one_that_sees_all_ill_is_itself_to_blame() -> None:
    targets = ("cache", "db", "mail")
    group = [one for target in targets for one in [*zones(0, target=target)]]
    group += [counted("x", 25, target=target) for target in targets]
    for row in rows(group, NOW):
        assert (row.scope.kind, row.scope.observers) == ("observer", ("host/x",))
        assert "3 of the 3 targets of x look ill to it" in blame_sentence(row)


def test_a_target_is_explained_by_what_it_calls() -> None:
    group = [counted(f"web{n}", 25, target="quotes") for n in range(3)]
    group += [counted("quotes", 25, target="db")]
    row = next(row for row in rows(group, NOW) if row.target == "quotes")
    assert row.blame == ("quotes", "db")
    assert blame_sentence(row) == "explained by db: the calls of quotes to db suffer too"


def test_a_contradiction_is_a_sentence() -> None:
    group = [counted(f"a{n}", 8, claim=True, state=State.DEGRADED) for n in range(2)]
    row = only(rows(group, NOW))
    assert row.contradiction_because == "it says ok; 32 % of its callers wait out the deadline"
    assert only(rows([counted("a", 8)], NOW)).contradiction_because == ""


def test_counts_of_an_older_writer_do_for_the_scope() -> None:
    group = [
        seen(
            State.CRASHED if zone == "zone-a" else State.HEALTHY,
            by=observer(f"{zone}{number}", zone=zone),
            target="cache",
            unanswered=96 if zone == "zone-a" else 0,
        )
        for zone in ("zone-a", "zone-b")
        for number in range(4)
    ]
    assert only(rows(group, NOW)).partition == "zone-a | cache"
