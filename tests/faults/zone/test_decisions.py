"""What a fault of a link decides, told the instant: no zones, no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from brownout.fault import (
    Amount,
    Bandwidth,
    Fault,
    Latency,
    Loss,
    Partition,
    Schedule,
    SlowHandshake,
)
from brownout.fault.zone import link
from brownout.fault.zone.packet import TCP, UDP, Packet

if TYPE_CHECKING:
    from brownout.fault.zone.link import Acting

SYN, ACK = 2, 16


def acting(fault: Fault, *, seed: int = 1, port: int = 0) -> Acting:
    link.check(fault)
    return link.acting("it", fault, seed=seed, since=0.0, port=port)


def up(client: int = 5000, *, flags: int = ACK, size: int = 100, port: int = 80) -> Packet:
    return Packet(TCP, client, port, flags, size)


def down(client: int = 5000, *, flags: int = ACK, size: int = 100, port: int = 80) -> Packet:
    return Packet(TCP, port, client, flags, size)


def test_one_stream() -> None:
    one = acting(Partition(stream="downstream"))
    assert one.after(up(), 1.0, upstream=True) == 1.0
    assert one.after(down(), 1.0, upstream=False) is None
    assert acting(Partition(how="refuse")).after(up(), 1.0, upstream=True) == link.REFUSED


def test_one_service() -> None:
    one = acting(Partition(), port=80)
    assert one.after(up(), 1.0, upstream=True) is None
    assert one.after(down(), 1.0, upstream=False) is None
    assert one.after(up(port=81), 1.0, upstream=True) == 1.0
    assert one.after(up(80, port=81), 1.0, upstream=True) == 1.0  # its client's port is no service


def test_new_connections_alone() -> None:
    one = acting(Partition(connections="new"))
    assert one.after(up(flags=SYN), 1.0, upstream=True) is None
    assert one.after(down(flags=SYN | ACK), 1.0, upstream=False) == 1.0
    assert one.after(up(), 1.0, upstream=True) == 1.0
    assert one.after(Packet(UDP, 5000, 80, 0, 100), 1.0, upstream=True) == 1.0


def test_a_share_is_of_connections_and_the_same_for_both_streams() -> None:
    one, again = acting(Partition(share=0.5)), acting(Partition(share=0.5))
    lost = [one.after(up(client), 1.0, upstream=True) is None for client in range(1000, 1200)]
    assert 70 < sum(lost) < 130
    assert lost == [
        one.after(down(client), 2.0, upstream=False) is None for client in range(1000, 1200)
    ]
    assert lost == [
        again.after(up(client), 9.0, upstream=True) is None for client in range(2000, 2200)
    ]


def test_a_schedule() -> None:
    one = acting(Partition(schedule=Schedule(start=10, on=1, off=1)))
    lost = [one.after(up(), at, upstream=True) is None for at in (9.5, 10.5, 11.5, 12.5)]
    assert lost == [False, True, False, True]


def test_loss_counts_the_packets_of_each_stream() -> None:
    one = acting(Loss(nth=3))
    lost = [one.after(up(), 1.0, upstream=True) is None for _ in range(6)]
    assert lost == [False, False, True] * 2
    assert one.after(down(), 1.0, upstream=False) == 1.0


def test_jitter_never_turns_the_order_of_a_connection() -> None:
    one = acting(Latency(seconds=Amount(0.1, 0.1)))
    due = [one.after(up(), at * 0.01, upstream=True) or 0.0 for at in range(200)]
    assert due == sorted(due)
    assert len(set(due)) > 20
    alone = [acting(Latency(seconds=Amount(0.1, 0.1)), seed=seed) for seed in range(50)]
    waits = [each.after(up(), 0.0, upstream=True) or 0.0 for each in alone]
    assert 0.0 <= min(waits) < 0.05
    assert 0.15 < max(waits) <= 0.2


def test_connections_wait_for_themselves_alone() -> None:
    one = acting(Latency(seconds=5, first=1))
    assert one.after(up(5000), 0.0, upstream=True) == 5.0
    assert one.after(up(5001), 0.0, upstream=True) == 0.0
    assert one.after(down(5000), 1.0, upstream=False) == 6.0


def test_a_fault_that_lifts_lets_nothing_overtake() -> None:
    one = acting(Latency(seconds=5, schedule=Schedule(end=1)))
    assert one.after(up(), 0.5, upstream=True) == 5.5
    assert one.after(up(), 1.5, upstream=True) == 5.5  # it waits for the one before it
    assert one.after(up(), 6.0, upstream=True) == 6.0


def test_a_narrow_link_takes_its_time_and_loses_what_is_too_much() -> None:
    one = acting(Bandwidth(bytes_per_second=1000))
    due = [one.after(up(size=100), 0.0, upstream=True) for _ in range(10)]
    assert due[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert due[5:] == [None] * 5  # 0.2 s and two packets wait
    assert one.after(up(5001, size=100), 0.0, upstream=True) == 0.1  # another has its own
    assert acting(Bandwidth(bytes_per_second=0)).after(up(), 0.0, upstream=True) is None


def test_a_slow_handshake_is_of_the_first_packet() -> None:
    one = acting(SlowHandshake(seconds=1))
    assert one.after(up(flags=SYN), 3.0, upstream=True) == 4.0
    assert one.after(down(flags=SYN | ACK), 3.0, upstream=False) == 3.0
    assert one.after(up(), 3.0, upstream=True) == 3.0


def test_flows_that_are_told_apart_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MOST_FLOWS", 10)
    one = acting(Latency(seconds=1))
    for client in range(1000, 1100):
        one.after(up(client), 0.0, upstream=True)
    assert len(one._flows) == len(one._told) == 10
