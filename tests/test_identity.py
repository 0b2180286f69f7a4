"""Guards of one name are one target's; what is made anew, also by a reload, leaves nothing of the old."""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
import threading
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest

from brownout import Breaker, Guard, Retry, _guard, _watch, on_change, watch
from tests.seen import LIMIT_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

OURS = {
    "AttemptBlock", "Attempt", "Breaker", "Budget", "Cell", "Core", "Evidence", "Gate", "Guard", "Judge",
    "Limit", "Operation", "Policy", "Retry", "Shard", "Target", "Usual", "_Health", "_PartGuard", "_Wheel",
}  # fmt: skip


def kept() -> Counter[str]:
    gc.collect()
    return Counter(type(one).__name__ for one in gc.get_objects() if type(one).__name__ in OURS)


def sources() -> int:
    """What the library keeps by name or by number, all added up."""
    gates = [op.gates for target in _guard.targets() for op in target.operations.values()]
    return sum(
        map(
            len,
            (_guard.targets(), _guard._cores, _watch._judging.listeners, _watch._health, *gates),
        )
    ) + sum(map(len, _watch._asked.values()))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "HEALTH_SECONDS", 0.02)
    monkeypatch.setattr(_watch, "HEALTH_TIMEOUT_SECONDS", 0.05)


def work() -> str:
    return "ok"


async def awork() -> str:
    return "ok"


def build(*, and_call: bool) -> None:
    guard = Guard(
        "shop",
        timeout=5.0,
        retry=Retry(),
        breaker=Breaker(),
        limit=2,
        health=lambda: True,
        fallback=lambda: "",
    )
    guarded, aguarded = guard(work), guard(awork)
    if and_call:
        guarded()
        asyncio.run(aguarded())
        with guard.attempt():
            pass


@pytest.mark.usefixtures("asked")
@pytest.mark.alone  # it weighs what is in memory
@pytest.mark.parametrize(("times", "and_call"), [(10_000, False), (1000, True)])
def test_guards_made_anew_leave_nothing(times: int, and_call: bool) -> None:
    watch()
    for _ in range(100):
        build(and_call=and_call)
    before, known, threads = kept(), sources(), threading.active_count()
    tracemalloc.start()
    try:
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
        for _ in range(times):
            build(and_call=and_call)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - size
    finally:
        tracemalloc.stop()
    after = kept()
    before["Cell"] = after["Cell"] = 0  # the window moves on meanwhile
    assert not {kind: after[kind] - before[kind] for kind in OURS if after[kind] > before[kind] + 1}
    assert sources() <= known + 1
    assert threading.active_count() <= threads + 1
    assert grown < 1_000_000  # the window and what is learned fill up meanwhile; one guard has 3 kB


MODULE = """
from brownout import Guard, Retry, on_change

HEALTHY = {healthy}
shop = Guard("shop", timeout=5.0, retry=Retry(), limit=2, health=lambda: HEALTHY)
part = shop.per("host")

@shop
def work():
    return {round}

@shop
async def awork():
    return {round}

told = []

@on_change
def listen(change):
    told.append(change)

class Alerts:
    @staticmethod
    @on_change
    def hear(change):
        told.append(change)
"""


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Callable[[int], ModuleType]]:
    path, name = tmp_path / "shop_module.py", "shop_module"
    sys.path.insert(0, str(tmp_path))

    def load(round_: int, *, healthy: bool = True) -> ModuleType:
        path.write_text(
            MODULE.format(round=round_, healthy=healthy) + "#" * round_
        )  # its size is new
        importlib.invalidate_caches()
        if name in sys.modules:
            return importlib.reload(sys.modules[name])
        return importlib.import_module(name)

    try:
        yield load
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("asked")
def test_a_module_that_is_loaded_again_leaves_nothing_of_the_old(
    module: Callable[..., Any],
) -> None:
    watch()

    def round_(n: int) -> None:
        loaded = module(n)
        assert loaded.work() == n
        assert asyncio.run(loaded.awork()) == n
        loaded.part.call(work)

    for n in range(5):
        round_(n)
    before, known, threads = kept(), sources(), threading.active_count()
    evidence = _guard.targets()[0].operations["work"].evidence
    for n in range(5, 60):
        round_(n)
    after = kept()
    before["Cell"] = after["Cell"] = 0
    assert not {kind: after[kind] - before[kind] for kind in OURS if after[kind] > before[kind] + 1}
    assert sources() <= known + 1
    assert threading.active_count() <= threads + 1
    assert len(_watch._judging.listeners) == 2
    # ... but for what is known of the target.
    assert [target.name for target in _guard.targets()] == ["shop", "shop/host"]
    assert _guard.targets()[0].operations["work"].evidence is evidence
    assert evidence.calls == 60


@pytest.mark.usefixtures("asked")
def test_after_a_reload_the_new_health_check_and_listener_are_asked(
    module: Callable[..., Any],
) -> None:
    watch()
    loaded = module(0)
    until(lambda: loaded.shop.verdict.claim is True)
    old = loaded.listen
    loaded = module(1, healthy=False)
    until(lambda: loaded.shop.verdict.claim is False)
    assert loaded.listen in _watch._judging.listeners
    assert old not in _watch._judging.listeners


def test_listeners_that_only_look_alike_are_all_told() -> None:
    def make() -> Callable[[object], None]:
        return lambda _: None

    first, second = make(), make()
    assert first.__qualname__ == second.__qualname__
    assert on_change(first) is first
    assert on_change(second) is second
    assert _watch._judging.listeners == [first, second]
    on_change(first)
    assert _watch._judging.listeners == [first, second]


# ------------------------------------------------------------------------- two guards, two health checks


@pytest.mark.usefixtures("asked")
def test_of_two_health_checks_the_newest_that_is_in_use_is_asked() -> None:
    watch()
    plain = Guard("shop")  # has nothing to say about it
    guards = [Guard("shop", health=lambda: True)]
    until(lambda: plain.verdict.claim is True)
    guards.append(Guard("shop", health=lambda: False))
    until(lambda: plain.verdict.claim is False)
    guards.pop()
    until(lambda: plain.verdict.claim is True)
    guards.pop()
    until(lambda: plain.verdict.claim is None)
    until(lambda: not _watch._health)
    again = Guard("shop", health=lambda: True)
    until(lambda: again.verdict.claim is True)


@pytest.mark.usefixtures("asked")
def test_a_function_that_is_still_guarded_keeps_its_health_check() -> None:
    guarded = Guard("shop", health=lambda: True)(work)
    gc.collect()
    watch()
    until(lambda: _guard.targets()[0].claim is not None)
    assert guarded() == "ok"


@pytest.mark.usefixtures("asked")
def test_a_health_check_that_hangs_does_not_keep_the_new_one_from_being_asked() -> None:
    go, asked = threading.Event(), threading.Event()

    def hang() -> bool:
        asked.set()
        return go.wait(30.0)

    watch()
    old = Guard("shop", health=hang)
    try:
        assert asked.wait(LIMIT_SECONDS)
        until(lambda: old.verdict.claim is False)
        new = Guard("shop", health=lambda: True)
        until(lambda: new.verdict.claim is True)
        with _watch._lock:
            late = [t for t in threading.enumerate() if t.name == "brownout-health-shop"]
        assert len(late) == 2
        new_claim = Guard("shop", health=lambda: False)
        until(lambda: new_claim.verdict.claim is False)
        go.set()  # what it says now, nobody asks any more
        until(lambda: sum(t.is_alive() for t in late) == 1)
        assert new.verdict.claim is False
    finally:
        go.set()


def test_a_health_check_that_knows_its_guard_does_not_keep_it() -> None:
    class Shop:
        def __init__(self) -> None:
            self.guard = Guard("shop", health=self.well)

        def well(self) -> bool:
            return True

    shop = Shop()
    guard = ref(shop.guard)
    del shop
    gc.collect()
    assert guard() is None


def test_a_part_does_not_ask_the_health_check_of_the_whole() -> None:
    guard = Guard("shop", health="http://user:secret@shop/health")
    guard.per("a")
    assert list(_watch._asked) == ["shop"]
    assert "secret" not in repr(guard.policy)
