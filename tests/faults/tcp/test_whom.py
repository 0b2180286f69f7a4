"""Whom a fault of the wire hits: by share, turn, client and content; per connection and per request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brownout.fault import Cut, Drop, Hang, Latency, Schedule, running
from tests.faults.tcp.test_kinds import EARLY, served, wait_until

if TYPE_CHECKING:
    from brownout.fault import Fault, Proxy
    from tests.faults.tcp.conftest import Client, Outsider
    from tests.faults.tcp.echo import Echo


def pattern(outsider: Outsider, proxy: Proxy, fault: Fault, count: int) -> str:
    """An x for each new connection that was reset at its request, a dot for each that was served."""
    told = ""
    with proxy.make(fault):
        for _ in range(count):
            client = outsider.client(proxy.listen)
            told += "." if client.call("a").got == "a" else "x"
            client.close()
    return told


def test_nth_connection(proxy: Proxy, outsider: Outsider) -> None:
    assert pattern(outsider, proxy, Cut(nth=3), 9) == "..x..x..x"


def test_the_first_connections_since_it_was_made(
    proxy: Proxy, outsider: Outsider, client: Client
) -> None:
    """One that is open when it is made counts too, as the first."""
    assert pattern(outsider, proxy, Cut(first=3), 4) == "xx.."
    assert client.call("a").got == "a"


def test_a_share_is_the_same_for_the_same_seed(outsider: Outsider, echo: Echo) -> None:
    told = []
    for seed in (1, 1, 2):
        with running(echo.address, seed=seed) as proxy:
            told.append(pattern(outsider, proxy, Cut(share=0.5), 24))
    assert told[0] == told[1] != told[2]
    assert 4 < told[0].count("x") < 20


def test_none_and_all(proxy: Proxy, outsider: Outsider) -> None:
    assert pattern(outsider, proxy, Cut(share=0), 3) == "..."
    assert pattern(outsider, proxy, Cut(share=1), 3) == "xxx"


def test_by_client(proxy: Proxy, outsider: Outsider) -> None:
    assert pattern(outsider, proxy, Cut(client="10.0.0.0/8"), 2) == ".."
    assert pattern(outsider, proxy, Cut(client="127.0.0.0/8"), 2) == "xx"


def test_by_what_the_connection_says_first(proxy: Proxy, outsider: Outsider) -> None:
    with proxy.make(Drop(match="bad", stream="downstream")):
        good, bad = outsider.client(proxy.listen), outsider.client(proxy.listen)
        assert good.call("good").got == "good"
        assert good.call("bad, but late").got == "bad, but late"
        bad.send("bad")
        assert bad.read(wait=0.1).error == "TimeoutError"


def test_each_request_is_drawn_alone(proxy: Proxy, client: Client) -> None:
    fault = Latency(seconds=0.1, stream="downstream", per="request", nth=2)
    with proxy.make(fault) as made:
        told = [client.call("x").seconds >= 0.1 - EARLY for _ in range(4)]
    assert told == [False, True, False, True]
    verdicts = [each.what for each in made.log if each.what in ("hit", "passed")]
    assert verdicts == ["passed", "hit", "passed", "hit"]


def test_a_request_is_chosen_by_its_first_bytes(proxy: Proxy, client: Client, echo: Echo) -> None:
    with proxy.make(Drop(per="request", match="GET /slow", stream="downstream")):
        assert client.call("GET /fast").got == "GET /fast"
        client.send("GET /slow")
        assert client.read(wait=0.1).error == "TimeoutError"
    assert b"GET /slow" in echo.heard


def test_the_first_requests_fail_and_then_none(proxy: Proxy, outsider: Outsider) -> None:
    told = ""
    with proxy.make(Cut(per="request", first=2)):
        for _ in range(4):
            client = outsider.client(proxy.listen)
            told += "." if client.call("a").got == "a" else "x"
    assert told == "xx.."


def test_a_request_that_hangs_does_not_hold_other_connections(
    proxy: Proxy, client: Client, outsider: Outsider
) -> None:
    with proxy.make(Hang(per="request", match="hang")):
        client.send("hang")
        served(outsider.client(proxy.listen))
        assert client.read(wait=0.05).error == "TimeoutError"
    assert client.read(4).got == "hang"


# -------------------------------------------------------------------------------- in time


def test_a_schedule_begins_and_ends_on_an_open_connection(proxy: Proxy, client: Client) -> None:
    fault = Hang(schedule=Schedule(start=0.15, end=0.4))
    with proxy.make(fault):
        assert client.call("before").got == "before"
        wait_until(lambda: any(each.what == "hit" for each in proxy.log))
        client.send("held")
        assert client.read(4).got == "held"  # let go by its end


def test_a_fault_flaps(proxy: Proxy, client: Client) -> None:
    with proxy.make(Hang(schedule=Schedule(on=0.05, off=0.05))) as made:
        for _ in range(5):
            assert client.call("x").got == "x"
        wait_until(lambda: sum(each.what == "hit" for each in made.log) >= 3)


def test_a_growing_share_comes_to_hit_open_connections(proxy: Proxy, client: Client) -> None:
    with proxy.make(Hang(schedule=Schedule(ramp=0.3))) as made:
        wait_until(lambda: any(each.what == "hit" for each in made.log))
        client.send("held")
        assert client.read(wait=0.05).error == "TimeoutError"


def test_a_change_acts_on_open_connections_and_keeps_the_order(
    proxy: Proxy, client: Client
) -> None:
    with proxy.make(Latency(seconds=30, stream="downstream"), name="late"):
        client.send("first")
        wait_until(lambda: any(each.what == "delayed" for each in proxy.log))
        proxy.change("late", Latency(seconds=0.1, stream="downstream"))
        assert client.read(5).got == "first"
        assert client.call("second").seconds >= 0.1 - EARLY
        assert [*proxy.made] == ["late"]


def test_a_change_of_its_share_keeps_those_that_were_hit(outsider: Outsider, proxy: Proxy) -> None:
    clients = [outsider.client(proxy.listen) for _ in range(12)]
    for client in clients:
        served(client)
    told = []
    with proxy.make(Drop(share=0.3), name="drop"):
        for share in (0.3, 0.7):
            proxy.change("drop", Drop(share=share))
            recent = list(proxy.log)[-12:]
            told.append({each.connection for each in recent if each.what == "hit"})
    assert told[0] < told[1]
