"""guard.per(part): guards of the parts of a target, any number of them, of which a bounded number is kept."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest

from brownout import ConfigurationError, Guard, LimitReached, Retry, _guard, states

if TYPE_CHECKING:
    from brownout.testing import FakeClock


def work() -> None:
    pass


def hold(attempt: Any) -> Any:
    return attempt.hold()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(_guard, "MOST_TARGETS", 4)
    return 4


def names() -> list[str]:
    return [target.name for target in _guard.targets()]


def test_a_part_has_the_same_policy_and_all_else_its_own() -> None:
    guard = Guard("shop", timeout=0.5, limit=1, retry=Retry(attempts=2), idempotent=True)
    one, other = guard.per("a"), guard.per("b")
    assert one is guard.per("a")
    assert one is not other
    assert one.policy.target == "shop/a"
    assert one.policy.retry == guard.policy.retry
    assert (one.policy.timeout, one.policy.limit, one.policy.idempotent) == (0.5, 1, True)
    with one.attempt():
        with pytest.raises(LimitReached):
            one.call(work)
        other.call(work)
        guard.call(work)
    assert names() == ["shop", "shop/a", "shop/b"]
    assert [seen.target for seen in states()] == ["shop", "shop/a", "shop/b"]


def test_guards_of_one_name_share_the_parts_evidence_and_keep_their_policies() -> None:
    one, other = Guard("shop", limit=1), Guard("shop", limit=2)
    assert one.per("a") is not other.per("a")
    assert one.per("a")._target is other.per("a")._target
    assert other.per("a").policy.limit == 2


def test_a_part_must_be_part_of_a_name() -> None:
    with pytest.raises(ConfigurationError, match="must not be a URL"):
        Guard("shop").per("user:password@host")
    assert names() == ["shop"]


def test_the_part_asked_for_longest_ago_is_dropped(few: int) -> None:
    guard = Guard("shop")
    for part in "abc":
        guard.per(part).call(work)
    guard.per("a")
    guard.per("d")
    assert names() == ["shop", "shop/a", "shop/c", "shop/d"]
    assert len(names()) == few
    assert guard._target.name in names()


@pytest.mark.usefixtures("few")
def test_none_with_calls_in_flight_is_dropped() -> None:
    guard = Guard("shop", limit=3)
    held = guard.per("a").call(hold, with_attempt=True)
    with guard.per("b").attempt():
        guard.per("c")
        guard.per("d")
        assert names() == ["shop", "shop/a", "shop/b", "shop/d"]
        with guard.per("d").attempt():
            assert guard.per("e") is guard  # no room: it lands in the whole, and is seen there
            assert names() == ["shop", "shop/a", "shop/b", "shop/d"]
    held.end()
    guard.per("e")
    assert names() == ["shop", "shop/b", "shop/d", "shop/e"]


@pytest.mark.usefixtures("few")
def test_what_is_held_past_its_deadline_is_not_in_flight(clock: FakeClock) -> None:
    guard = Guard("shop", timeout=1.0)
    held = [guard.per(part).call(hold, with_attempt=True) for part in "abc"]
    assert guard.per("d") is guard
    clock.advance(1.5)
    assert guard.per("d") is not guard
    del held


@pytest.mark.usefixtures("few")
def test_a_target_with_a_guard_of_its_own_stays() -> None:
    guard = Guard("shop")
    guard.per("a")
    own = Guard("shop/a")
    for part in "bcdefg":
        guard.per(part)
    assert names() == ["shop", "shop/a", "shop/f", "shop/g"]
    assert guard.per("a")._target is own._target
    other = Guard("other")  # a part makes room for it
    assert other._target.name in names()
    Guard("third")
    with pytest.raises(ConfigurationError, match="more than 4 targets"):
        Guard("fourth")


@pytest.mark.alone  # it counts what is in memory
def test_ten_thousand_hosts_leave_a_bounded_number() -> None:
    kinds = ("Target", "Operation", "Evidence", "Judge", "Core", "_PartGuard")
    gc.collect()
    before = Counter(type(one).__name__ for one in gc.get_objects())  # other tests' own
    guard = Guard("web", limit=2)

    for n in range(10_000):
        guard.per(f"host-{n}").call(work)
    assert len(names()) == _guard.MOST_TARGETS
    assert "web" in names()
    assert "web/host-9999" in names()
    assert "web/host-0" not in names()
    gc.collect()
    kept = Counter(type(one).__name__ for one in gc.get_objects())
    for kind in kinds:
        assert 1000 - before[kind] < kept[kind] - before[kind] <= _guard.MOST_TARGETS, kind


def test_threads_that_ask_at_once_get_one_guard() -> None:
    guard = Guard("shop", limit=1)
    barrier = threading.Barrier(8)
    got: list[Guard] = []

    def ask(part: str) -> None:
        barrier.wait(5.0)
        got.append(guard.per(part))

    for n in range(20):
        got.clear()
        threads = [threading.Thread(target=ask, args=(f"p{n}",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5.0)
        assert len(got) == 8
        assert all(one is got[0] for one in got)


def test_the_parts_of_a_guard_that_is_gone_go_too() -> None:
    guard = Guard("shop", timeout=1.0)
    part = ref(guard.per("a"))
    assert part() is not None
    del guard
    gc.collect()
    assert part() is None
