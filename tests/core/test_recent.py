"""The latest calls, by half seconds."""

from __future__ import annotations

import pytest

from brownout import OutcomeClass
from brownout._core.baseline import cold
from brownout._core.cell import CLASSES, Tick
from brownout._core.recent import SPANS, Latest, Recent
from brownout._core.sketch import bucket

BASE = cold(1.0)


def tick(at: float, *, ages: list[float] | None = None, **classes: int) -> Tick:
    counts = [0] * CLASSES
    for name, count in classes.items():
        counts[OutcomeClass[name]] = count
    answered = [(bucket(0.01), counts[OutcomeClass.SUCCESS])]
    gone = [(bucket(1.0), counts[OutcomeClass.UNKNOWN])]
    waiting = [bucket(age) for age in ages or []]
    return Tick(at, 0.1, sum(counts), counts, answered, gone, waiting, 0, 0.0)


def told(latest: Latest, now: float) -> dict[float, tuple[int, int]]:
    return {seconds: (bad, calls) for seconds, bad, calls in latest.told(now)}


def test_each_span_has_what_came_in_it() -> None:
    latest = Latest()
    latest.add(tick(100.0, SUCCESS=50), BASE)
    latest.add(tick(110.0, FAILURE=3, CONNECT=1, OVERLOAD=1, SUCCESS=5), BASE)
    assert told(latest, 110.1) == {
        0.5: (5, 10), 1.0: (5, 10), 2.0: (5, 10), 4.0: (5, 10), 8.0: (5, 10), 16.0: (5, 60), 30.0: (5, 60),
    }  # fmt: skip
    assert told(latest, 113.0)[2.0] == (0, 0)
    assert told(latest, 113.0)[4.0] == (5, 10)
    assert told(latest, 500.0)[30.0] == (0, 0)


def test_silence_is_bad_once_and_what_waits_long_too() -> None:
    latest = Latest()
    latest.add(tick(10.0, UNKNOWN=4, LOCAL=9, ages=[2.0, 0.001]), BASE)
    assert told(latest, 10.0)[0.5] == (5, 5)


@pytest.mark.parametrize("now", [0.0, 1.0, 1e9])
def test_without_calls_there_are_none(now: float) -> None:
    assert Latest().told(now) == tuple(Recent(span, 0, 0) for span in SPANS)
