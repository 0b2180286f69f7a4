"""Each way to part two zones, as clients in one of them see it, and the third zone does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from brownout.fault import Partition, Schedule
from tests.faults.zone import caller
from tests.seen import within

if TYPE_CHECKING:
    from tests.faults.zone.conftest import Ground

TIMED_OUT = (
    "TimeoutError: timed out",
    "ReadTimeout: timed out",
    "TimeoutError: Timeout reading from",
)
NO_CONNECT = (
    "TimeoutError: timed out",
    "ConnectTimeout: timed out",
    "TimeoutError: Timeout connecting",
)
RESET = (
    "ConnectionResetError: [Errno 104]",
    "ReadError: [Errno 104]",
    "ConnectionError: Error while reading",
)
REFUSED = (
    "ConnectionRefusedError: [Errno 111]",
    "ConnectError: [Errno 111]",
    "ConnectionError: Error 111 connecting",
)
OK = ("ok",) * 3
CASES = {
    "drop": (Partition(), TIMED_OUT, NO_CONNECT),
    "drop requests": (Partition(stream="upstream"), TIMED_OUT, NO_CONNECT),
    "drop replies": (Partition(stream="downstream"), TIMED_OUT, NO_CONNECT),
    "refuse": (Partition(how="refuse"), RESET, REFUSED),
    "drop new": (Partition(connections="new"), OK, NO_CONNECT),
    "refuse new": (Partition(how="refuse", connections="new"), OK, REFUSED),
    "none": (Partition(share=0), OK, OK),
}


@pytest.mark.parametrize("kind", ["raw", "httpx", "redis"])
@pytest.mark.parametrize("case", CASES)
def test_clients_see(case: str, kind: str, ground: Ground, cache: str) -> None:
    fault, on_open, on_new = CASES[case]
    number = ["raw", "httpx", "redis"].index(kind)
    ground.a.run(caller.connect, kind, cache)
    with ground.zones.between("a", "shared").make(fault):
        assert ground.a.run(caller.on_open, kind).startswith(on_open[number])
        assert ground.a.run(caller.on_new, kind, cache).startswith(on_new[number])
        assert ground.b.run(caller.on_new, kind, cache).startswith("ok")  # the other zone: nothing
    assert ground.a.run(caller.on_new, kind, cache).startswith("ok")


@pytest.mark.parametrize(("stream", "executed"), [("downstream", 1), ("upstream", 0), ("both", 0)])
def test_a_reply_is_lost_after_the_work_was_done(
    stream: str, executed: int, ground: Ground
) -> None:
    before = ground.counted()
    ground.a.run(caller.connect, "raw", ground.host)
    fault = Partition(stream=stream)  # type: ignore[arg-type]
    with ground.zones.between("a", "shared").make(fault) as made:
        assert ground.a.run(caller.on_open, "raw", "incr") == "TimeoutError: timed out"
        assert ground.counted() == before + executed
        assert "dropped" in [decision.what for decision in made.log]
        ground.a.run(caller.abort)


def test_the_redis_incr_of_a_lost_reply_was_executed(ground: Ground, cache: str) -> None:
    before = int(ground.b.run(caller.on_new, "redis", cache, "incr").removeprefix("ok "))
    ground.a.run(caller.connect, "redis", cache)
    with ground.zones.between("a", "shared").make(Partition(stream="downstream")):
        said = ground.a.run(caller.on_open, "redis", "incr")
        assert said == "TimeoutError: Timeout reading from socket"
        assert ground.b.run(caller.on_new, "redis", cache) == f"ok {before + 1}"


def test_a_write_that_timed_out_arrives_when_the_partition_heals(ground: Ground) -> None:
    before = ground.counted()
    ground.a.run(caller.connect, "raw", ground.host)
    with ground.zones.between("a", "shared").make(Partition()):
        assert ground.a.run(caller.on_open, "raw", "incr") == "TimeoutError: timed out"
        assert ground.counted() == before
    assert within(lambda: ground.counted() == before + 1)  # the kernel sends it again


def test_datagrams(ground: Ground) -> None:
    link = ground.zones.between("a", "shared")
    assert ground.a.run(caller.datagram, ground.host).startswith("ok")
    with link.make(Partition()):
        assert ground.a.run(caller.datagram, ground.host) == "TimeoutError: timed out"
    with link.make(Partition(how="refuse")):
        assert ground.a.run(caller.datagram, ground.host).startswith("ConnectionRefusedError")
    assert ground.a.run(caller.datagram, ground.host).startswith("ok")


def test_one_service_alone(ground: Ground) -> None:
    with ground.zones.between("a", f"shared:{caller.WEB}").make(Partition(how="refuse")):
        assert ground.a.run(caller.on_new, "httpx", ground.host).startswith("ConnectError")
        assert ground.a.run(caller.on_new, "raw", ground.host).startswith("ok")
    assert ground.a.run(caller.on_new, "httpx", ground.host).startswith("ok")


def test_a_path_that_is_bad_for_some_connections(ground: Ground) -> None:
    """The same share and seed hits the same connections again."""
    link = ground.zones.between("a", "shared")
    fault = Partition(how="refuse", connections="new", share=0.4)
    rounds: list[list[bool]] = []
    for _ in range(2):
        with link.make(fault, name="bad-path") as made:
            rounds.append(ground.a.run(caller.which_connect, ground.host, 30))
            hits = [one.what for one in made.log if one.what in ("hit", "passed")]
        assert [what == "passed" for what in hits] == rounds[-1]
    assert rounds[0] == rounds[1]
    assert 0 < sum(rounds[0]) < 30


def test_it_flaps(ground: Ground) -> None:
    fault = Partition(how="refuse", schedule=Schedule(on=0.05, off=0.05))
    with ground.zones.between("a", "shared").make(fault):
        found: set[str] = set()

        def both() -> bool:
            found.add(ground.a.run(caller.on_new, "raw", ground.host).partition(" ")[0])
            return {"ok", "ConnectionRefusedError:"} <= found

        assert within(both)


def test_it_ends_by_itself(ground: Ground) -> None:
    made = ground.zones.between("a", "shared").make(Partition(), seconds=0.2)
    assert within(lambda: not made.active)
    assert ground.a.run(caller.on_new, "raw", ground.host).startswith("ok")


def test_two_at_one_link_are_undone_one_by_one(ground: Ground) -> None:
    link = ground.zones.between("a", "shared")
    first, second = link.make(Partition()), link.make(Partition(how="refuse"))
    assert (first.name, second.name) == ("partition", "partition-2")
    first.undo()
    assert ground.a.run(caller.on_new, "raw", ground.host).startswith("ConnectionRefusedError")
    second.undo()
    assert ground.a.run(caller.on_new, "raw", ground.host).startswith("ok")
    assert list(second.log)


def test_undo_fails_loudly_where_no_packet_passes(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is believed: the router says that it is gone, and the probe says no."""
    from brownout.errors import UndoFailed

    made = ground.zones.between("a", "shared").make(Partition())
    holder = ground.zones._holder
    assert holder
    true_ask = holder.ask

    def ask(verb: str, *rest: object) -> object:
        if verb == "undo":
            return None  # it is not undone
        if verb == "names":
            return []
        return true_ask(verb, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(holder, "ask", ask)
        with pytest.raises(UndoFailed, match="is not undone"):
            made.undo()
    made.undo()
    assert ground.a.run(caller.on_new, "raw", ground.host).startswith("ok")
