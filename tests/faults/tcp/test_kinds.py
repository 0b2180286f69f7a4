"""Each kind of fault of the wire, made on a connection that is open, and seen by a client in another process.

Bounds in time are one-sided where the machine may be slow: a fault may be late, never early.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from brownout.errors import BrownoutError, ConfigurationError
from brownout.fault import (
    Amount,
    Bandwidth,
    Corrupt,
    Cut,
    Drop,
    Hang,
    Kill,
    Latency,
    NeverAccept,
    Refuse,
    Slice,
    SlowClose,
    Timeout,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout.fault import Proxy
    from tests.faults.tcp.conftest import Client, Outsider
    from tests.faults.tcp.echo import Echo

EARLY = 0.002  # clocks of two processes, read at different points


def wait_until(what: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.005)


def served(client: Client) -> None:
    assert client.call("and on").got == "and on"


# -------------------------------------------------------------------------------------- late


def test_latency(proxy: Proxy, client: Client) -> None:
    with proxy.make(Latency(seconds=0.1, stream="downstream")):
        assert client.call("late").seconds >= 0.1 - EARLY
    assert client.call("soon").seconds < 0.1


def test_latency_of_both_directions_adds_up(proxy: Proxy, client: Client) -> None:
    with proxy.make(Latency(seconds=0.05)), proxy.make(Latency(seconds=0.05)):
        assert client.call("late").seconds >= 0.2 - EARLY


def test_latency_varies_within_its_jitter(proxy: Proxy, client: Client) -> None:
    fault = Latency(seconds=Amount(0.02, jitter=0.01), stream="downstream")
    with proxy.make(fault) as made:
        for _ in range(20):
            client.call("x")
    told = [each.amount for each in made.log if each.what == "delayed"]
    assert len(told) == 20
    assert 0.01 <= min(told) < max(told) <= 0.03 + EARLY


def test_what_is_under_way_comes_in_order_when_a_latency_is_undone(
    proxy: Proxy, client: Client
) -> None:
    with proxy.make(Latency(seconds=30, stream="downstream")):
        client.send("first ")
        client.send("second ")
        wait_until(lambda: sum(each.bytes_down for each in proxy.exchanges) == 13)
    client.send("third")
    assert client.read(18).got == "first second third"


def test_bandwidth(proxy: Proxy, client: Client) -> None:
    with proxy.make(Bandwidth(bytes_per_second=2000, stream="downstream")):
        saw = client.call("x" * 400)
    assert saw.got == "x" * 400
    assert saw.seconds >= 0.2 - EARLY


def test_no_bandwidth_lets_nothing_pass(proxy: Proxy, client: Client) -> None:
    with proxy.make(Bandwidth(bytes_per_second=0, stream="downstream")):
        client.send("held")
        assert client.read(wait=0.1).error == "TimeoutError"
    assert client.read(4).got == "held"


def test_slices(proxy: Proxy, client: Client) -> None:
    with proxy.make(Slice(bytes=2, seconds=0.03, stream="downstream")):
        client.send("abcdef")
        assert [client.read().got for _ in range(3)] == ["ab", "cd", "ef"]


def test_a_drip_outlasts_a_read_timeout(proxy: Proxy, client: Client) -> None:
    """Each read returns in time, and the whole takes eight times as long."""
    with proxy.make(Slice(bytes=1, seconds=0.05, stream="downstream")):
        client.send("a drip..")
        saw = client.read(8, wait=0.3)
    assert saw.got == "a drip.."
    assert saw.seconds >= 0.35 - EARLY


def test_a_black_hole_heals_with_late_delivery(proxy: Proxy, client: Client, echo: Echo) -> None:
    """What was sent into it is executed when it heals: the write that nobody waits for any more."""
    with proxy.make(Hang()):
        client.send("zombie")
        assert client.read(wait=0.1).error == "TimeoutError"
        assert b"zombie" not in echo.heard
    wait_until(lambda: b"zombie" in echo.heard)


def test_a_hang_with_an_end_of_its_own(proxy: Proxy, client: Client) -> None:
    with proxy.make(Hang(seconds=0.1, stream="downstream")):
        assert client.call("held").seconds >= 0.1 - EARLY
        assert client.call("then all passes").seconds < 0.1


def test_slow_close(proxy: Proxy, client: Client) -> None:
    with proxy.make(SlowClose(seconds=0.15, stream="downstream")):
        client.end()
        assert client.read(4).got == "BYE5"
        saw = client.read()
    assert saw.got == ""
    assert saw.seconds >= 0.1


# -------------------------------------------------------------------------------------- lost


def test_a_reply_is_lost_after_execution(proxy: Proxy, client: Client, echo: Echo) -> None:
    with proxy.make(Drop(stream="downstream")) as made:
        client.send("lost")
        assert client.read(wait=0.1).error == "TimeoutError"
        assert b"lost" in echo.heard
        [told] = [each for each in made.log if each.what == "dropped"]
        assert told.amount == 4
        last = [*proxy.exchanges][-1]
        assert (last.passed_upstream, last.replied, last.delivered) == (True, True, False)
    served(client)


def test_accept_then_silence(proxy: Proxy, outsider: Outsider, echo: Echo) -> None:
    with proxy.make(Drop()):
        client = outsider.client(proxy.listen)
        client.send("unheard")
        assert client.read(wait=0.1).error == "TimeoutError"
        last = [*proxy.exchanges][-1]
        assert (last.passed_upstream, last.replied, last.delivered) == (False, False, False)
    assert b"unheard" not in echo.heard


def test_silence_holds_the_end_back_too(proxy: Proxy, client: Client) -> None:
    with proxy.make(Drop(stream="downstream")):
        client.end()  # the server says goodbye and closes
        assert client.read(wait=0.1).error == "TimeoutError"
    assert client.read().got == ""


def test_timeout_closes_after_the_last_data(proxy: Proxy, client: Client) -> None:
    with proxy.make(Timeout(seconds=0.1)):
        client.send("lost")
        saw = client.read()
    assert (saw.got, saw.error) == ("", None)
    assert saw.seconds >= 0.1 - 0.05


def test_undoing_a_timeout_closes_what_it_held(proxy: Proxy, client: Client) -> None:
    with proxy.make(Timeout()):
        client.send("lost")
        assert client.read(wait=0.1).error == "TimeoutError"
    assert client.read().got == ""


def test_corrupt_changes_about_as_many_bytes_as_it_says(proxy: Proxy, client: Client) -> None:
    with proxy.make(Corrupt(share_of_bytes=0.1, stream="downstream")) as made:
        got = client.call("x" * 20_000).got
    assert got is not None
    changed = sum(each != "x" for each in got)
    assert 1500 < changed < 2500
    assert sum(each.amount for each in made.log if each.what == "corrupted") == changed
    served(client)


# --------------------------------------------------------------------------------------- cut


@pytest.mark.parametrize(
    ("how", "seen"), [("reset", (None, "ConnectionResetError")), ("close", ("", None))]
)
def test_cut_on_the_request_of_a_live_connection(
    proxy: Proxy, client: Client, echo: Echo, how: str, seen: tuple[str | None, str | None]
) -> None:
    with proxy.make(Cut(how=how)):  # type: ignore[arg-type]
        client.send("unheard")
        assert client.read()[:2] == seen
    assert b"unheard" not in echo.heard


@pytest.mark.parametrize(
    ("how", "seen"), [("reset", (None, "ConnectionResetError")), ("close", ("", None))]
)
def test_cut_in_mid_reply(
    proxy: Proxy, client: Client, how: str, seen: tuple[str | None, str | None]
) -> None:
    with proxy.make(Cut(how=how, at="reply", after_bytes=3)):  # type: ignore[arg-type]
        client.send("abcdef")
        assert client.read(3).got == "abc"
        assert client.read()[:2] == seen


@pytest.mark.parametrize(
    ("how", "seen"), [("reset", (None, "ConnectionResetError")), ("close", ("", None))]
)
def test_cut_on_accept(
    proxy: Proxy,
    outsider: Outsider,
    client: Client,
    how: str,
    seen: tuple[str | None, str | None],
) -> None:
    with proxy.make(Cut(how=how, at="accept")):  # type: ignore[arg-type]
        new = outsider.new()
        saw = new.connect(proxy.listen)  # an RST may be faster than connect returns
        if saw.error is None:
            saw = new.read()
        assert saw[:2] == seen
        served(client)  # one that was accepted before


def test_cut_at_a_time(proxy: Proxy, outsider: Outsider) -> None:
    with proxy.make(Cut(at="accept", after_seconds=0.15)):
        client = outsider.client(proxy.listen)
        served(client)
        saw = client.read()
    assert saw.error == "ConnectionResetError"


def test_a_cut_waits_and_is_undone_meanwhile(proxy: Proxy, client: Client) -> None:
    with proxy.make(Cut(at="reply", after_bytes=2, after_seconds=30)):
        client.send("abcd")
        assert client.read(2).got == "ab"
        assert client.read(wait=0.05).error == "TimeoutError"
    assert client.read(2).got == "cd"
    served(client)


def test_data_is_limited_per_connection(proxy: Proxy, client: Client) -> None:
    with proxy.make(Cut(how="close", at="reply", after_bytes=10)):
        assert client.call("12345").got == "12345"
        assert client.call("67890").got == "67890"
        assert client.read().got == ""


# ---------------------------------------------------------------------------------- listener


def test_refuse(proxy: Proxy, outsider: Outsider, client: Client) -> None:
    with proxy.make(Refuse()):
        assert client.read().error == "ConnectionResetError"
        assert outsider.new().connect(proxy.listen).error == "ConnectionRefusedError"
    served(outsider.client(proxy.listen))


def test_refuse_may_keep_what_is_open(proxy: Proxy, outsider: Outsider, client: Client) -> None:
    with proxy.make(Refuse(keep_open=True)):
        assert outsider.new().connect(proxy.listen).error == "ConnectionRefusedError"
        served(client)
    served(client)


def test_never_accept(proxy: Proxy, outsider: Outsider, client: Client) -> None:
    with proxy.make(NeverAccept()):
        assert outsider.new().connect(proxy.listen, wait=0.2).error == "TimeoutError"
        served(client)
    served(outsider.client(proxy.listen))


def test_one_after_the_other_on_the_listener(proxy: Proxy, outsider: Outsider) -> None:
    for _ in range(3):
        with proxy.make(Refuse()), proxy.make(NeverAccept()):
            assert outsider.new().connect(proxy.listen).error == "ConnectionRefusedError"
        served(outsider.client(proxy.listen))


# ---------------------------------------------------------------------------- what is no fault


def test_half_close_is_carried_through(client: Client) -> None:
    client.end()
    assert client.read(-1).got == "BYE5"


def test_a_kind_that_is_not_of_the_wire_is_refused(proxy: Proxy) -> None:
    with pytest.raises(ConfigurationError, match="a TCP proxy makes Bandwidth, Corrupt, Cut"):
        proxy.make(Kill())


def test_a_name_is_made_once(proxy: Proxy) -> None:
    with proxy.make(Latency(seconds=1), name="slow") as made:
        assert made.name == "slow"
        with pytest.raises(ConfigurationError, match='called "slow" is made'):
            proxy.make(Hang(), name="slow")
        assert [*proxy.made] == ["slow"]
    with pytest.raises(ConfigurationError, match='no fault called "slow" is made'):
        proxy.undo("slow")


def test_an_address_that_is_taken_is_named(proxy: Proxy, echo: Echo) -> None:
    from brownout.fault import running

    with (
        pytest.raises(BrownoutError, match=rf"can't listen on {proxy.listen}: .*in use"),
        running(echo.address, proxy.listen),
    ):
        pass


def test_an_address_that_is_none_is_refused() -> None:
    from brownout.fault import Proxy

    for wrong in ("here", "here:", "::1:80", "1.2.3.4:66000", "unix:", "a:b"):
        with pytest.raises(ConfigurationError, match="is no address"):
            Proxy(wrong)


def test_a_fault_ends_by_itself(proxy: Proxy, client: Client) -> None:
    made = proxy.make(Drop(), seconds=0.1)
    client.send("lost")
    wait_until(lambda: not made.active)
    served(client)


def test_undone_by_its_name_it_is_no_longer_in_force(proxy: Proxy, client: Client) -> None:
    made = proxy.make(Drop())
    proxy.undo("drop")
    assert not made.active
    served(client)
