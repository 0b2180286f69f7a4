"""What is usual: learned from quarantined time, ratcheted, told when it was never well, kept with its age."""

from __future__ import annotations

from math import inf
from threading import Lock
from typing import Any

import pytest

from brownout import OutcomeClass, State
from brownout._core.cell import CLASSES, Cell, Closed, Tick
from brownout._core.kept import Kept
from brownout._core.sketch import bucket
from brownout._core.target import Target
from brownout._core.usual import OLDEST_SECONDS, Usual
from brownout.errors import ConfigurationError
from tests.core.test_judge import FAIL, OK, Stream, healthy, slower, some

TICK = 0.1


def cell(at: float, calls: int, seconds: float = 0.02, failed: int = 0) -> Closed:
    """Five seconds in which so many calls were answered, all in the same time."""
    made = Cell(at)
    made.seconds, made.started = 5.0, calls + failed
    made.classes[OutcomeClass.SUCCESS], made.classes[OutcomeClass.FAILURE] = calls, failed
    made.sketch.take([(bucket(seconds), calls)], [])
    return Closed.of(made, at + 5.0)


def tick(at: float) -> Tick:
    return Tick(at, TICK, 0, [0] * CLASSES, [], [], [], 0, 0.0)


def state(stream: Stream) -> State | None:
    return stream.operation.state


class Learning:
    """Cells of five seconds, one after the other."""

    def __init__(self) -> None:
        self.usual = Usual(1.0)
        self.now = 0.0
        self.usual.learn(tick(0.0), cell(-5.0, 0), suspicious=False, ill=False)

    def cells(
        self,
        many: int,
        calls: int,
        seconds: float = 0.02,
        *,
        suspicious: bool = False,
        ill: bool = False,
    ) -> None:
        for _ in range(many):
            closed = cell(self.now, calls, seconds)
            self.now += 5.0
            self.usual.learn(tick(self.now), closed, suspicious=suspicious, ill=ill)

    @property
    def learned(self) -> int:
        told = self.usual.told()
        return sum(told["counts"][1::2]) if told else 0

    @property
    def p50(self) -> float:
        return self.usual.baseline.p50


# ------------------------------------------------------------------------------ 1. quarantine


def test_a_cell_waits_for_ten_seconds() -> None:
    learning = Learning()
    learning.cells(2, 500)
    assert not learning.usual.learned
    learning.cells(1, 500)
    assert learning.usual.learned
    assert learning.usual.baseline.n == 500


def test_a_slow_targets_cell_waits_for_25_calls_though_not_for_ever() -> None:
    learning = Learning()
    learning.cells(1, 100)
    learning.cells(3, 1)
    assert not learning.usual.learned
    learning.cells(25, 1)  # 120 s
    assert learning.usual.learned


def test_nothing_is_learned_while_something_is_suspicious() -> None:
    learning = Learning()
    learning.cells(10, 500, suspicious=True)
    assert not learning.usual.learned
    learning.cells(1, 500)
    assert learning.usual.learned


def test_an_alarm_drops_what_waits_and_the_cell_in_which_it_came() -> None:
    learning = Learning()
    learning.cells(40, 500)
    known = learning.learned
    learning.cells(2, 500, seconds=0.2)  # it went wrong slowly
    learning.cells(1, 500, seconds=0.2, ill=True)
    learning.cells(1, 500, seconds=0.2)  # began while it was ill
    learning.cells(3, 500)
    assert learning.p50 == pytest.approx(0.02, rel=0.05)
    # Two cells of before had waited long enough when it began, and one of the last three has by now.
    assert learning.learned == known + 3 * 500


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_targets_failure_is_not_learned_before_it_is_named(seed: int) -> None:
    """At three calls a second it takes a while: 30 s of quarantine at once would hold half of it."""
    stream = Stream(seed, timeout=2.0)
    stream.run(healthy, 3, 240)
    stream.run(slower(3), 3, 120)
    assert state(stream) is State.DEGRADED
    assert stream.operation.usual.baseline.p50 < 0.03


# ------------------------------------------------------------------------------ 2. cold start


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_what_fails_from_the_first_call_on_is_judged_against_a_prior(share: float) -> None:
    stream = Stream(1)
    stream.run(some(share, (0.01, FAIL)), 20, 60)
    assert state(stream) is State.DEGRADED
    assert stream.verdict.kind == "errors"
    assert stream.operation.usual.baseline.errors <= 0.05


def test_silence_from_the_first_call_on_is_judged_against_the_deadline() -> None:
    stream = Stream(1)
    stream.run(lambda _: (inf, OK), 20, 10)
    assert state(stream) is State.UNRESPONSIVE


def test_errors_of_the_first_calls_raise_no_limit_until_enough_is_learned() -> None:
    usual, classes = Usual(1.0), [0] * CLASSES
    classes[OutcomeClass.SUCCESS], classes[OutcomeClass.FAILURE] = 40, 10
    seen = Tick(0.1, 0.1, 50, classes, [(bucket(0.02), 40)], [], [], 0, 0.0)
    usual.learn(seen, None, suspicious=False, ill=False)
    assert not usual.baseline.cold
    assert usual.baseline.errors <= 0.05


@pytest.mark.parametrize("seconds", [1.5, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_rate_seen_for_a_second_is_believed(seconds: float, seed: int) -> None:
    """A surge right after the first moments is load: it was called DEGRADED where no rate was believed."""
    stream = Stream(seed, timeout=0.5)
    stream.run(healthy, 60, seconds)
    assert stream.operation.usual.baseline.rate
    states = {one for _, one in stream.run(slower(6), 180, 4)} - {State.HEALTHY, None}
    assert State.OVERLOADED in states
    assert state(stream) is State.OVERLOADED


# ---------------------------------------------------------------------------- 3. chronic errors


def test_chronic_errors_are_one_state_with_a_sentence_and_can_be_pinned() -> None:
    stream = Stream(1)
    chronic = some(0.62, (0.01, FAIL))
    changes = stream.run(chronic, 20, 120)
    assert [one for _, one in changes] == [State.DEGRADED]
    because = stream.verdict.because
    assert "errors 6" in because
    assert "unchanged since start" in because
    assert "guard.relearn(errors=0.6" in because
    stream.operation.relearn(stream.now, 0.7)
    assert State.DEGRADED not in {one for _, one in stream.run(chronic, 20, 60)}
    assert state(stream) is State.HEALTHY
    stream.run(some(1.0, (0.01, FAIL)), 20, 20)
    assert state(stream) is State.DEGRADED


def test_errors_that_change_are_not_called_unchanged() -> None:
    stream = Stream(1)
    stream.run(some(0.3, (0.01, FAIL)), 20, 60)
    stream.run(some(1.0, (0.01, FAIL)), 20, 10)
    assert "unchanged" not in stream.verdict.because


@pytest.mark.parametrize("first", [healthy, some(0.01, (0.01, FAIL))])
def test_errors_that_begin_before_enough_is_learned_are_not_called_unchanged(first: Any) -> None:
    stream = Stream(1)
    stream.run(first, 20, 8)
    stream.run(some(0.25, (0.01, FAIL)), 20, 4)
    assert state(stream) is State.DEGRADED
    assert "unchanged" not in stream.verdict.because


def test_who_was_well_once_has_no_chronic_errors() -> None:
    stream = Stream(1)
    stream.run(healthy, 20, 60)
    stream.run(some(0.62, (0.01, FAIL)), 20, 30)
    assert "unchanged" not in stream.verdict.because
    assert "of calls fail" in stream.verdict.because


@pytest.mark.parametrize("share", [-0.1, 0.9, 7])
def test_what_is_no_share_is_refused(share: float) -> None:
    target = Target("t", Lock, frozenset)
    with pytest.raises(ConfigurationError, match=r"t: relearn\(errors=.*from 0 to 0.8"):
        target.relearn(0.0, None, share)


# -------------------------------------------------------------------------------- 4. ratchet


def test_what_is_usual_rises_slowly_and_falls_freely() -> None:
    learning = Learning()
    learning.cells(60, 500, 0.02)
    learning.cells(720, 500, 0.04)  # an hour, in which nothing was suspicious
    assert learning.p50 <= 0.02 * 1.05 * 1.01
    assert max(learning.usual.baseline.thresholds[:2]) <= 0.02 * 1.05 * 1.01 * 1.25 + 0.0021
    learning.cells(720, 500, 0.005)
    assert learning.p50 == pytest.approx(0.005, rel=0.1)


def test_the_share_that_fails_rises_slowly() -> None:
    learning = Learning()
    usual = learning.usual
    for failed in [5] * 120 + [50] * 360:  # 1 %, then half an hour of 10 %
        closed = cell(learning.now, 495, failed=failed)
        learning.now += 5.0
        usual.learn(tick(learning.now), closed, suspicious=False, ill=False)
    assert usual.baseline.errors < 0.02


def test_relearn_takes_what_comes_as_usual() -> None:
    stream = Stream(1)
    stream.run(healthy, 50, 40)
    stream.run(slower(3), 50, 10)
    assert state(stream) is State.DEGRADED
    stream.operation.relearn(stream.now, None)
    changes = stream.run(slower(3), 50, 60)
    assert State.DEGRADED not in {one for _, one in changes}
    assert state(stream) is State.HEALTHY
    assert stream.operation.usual.baseline.p50 > 0.045


# --------------------------------------------------------------------------- kept with its age


def learned() -> Usual:
    stream = Stream(1)
    stream.run(healthy, 50, 60)
    return stream.operation.usual


def test_a_successor_begins_with_what_was_learned() -> None:
    told = learned().told()
    stream = Stream(2)
    stream.operation.hear(Kept(told, -3600.0), 0.0)
    assert stream.operation.usual.learned
    stream.run(healthy, 50, 3)
    assert "the usual is from before this process began, 3603 s old" in stream.verdict.because
    assert stream.verdict.number("usual_age_seconds") == pytest.approx(3603, abs=1)
    stream.run(slower(4), 50, 3)
    assert state(stream) is State.DEGRADED
    stream.run(healthy, 50, 10)
    stream.run(healthy, 3, 1000)
    assert "before this process" not in stream.verdict.because


@pytest.mark.parametrize("age", [-1.0, OLDEST_SECONDS + 1])
def test_what_is_too_old_or_from_the_future_is_not_believed(age: float) -> None:
    usual = Usual(1.0)
    assert not usual.hear(learned().told(), -age, 0.0)
    assert usual.baseline.cold


def test_who_has_learned_itself_or_was_told_to_does_not_listen() -> None:
    told, usual = learned().told(), learned()
    assert not usual.hear(told, 0.0, 10.0)
    usual.relearn()
    assert not usual.hear(told, 0.0, 10.0)
    assert usual.told() is None


def test_too_little_is_not_told() -> None:
    assert Usual(1.0).told() is None


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"scale": 4},
        {"counts": [1]},
        {"counts": [3, 100, 2, 100]},
        {"counts": [999, 100]},
        {"counts": [3, -100]},
        {"counts": [3, 10**12]},
        {"counts": [3, 10]},
        {"counts": "many"},
        {"classes": [1]},
        {"classes": None},
        {"started": True},
        {"seconds": inf},
        {"seconds": "long"},
        {"blocks": [1.0]},
        {"anchors": [0.0, 0.0, 0.0, 0.0, float("nan")]},
        {"pinned": 2.0},
        {"pinned": "all"},
    ],
)
def test_what_no_predecessor_can_have_told_is_refused(change: dict[str, object]) -> None:
    told = {**(learned_once() or {}), **change}
    with pytest.raises(ValueError, match=r"not|of another version"):
        Usual(1.0).hear(told, 0.0, 1.0)


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match="not an object"):
        Usual(1.0).hear([1, 2], 0.0, 1.0)


_told: list[dict[str, Any] | None] = []


def learned_once() -> dict[str, Any] | None:
    if not _told:
        _told.append(learned().told())
    return _told[0]


def test_a_target_hands_on_what_it_heard_to_operations_that_come_later() -> None:
    target = Target("t", Lock, frozenset)
    before = target.operation("before", 0.0)
    assert target.hear("before", Kept(learned_once(), 0.0), 1.0)
    assert target.hear("after", Kept(learned_once(), 0.0), 1.0)
    assert before.usual.learned
    assert target.operation("after", 2.0).usual.learned
    assert set(target.told()) == {"before", "after"}
    target.relearn(3.0, "after", None)
    assert target.told()["after"] is None
    assert not target.operation("after", 4.0).usual.learned
    with pytest.raises(ValueError, match=r"not"):
        target.hear("other", Kept({}, 0.0), 1.0)


# --------------------------------------------------------------------------- without traffic


def test_without_traffic_it_is_last_known_and_less_and_less_sure() -> None:
    stream = Stream(1)
    stream.run(healthy, 50, 30)
    assert stream.verdict.number("confidence") > 0.99
    stream.run(healthy, 0, 60)
    verdict = stream.verdict
    assert verdict.state is None
    assert "last known HEALTHY, 60 s ago" in verdict.because
    assert verdict.number("confidence") == pytest.approx(0.5, abs=0.01)


def test_request_classes_are_operations_with_a_usual_each() -> None:
    target = Target("t", Lock, frozenset)
    small, big = target.operation("small", 0.0), target.operation("big", 0.0)
    assert small.usual is not big.usual
