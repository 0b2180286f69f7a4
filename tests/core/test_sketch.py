"""The latency sketch: error bound, exact merge, and quantiles that a hang can't hide from."""

from __future__ import annotations

import sys
from array import array
from math import ceil, exp2, floor, inf, isinf, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brownout._core import sketch as module
from brownout._core.sketch import (
    BUCKETS,
    HALF,
    LONGEST,
    MOST,
    SCALE,
    TINY,
    Sketch,
    bucket,
    lanes,
    middle,
    unpack,
    zeros,
)  # fmt: skip

latencies = st.floats(min_value=TINY, max_value=255.0)
long_ones = st.floats(min_value=0.0, max_value=1e30)  # so that scales differ
samples = st.lists(st.tuples(long_ones, st.booleans()), max_size=30)


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


def told(*parts: list[tuple[float, bool]]) -> Sketch:
    """A sketch of all the samples, merged from one sketch for each part."""
    whole = Sketch()
    for part in parts:
        one = Sketch()
        for seconds, censored in part:
            one.add(seconds, censored=censored)
        whole.merge(one)
    return whole


@given(samples, samples, samples)
def test_merge_is_exact_commutes_and_associates(
    a: list[tuple[float, bool]], b: list[tuple[float, bool]], c: list[tuple[float, bool]]
) -> None:
    ab, bc = told(a, b), told(b, c)
    ab.merge(told(c))
    left = told(a)
    left.merge(bc)
    for one in (ab, left, told(c, b, a), told(a + b + c)):
        assert one.told() == told(b, a, c).told()
    assert ab.count == len(a + b + c)


@given(samples, samples)
def test_a_merged_sketch_knows_each_latency_within_its_scale(
    a: list[tuple[float, bool]], b: list[tuple[float, bool]]
) -> None:
    values = sorted(max(seconds, TINY) for seconds, censored in a + b if not censored)
    merged = told(a, b)
    if values and not any(censored for _, censored in a + b):
        error = exp2(0.5 / 2**merged.scale) - 1
        for share in (0.0, 0.5, 0.99, 1.0):
            exact = values[max(0, ceil(share * len(values) - 1e-9) - 1)]
            assert merged.quantile(share) == pytest.approx(exact, rel=error + 1e-9)


def test_a_longer_latency_is_not_clamped_but_makes_the_buckets_wider() -> None:
    sketch = sketch_of([0.001, 0.1, 250.0])
    assert sketch.scale == SCALE
    sketch.add(3600.0)
    assert sketch.scale == SCALE - 1
    assert sketch.quantile(1.0) == pytest.approx(3600.0, rel=0.1)
    assert sketch.quantile(0.5) == pytest.approx(0.1, rel=0.1)
    sketch.add(inf)
    assert (sketch.scale, sketch.count) == (0, 5)
    assert sketch.quantile(1.0) >= LONGEST


@given(st.integers(0, 20), st.floats(min_value=TINY, max_value=1e6))
def test_a_bucket_of_another_scale_finds_its_place(scale: int, seconds: float) -> None:
    sketch = Sketch()
    sketch.put(floor(log2(seconds) * 2**scale), scale, 2, 0)
    assert sketch.scale <= min(scale, SCALE)
    assert sketch.count == 2
    error = exp2(1 / 2**sketch.scale) - 1
    assert sketch.quantile(0.5) == pytest.approx(seconds, rel=error + 1e-9)
    again = Sketch()
    again.hear(sketch.told())
    assert again.told() == sketch.told()


@pytest.mark.parametrize(("index", "scale"), [(0, -1), (0, 21), (10_000, 3)])
def test_a_bucket_that_no_latency_has_is_refused(index: int, scale: int) -> None:
    with pytest.raises(ValueError, match="no bucket"):
        Sketch().put(index, scale, 1, 0)


def test_a_count_beyond_32_bits_is_not_lost() -> None:
    sketch = Sketch()
    assert sketch.answered.itemsize == 4
    sketch.put(0, SCALE, MOST, 0)
    other = Sketch()
    other.merge(sketch)
    other.merge(sketch)
    sketch.add(1.0)
    assert (sketch.count, other.count) == (MOST + 1, 2 * MOST)


@given(st.lists(st.lists(st.integers(0, MOST), min_size=BUCKETS, max_size=BUCKETS), max_size=3))
def test_lanes_add_up_without_an_overflow(many: list[list[int]]) -> None:
    wide = sum(lanes(array("I", counts)) for counts in many)
    sums = [sum(column) for column in zip(*many, strict=True)]
    assert unpack(wide) == [(index, count) for index, count in enumerate(sums) if count]


def test_lanes_are_the_same_under_the_other_byte_order(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = array("I", range(BUCKETS))
    swapped = array("I", counts)
    swapped.byteswap()
    little = sys.byteorder == "little"
    monkeypatch.setattr(module, "byteorder", "big" if little else "little")
    told = array("Q", lanes(swapped).to_bytes(8 * BUCKETS, "big" if little else "little"))
    told.byteswap()
    assert list(told[: BUCKETS // 2]) == list(range(0, BUCKETS, 2))
    assert list(told[BUCKETS // 2 :]) == list(range(1, BUCKETS, 2))


def test_lanes_tell_when_a_count_is_half_full() -> None:
    for index in (0, 1, BUCKETS - 1):
        counts = zeros()
        counts[index] = 2**31 - 1
        assert not lanes(counts) & HALF
        counts[index] += 1
        assert lanes(counts) & HALF


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
