"""Packets that are late, lost or few: what the link does is what was asked for."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import pytest

from brownout.errors import ConfigurationError
from brownout.fault import (
    Amount,
    Bandwidth,
    Cut,
    Fault,
    Latency,
    Loss,
    Partition,
    SlowHandshake,
)
from tests.faults.zone import caller

if TYPE_CHECKING:
    from tests.faults.zone.conftest import Ground

pytestmark = pytest.mark.alone


def test_latency_is_as_long_as_asked(ground: Ground) -> None:
    ground.a.run(caller.connect, "raw", ground.host)
    bare = median(ground.a.run(caller.turns, 50))
    with ground.zones.between("a", "shared").make(Latency(seconds=0.02)):
        took = ground.a.run(caller.turns, 25)
    assert took[0] >= 0.04  # both ways
    assert (
        median(took) < 0.04 + bare + 0.02
    )  # the machine may be busy; bench/zone.py has the figures
    assert median(ground.a.run(caller.turns, 25)) < 0.02


def test_latency_of_one_direction(ground: Ground) -> None:
    ground.a.run(caller.connect, "raw", ground.host)
    with ground.zones.between("a", "shared").make(Latency(seconds=0.03, stream="downstream")):
        took = ground.a.run(caller.turns, 10)
    assert took[0] >= 0.03
    assert median(took) < 0.055


def test_latency_with_jitter_is_drawn_by_the_seed_and_keeps_the_order(ground: Ground) -> None:
    link = ground.zones.between("a", f"shared:{caller.LINES}")
    fault = Latency(seconds=Amount(0.01, 0.008), stream="upstream")
    waits: list[list[float]] = []
    for _ in range(2):
        with link.make(fault, name="jitter") as made:
            ground.a.run(caller.connect, "raw", ground.host)
            ground.a.run(caller.turns, 10)
            waits.append([one.amount for one in made.log if one.what == "delayed"][:8])
    assert waits[0] != sorted(waits[0])
    assert all(0.002 <= wait < 0.1 for wait in waits[0])
    assert waits[0][0] == pytest.approx(waits[1][0], abs=1e-6)  # alone on the link: as drawn


def test_a_slow_handshake_is_slow_once(ground: Ground) -> None:
    ground.a.run(caller.connect, "raw", ground.host)
    with ground.zones.between("a", "shared").make(SlowHandshake(seconds=0.4)):
        assert 0.4 <= ground.a.run(caller.connect_seconds, ground.host) < 0.8
        assert median(ground.a.run(caller.turns, 20)) < 0.1
    assert ground.a.run(caller.connect_seconds, ground.host) < 0.3


def test_lost_packets_are_sent_again_late(ground: Ground) -> None:
    ground.a.run(caller.connect, "raw", ground.host)
    with ground.zones.between("a", "shared").make(Loss(nth=8)) as made:
        took = ground.a.run(caller.turns, 40)
        lost = [one for one in made.log if one.what == "dropped"]
    assert median(took) < 0.1
    assert took[-1] >= 0.15  # TCP's shortest time-out is 0.2 s
    assert {one.request % 8 for one in lost} == {0}


def test_the_share_of_lost_packets(ground: Ground) -> None:
    service = ground.zones.between("a", f"shared:{caller.DATAGRAMS}")
    with service.make(Loss(share=0.3)) as made:
        asked = 60
        calls = [ground.a.submit(caller.datagram, ground.host, "get", 2.0) for _ in range(asked)]
        answers = [call.result(10) for call in calls]
        lost = sum(one.what == "dropped" for one in made.log)
    missed = sum(answer.startswith("TimeoutError") for answer in answers)
    assert missed == lost  # whichever way it went
    assert 0.3 < missed / asked < 0.7  # 1 - 0.7 x 0.7 = 0.51 of the exchanges; the seed fixes it


def test_bandwidth(ground: Ground) -> None:
    assert ground.a.run(caller.download, ground.host, 5_000_000) > 20e6
    with ground.zones.between("a", "shared").make(Bandwidth(bytes_per_second=1e6)):
        assert 0.6e6 < ground.a.run(caller.download, ground.host, 1_000_000) < 1.6e6


def test_what_waits_is_handed_on_when_the_fault_is_undone(ground: Ground) -> None:
    """A datagram, which nobody sends again."""
    service = ground.zones.between("a", f"shared:{caller.DATAGRAMS}")
    made = service.make(Latency(seconds=40, stream="downstream"))
    answer = ground.a.submit(caller.datagram, ground.host, "get", 20.0)
    while "delayed" not in [one.what for one in made.log]:
        assert not answer.done()
    made.undo()
    assert answer.result(30).startswith("ok")


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Cut(), "no fault of a link"),
        (Latency(seconds=1, per="request"), "per, match and client"),
        (Partition(match="GET"), "per, match and client"),
        (Loss(client="127.0.0.1"), "per, match and client"),
    ],
)
def test_what_a_link_can_not_do_is_refused(fault: Fault, why: str, ground: Ground) -> None:
    with pytest.raises(ConfigurationError, match=why):
        ground.zones.between("a", "shared").make(fault)


def test_partition_says_all_that_is_wrong() -> None:
    with pytest.raises(ConfigurationError, match=r"how='burn'.*connections='some'"):
        Partition(how="burn", connections="some")  # type: ignore[arg-type]
