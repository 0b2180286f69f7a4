"""A cache split between two zones: half of the clients reach it, half do not, and it is well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brownout.fault import Partition
from tests.faults.zone import caller

if TYPE_CHECKING:
    from tests.faults.zone.conftest import Ground

CLIENTS = 8


def test_half_of_the_clients_reach_the_cache(ground: Ground, cache: str) -> None:
    def ask() -> list[bool]:
        """Of so many clients at the same time, half of them in each zone: who got an answer."""
        calls = [
            (ground.a, ground.b)[client % 2].submit(caller.on_new, "redis", cache, "incr")
            for client in range(CLIENTS)
        ]
        return [call.result(10).startswith("ok") for call in calls]

    def claim() -> str:
        """What the cache says of itself, asked in its own zone."""
        with ground.zones["shared"].worker() as worker:
            return worker.run(caller.on_new, "redis", cache)

    assert ask() == [True] * CLIENTS
    before = int(claim().removeprefix("ok "))
    with ground.zones.between("a", f"shared:{caller.CACHE}").make(Partition()) as made:
        assert ask() == [False, True] * (CLIENTS // 2)
        assert claim() == f"ok {before + CLIENTS // 2}"
        assert len({one.connection for one in made.log if one.what == "hit"}) >= CLIENTS // 2
    assert ask() == [True] * CLIENTS


def test_each_loses_the_other_and_both_reach_the_third(ground: Ground) -> None:
    from tests.faults.zone.conftest import serve

    inside_b = serve(ground.zones, "b")
    assert ground.a.run(caller.on_new, "raw", inside_b).startswith("ok")
    with ground.zones.between("a", "b").make(Partition()):
        assert ground.a.run(caller.on_new, "raw", inside_b) == "TimeoutError: timed out"
        assert ground.a.run(caller.on_new, "raw", ground.host).startswith("ok")
        assert ground.b.run(caller.on_new, "raw", ground.host).startswith("ok")
