"""The lag as a reckoning: positions of an original, and what a copy holds of them."""

from __future__ import annotations

import itertools
import time

import pytest

from brownout._core.history import History
from brownout.errors import ConfigurationError
from brownout.fault import Lag


def test_a_copy_is_behind_since_the_first_position_that_it_lacks() -> None:
    history = History()
    assert history.behind_since(0) is None
    for at, position in [(1.0, 10), (2.0, 10), (3.0, 12), (4.0, 15), (5.0, 15)]:
        history.note(at, position)
    assert history.behind_since(9) == 1.0
    assert history.behind_since(10) == 3.0
    assert history.behind_since(11) == 3.0
    assert history.behind_since(12) == 4.0
    assert history.behind_since(15) is None
    assert history.behind_since(16) is None
    assert (history.newest, history.seen_at) == (15, 5.0)
    history.note(6.0, 16)
    assert history.behind_since(15) == 6.0


def test_a_new_original_begins_anew() -> None:
    history = History()
    history.note(1.0, 100)
    history.note(2.0, 5)
    assert history.behind_since(5) is None
    assert history.behind_since(4) == 2.0


@pytest.mark.parametrize("held", [0, 1, 7, 50, 333, 998, 999, 1000])
def test_a_full_history_is_coarse_and_never_too_fresh(held: int) -> None:
    history = History(kept=64)
    for n in range(1, 1001):
        history.note(float(n), n)  # at second n, position n
    assert 16 <= len(history._positions) <= 64
    since = history.behind_since(held)
    truth = float(held + 1) if held < 1000 else None
    if truth is None:
        assert since is None
    else:
        assert since is not None
        assert truth - 4 * 1000 / 64 <= since <= truth


def test_the_answer_needs_no_sampler_to_be_in_time() -> None:
    at = {"original": 1, "copy": 1}
    with Lag(lambda: at["original"], lambda: at["copy"], every=60) as lag:
        assert lag.seconds_behind() == 0
        at["original"] = 2
        began = time.monotonic()
        assert lag.seconds_behind() < 5
        time.sleep(0.05)
        assert 0.05 <= lag.seconds_behind() <= time.monotonic() - began + 1e-6
        at["copy"] = 2
        assert lag.seconds_behind() == 0


def test_an_original_that_is_silent_makes_what_was_last_known_older() -> None:
    gone: list[int] = []

    def original() -> int:
        if gone:
            raise ConnectionRefusedError
        return 7

    with Lag(original, lambda: 7, every=60) as lag:
        began = time.monotonic()
        assert lag.seconds_behind() == 0
        gone.append(1)
        time.sleep(0.05)
        assert 0.05 <= lag.seconds_behind() <= time.monotonic() - began + 1e-6
        with pytest.raises(ConnectionRefusedError):
            lag.fence()
        assert lag.fence(7) < 1
        gone.clear()
        assert lag.seconds_behind() == 0


def test_a_fence_waits_for_the_position() -> None:
    counter = itertools.count()
    with Lag(lambda: 50, lambda: next(counter), every=60) as lag:
        lag.fence(20, seconds=10)
        assert next(counter) == 21
        lag.fence(seconds=10)
        assert next(counter) == 51


def test_a_fence_says_how_far_the_copy_is() -> None:
    with (
        Lag(lambda: 50, lambda: 20, every=60) as lag,
        pytest.raises(TimeoutError, match=r"at 20 and not at 50 after .* Read from the original"),
    ):
        lag.fence(seconds=0.02)


def test_it_is_closed_with_its_thread() -> None:
    with Lag(lambda: 1, lambda: 1) as lag:
        assert lag._thread.is_alive()
    assert not lag._thread.is_alive()


@pytest.mark.parametrize("every", [0, -1, float("nan"), float("inf")])
def test_every(every: float) -> None:
    with pytest.raises(ConfigurationError, match="every="):
        Lag(lambda: 1, lambda: 1, every=every)
