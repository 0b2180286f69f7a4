from itertools import permutations
from math import inf

import pytest

from brownout import State
from brownout._core.sketch import Latencies, Sketch
from brownout._core.view import Seen, Together, absence, rows
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
