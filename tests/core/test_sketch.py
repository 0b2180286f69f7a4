"""The latency sketch: error bound, exact merge, and quantiles that a hang can't hide from."""

from __future__ import annotations

from math import ceil, inf, isinf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brownout._core.sketch import BUCKETS, Sketch, bucket, middle

latencies = st.floats(min_value=1e-5, max_value=120.0)


def sketch_of(answered: list[float], censored: list[float] | None = None) -> Sketch:
    sketch = Sketch()
    for seconds in answered:
        sketch.add(seconds)
    for seconds in censored or []:
        sketch.add(seconds, censored=True)
    return sketch


@given(latencies)
def test_a_latency_is_known_to_five_percent(seconds: float) -> None:
    assert abs(middle(bucket(seconds)) - seconds) <= 0.05 * seconds


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-9])
def test_what_is_too_small_lands_in_the_first_bucket(seconds: float) -> None:
    assert bucket(seconds) == 0


def test_what_is_too_large_lands_in_the_last_bucket() -> None:
    assert bucket(1e9) == BUCKETS - 1


@given(st.lists(latencies, min_size=1, max_size=200), st.floats(min_value=0.0, max_value=1.0))
def test_quantiles_are_within_the_bucket(values: list[float], share: float) -> None:
    ordered = sorted(values)
    index = max(0, ceil(share * len(values) - 1e-9) - 1)
    assert sketch_of(values).quantile(share) == pytest.approx(ordered[index], rel=0.05)


@given(st.lists(latencies, max_size=50), st.lists(latencies, max_size=50), st.lists(latencies))
def test_merge_is_exact_and_commutes(a: list[float], b: list[float], c: list[float]) -> None:
    one, other = sketch_of(a, c), sketch_of(b)
    one.merge(other)
    back = sketch_of(b)
    back.merge(sketch_of(a, c))
    assert one.pairs() == back.pairs() == sketch_of(a + b, c).pairs()


def test_callers_who_gave_up_do_not_make_a_target_look_fast() -> None:
    sketch = sketch_of([0.01] * 60, [0.5] * 40)  # 40 of 100 left after half a second
    assert sketch.quantile(0.5) == pytest.approx(0.01, rel=0.05)
    assert isinf(sketch.quantile(0.99))


def test_who_left_early_weighs_only_as_long_as_it_waited() -> None:
    sketch = sketch_of([0.02] * 100, [0.001] * 900)  # impatient callers of a healthy target
    assert sketch.quantile(0.99) == pytest.approx(0.02, rel=0.05)


def test_empty_is_zero_and_all_censored_is_never() -> None:
    assert Sketch().quantile(0.5) == 0.0
    assert sketch_of([], [1.0]).quantile(0.5) == inf


def test_halving_keeps_the_shape() -> None:
    sketch = sketch_of([0.01] * 100 + [0.1] * 10)
    sketch.halve()
    assert sketch.count == 55
