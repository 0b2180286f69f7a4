"""What is wrong, beyond the state: kind, extent, onset, theta, load, and whose calls it hits."""

from __future__ import annotations

import random

import pytest

from brownout import ConfigurationError, Guard, OutcomeClass, State
from brownout._core.hazard import theta
from brownout._core.load import correlation, ranks
from brownout._core.split import improbable, split
from brownout._core.target import Target
from brownout.replay import Record, Replay, Settings
from tests.core.test_judge import (
    FAIL,
    HUNG,
    OK,
    SHED,
    Answer,
    Service,
    Stream,
    healthy,
    slower,
    some,
)


def kinds(stream: Stream) -> tuple[State | None, str, float]:
    verdict = stream.verdict
    return verdict.state, verdict.kind, verdict.extent


@pytest.mark.parametrize(
    ("service", "kind", "extent"),
    [
        (some(0.3, (0.01, FAIL)), "errors", 0.3),
        (some(0.4, HUNG), "silent", 0.4),
        (some(0.2, (0.001, OutcomeClass.CONNECT)), "refused", 0.2),
        (some(0.3, (0.001, SHED)), "overload", 0.3),
    ],
)
def test_the_extent_is_the_share_that_was_measured(
    service: Service, kind: str, extent: float
) -> None:
    stream = Stream(3)
    stream.run(healthy, 100, 30)
    began = stream.now
    stream.run(service, 100, 8)
    assert kinds(stream)[1] == kind
    assert kinds(stream)[2] == pytest.approx(extent, abs=0.15)
    assert stream.verdict.since == pytest.approx(began, abs=1.0)


def test_theta_tells_how_slow_it_is() -> None:
    stream = Stream(3)
    stream.run(healthy, 100, 30)
    stream.run(slower(5), 100, 5)
    verdict = stream.verdict
    assert verdict.kind == "shift"
    assert 0.05 < verdict.number("theta") < 0.5
    assert verdict.extent == pytest.approx(verdict.number("theta"))
    assert theta((), [1.0]) is None


# ------------------------------------------------------------------------- rule: too fast is evidence


def test_answers_that_come_too_fast_are_evidence() -> None:
    stream = Stream(4)
    stream.run(healthy, 100, 40)
    stream.run(lambda _: (0.0005, OK), 100, 5)
    assert kinds(stream)[:2] == (State.DEGRADED, "too fast")
    assert "sooner than" in stream.verdict.because
    assert stream.run(healthy, 100, 20)[-1][1] is State.HEALTHY


def test_a_target_that_became_somewhat_faster_is_not_ill() -> None:
    stream = Stream(4)
    stream.run(healthy, 100, 40)
    assert stream.run(slower(0.7), 100, 30) == []


# ------------------------------------------------------ rule: overloaded is sticky through its collapse


def test_a_collapsed_queue_is_still_overloaded() -> None:
    stream = Stream(5)
    stream.run(healthy, 100, 40)
    stream.run(slower(6), 180, 4)
    assert stream.operation.state is State.OVERLOADED
    states = {state for _, state in stream.run(some(1.0, HUNG), 180, 5)}
    assert states <= {State.OVERLOADED}
    assert stream.operation.state is State.OVERLOADED


def test_silence_without_load_is_no_overload() -> None:
    stream = Stream(5)
    stream.run(healthy, 100, 40)
    stream.run(some(1.0, HUNG), 100, 4)
    assert stream.operation.state is State.UNRESPONSIVE


class Queue:
    """One server that is too slow for the calls that come: each waits for those before it."""

    def __init__(self, stream: Stream, seconds: float) -> None:
        self.stream = stream
        self.seconds = seconds
        self.free = 0.0

    def __call__(self, chance: random.Random) -> Answer:
        now = self.stream.now
        self.free = max(self.free, now) + self.seconds * chance.lognormvariate(0.0, 0.3)
        return self.free - now, OK


def test_a_queue_is_told_from_slowness_by_the_calls_in_flight() -> None:
    stream = Stream(6, timeout=5.0)
    stream.run(healthy, 50, 60)
    stream.run(
        Queue(stream, 0.025), 50, 8
    )  # as many calls as ever, for which it has become too small
    assert stream.operation.state is State.OVERLOADED
    assert "it is full" in stream.verdict.because


def test_ranks_and_their_correlation() -> None:
    assert ranks([3.0, 1.0, 3.0, 0.0]) == [2.5, 1.0, 2.5, 0.0]
    assert correlation([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) == pytest.approx(1.0)
    assert correlation([1.0, 1.0], [1.0, 2.0]) == 0.0


# ------------------------------------------------------------------------------------ whose calls


def test_a_label_that_has_the_bad_calls_is_named() -> None:
    found = split("backend", {"a": (30, 35), "b": (1, 40), "c": (0, 38)})
    assert found is not None
    assert found.values == ("a",)
    assert (found.bad, found.calls, found.other_bad, found.other_calls) == (30, 35, 1, 78)
    assert improbable({"a": (30, 35), "b": (1, 40)}) < 1e-6


@pytest.mark.parametrize(
    ("bad", "kind"),
    [(HUNG, "silent"), ((0.001, OutcomeClass.CONNECT), "refused"), ((0.3, OK), "tail")],
)
def test_the_backend_that_has_the_bad_calls_of_a_guard_is_named(bad: Answer, kind: str) -> None:
    stream = Stream(4)
    stream.run(healthy, 100, 30)
    stream.label = lambda: {"backend": f"10.0.0.{stream.chance.randrange(5)}:80", "zone": "a"}
    stream.run(healthy, 100, 5)
    stream.of["10.0.0.3:80"] = lambda _: bad
    stream.run(healthy, 100, 5)
    verdict = stream.verdict
    assert (verdict.state, verdict.kind) == (State.DEGRADED, kind)
    assert "; it is backend 10.0.0.3:80: " in verdict.because


def test_the_sharpest_label_is_named() -> None:
    stream = Stream(4)
    stream.run(healthy, 100, 30)

    def label() -> dict[str, str]:
        number = stream.chance.randrange(6)
        return {"backend": "a" if number < 4 else "b", "connection": str(number)}

    stream.label = label
    stream.of["2"] = lambda _: HUNG
    stream.run(healthy, 100, 5)
    assert "; it is connection 2: " in stream.verdict.because


def test_labels_that_tell_nothing_are_not_named() -> None:
    stream = Stream(4)
    stream.label = lambda: {"backend": str(stream.chance.randrange(5))}
    stream.run(healthy, 100, 30)
    stream.run(some(0.3, (0.01, FAIL)), 100, 5)
    assert stream.verdict.kind == "errors"
    assert "backend" not in stream.verdict.because


@pytest.mark.parametrize(
    "counts",
    [
        {"a": (10, 30), "b": (11, 32), "c": (9, 31)},  # all alike
        {"a": (3, 3), "b": (0, 5)},  # too few
        {"a": (20, 20)},  # one alone
        {},
    ],
)
def test_chance_is_not_named(counts: dict[str, tuple[int, int]]) -> None:
    assert split("backend", counts) is None


def seldom(seed: int, ill: bool) -> list[Record]:
    """Six observers of one target, each seldom; from 900 s on one operation hangs."""
    chance, told = random.Random(seed), []
    for observer in range(6):
        for operation, median in (("read", 0.01), ("write", 0.2)):
            now = 0.0
            while (now := now + chance.expovariate(0.15)) < 960.0:
                took = median * chance.lognormvariate(0.0, 0.4)
                hangs = ill and now > 900.0 and operation == "write"
                end = OutcomeClass.UNKNOWN if hangs else OK
                told.append(
                    Record(now, f"o{observer}", "db", operation, 3.0 if hangs else took, end)
                )
    return sorted(told)


def first_alarm(told: list[Record], by: str) -> tuple[float, Replay]:
    replay = Replay(Settings(deadline=3.0, by=by))
    changes = [change for one in told for change in replay.add(one)] + replay.end()
    ill = [one.t_seconds for one in changes if one.state not in {None, State.HEALTHY}]
    return (ill[0] if ill else float("inf")), replay


def test_seldom_calls_of_one_target_add_up() -> None:
    told = seldom(1, ill=True)
    at, replay = first_alarm(told, "target")
    assert 900.0 < at < 930.0
    because = replay._cases["db", ""].joint.verdict("db")[1].because
    assert "it is operation write" in because
    assert first_alarm(seldom(1, ill=False), "target")[0] == float("inf")


def test_calls_that_end_for_good_do_not_end_what_was_found_in_others() -> None:
    chance = random.Random(5)
    told = [
        Record(at / 10, "o", "db", operation, 0.01 * chance.lognormvariate(0.0, 0.4), end)
        for operation, until in (("read", 2000), ("write", 1000))
        for at in range(until)
        for end in (OutcomeClass.FAILURE if at > 900 else OK,)
    ]
    replay = Replay(Settings())
    changes = [one for each in sorted(told) for one in replay.add(each)] + replay.end()
    assert [one.state for one in changes] == [State.HEALTHY, State.DEGRADED]


# --------------------------------------------------------------------------------------- settings


def test_a_guard_takes_what_is_material_and_how_often_it_may_cry_wolf() -> None:
    Guard("material", dead_band=(1.0, 0.5), false_alarm_every=3600.0)
    target = Guard("material")._target
    assert target.dead_band == (1.0, 0.5)
    operation = target.operation("op", 0.0)
    assert operation.usual.dead_band == (1.0, 0.5)
    assert operation.judge.every == 3600.0
    assert isinstance(target, Target)


@pytest.mark.parametrize(
    "wrong",
    [{"dead_band": 0.25}, {"dead_band": (0.1,)}, {"dead_band": (-1, 0)}, {"false_alarm_every": 0}],
)
def test_what_can_not_be_material(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Guard("wrong", **wrong)  # type: ignore[arg-type]


def test_less_is_material_where_somebody_says_so() -> None:
    strict, lax = Settings(dead_band=(0.25, 0.001)), Settings(dead_band=(4.0, 1.0))
    chance, told, now = random.Random(7), [], 0.0
    while (now := now + chance.expovariate(50)) < 100.0:
        took = 0.02 * chance.lognormvariate(0.0, 0.3) * (2.5 if now > 80.0 else 1.0)
        told.append(Record(now, "o", "db", "read", took, OK))
    found = []
    for settings in (strict, lax):
        replay = Replay(settings)
        changes = [change for one in told for change in replay.add(one)] + replay.end()
        found.append(any(one.state is State.DEGRADED for one in changes))
    assert found == [True, False]
