"""What toxics do to real connections: toxiproxy's semantics, without its defects."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.api.speak import (
    LIMIT,
    Api,
    answered,
    dial,
    ending,
    leave_hard,
    read,
    round_trip,
    served,
    target,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SILENCE = 0.2
ANSWER_SECONDS = 3.0  # they take milliseconds, but the machine may be busy; toxiproxy took 25 s
STREAMS = pytest.mark.parametrize("stream", ["upstream", "downstream"])


@pytest.fixture
def listen(api: Api, upstream: str) -> str:
    return api.proxy(upstream)


@pytest.fixture
def wire(listen: str) -> Iterator[socket.socket]:
    """A connection that was there, and used, before any toxic."""
    with closing(dial(listen)) as connection:
        round_trip(connection)
        yield connection


def silent(connection: socket.socket, seconds: float = SILENCE) -> bool:
    connection.settimeout(seconds)
    try:
        return not connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(LIMIT)


def update(api: Api, name: str, **body: Any) -> None:
    assert api.ask("PATCH", f"/proxies/p/toxics/{name}", body).code == 200


def remove(api: Api, name: str) -> None:
    assert api.ask("DELETE", f"/proxies/p/toxics/{name}").code == 204


# ----------------------------------------------------------------------------------------- latency


@STREAMS
def test_latency_acts_on_live_and_new_connections(
    api: Api, listen: str, wire: socket.socket, stream: str
) -> None:
    api.toxic("latency", stream=stream, attributes={"latency": 120})
    assert round_trip(wire) >= 0.115
    with closing(dial(listen)) as new:
        assert round_trip(new) >= 0.115


def test_latencies_add_up(api: Api, wire: socket.socket) -> None:
    api.toxic("latency", attributes={"latency": 60})
    api.toxic("latency", stream="upstream", attributes={"latency": 60})
    api.toxic("latency", name="third", attributes={"latency": 60})
    assert round_trip(wire) >= 0.175


def test_jitter_lies_on_both_sides_and_order_is_kept(api: Api, wire: socket.socket) -> None:
    api.toxic("latency", attributes={"latency": 50, "jitter": 50})
    times = [round_trip(wire) for _ in range(24)]
    assert min(times) < 0.045
    assert max(times) > 0.055
    numbers = b"".join(b"%04d" % n for n in range(50))
    for at in range(0, len(numbers), 4):
        wire.sendall(numbers[at : at + 4])
        time.sleep(0.001)
    assert read(wire, len(numbers)) == numbers


def test_an_updated_latency_holds_for_what_comes_next(api: Api, wire: socket.socket) -> None:
    api.toxic("latency", attributes={"latency": 10_000})
    update(api, "latency_downstream", attributes={"latency": 100})
    assert 0.095 <= round_trip(wire) < 5


@pytest.mark.parametrize("end", ["remove", "reset"])
def test_what_a_latency_holds_comes_when_it_ends(api: Api, wire: socket.socket, end: str) -> None:
    api.toxic("latency", attributes={"latency": 60_000})
    wire.sendall(b"late")
    assert silent(wire)
    if end == "remove":
        remove(api, "latency_downstream")
    else:
        assert api.ask("POST", "/reset").code == 204
    assert read(wire, 4) == b"late"
    assert round_trip(wire) < 5


# --------------------------------------------------------------------------------------- bandwidth


@STREAMS
def test_bandwidth_is_kilobytes_a_second(api: Api, wire: socket.socket, stream: str) -> None:
    api.toxic("bandwidth", stream=stream, attributes={"rate": 100})
    taken = round_trip(wire, b"x" * 50_000)
    assert 0.3 <= taken < 5  # 0.5 s, and what a first piece may be ahead


def test_a_rate_of_0_lets_nothing_through_until_it_ends(api: Api, wire: socket.socket) -> None:
    api.toxic("bandwidth")
    wire.sendall(b"held")
    assert silent(wire)
    update(api, "bandwidth_downstream", attributes={"rate": 1000})
    assert read(wire, 4) == b"held"
    update(api, "bandwidth_downstream", attributes={"rate": 0})
    wire.sendall(b"again")
    assert silent(wire)
    remove(api, "bandwidth_downstream")
    assert read(wire, 5) == b"again"


# --------------------------------------------------------------------------------------- slow close


def test_a_slow_close_is_late_by_its_delay(api: Api) -> None:
    with target(lambda connection: connection.sendall(b"all")) as upstream:
        listen = api.proxy(upstream)
        api.toxic("slow_close", attributes={"delay": 200})
        with closing(dial(listen)) as connection:
            assert read(connection, 3) == b"all"
            began = time.perf_counter()
            assert ending(connection) == "closed"
            assert time.perf_counter() - began >= 0.15


def test_a_slow_close_that_ends_closes(api: Api) -> None:
    with target(lambda connection: connection.sendall(b"all")) as upstream:
        listen = api.proxy(upstream)
        api.toxic("slow_close", attributes={"delay": 60_000})
        with closing(dial(listen)) as connection:
            assert read(connection, 3) == b"all"
            assert ending(connection, SILENCE) == "open"
            remove(api, "slow_close_downstream")
            assert ending(connection) == "closed"


# ------------------------------------------------------------------------------------------ timeout


@STREAMS
def test_a_timeout_loses_data_and_then_closes(api: Api, wire: socket.socket, stream: str) -> None:
    api.toxic("timeout", stream=stream, attributes={"timeout": 100})
    wire.sendall(b"lost")
    began = time.perf_counter()
    wire.settimeout(LIMIT)
    assert wire.recv(4) == b""
    assert time.perf_counter() - began >= 0.09


def test_the_timer_of_a_timeout_starts_again_with_each_piece(api: Api, wire: socket.socket) -> None:
    api.toxic("timeout", stream="upstream", attributes={"timeout": 1000})
    for _ in range(4):
        wire.sendall(b"x")
        assert ending(wire, 0.3) == "open"
    assert ending(wire) == "closed"


def test_a_timeout_of_0_never_closes_and_closes_when_it_ends(
    api: Api, listen: str, wire: socket.socket
) -> None:
    api.toxic("timeout")
    wire.sendall(b"lost")
    assert ending(wire, SILENCE) == "open"
    remove(api, "timeout_downstream")
    assert ending(wire) == "closed"
    with closing(dial(listen)) as new:
        round_trip(new)


def test_an_updated_timeout_does_not_close(api: Api, wire: socket.socket) -> None:
    api.toxic("timeout")
    update(api, "timeout_downstream", attributes={"timeout": 60_000})
    wire.sendall(b"lost")
    assert ending(wire, SILENCE) == "open"


# --------------------------------------------------------------------------------------- reset peer


@STREAMS
def test_a_reset_is_a_reset_on_live_and_new_connections(
    api: Api, listen: str, wire: socket.socket, stream: str
) -> None:
    api.toxic("reset_peer", stream=stream)
    with closing(dial(listen)) as new:
        for connection in (wire, new):
            assert ending(connection, 0.1) == "open"  # nothing is done before the first data
            connection.sendall(b"x")
            assert ending(connection) == "reset"


def test_a_reset_comes_so_long_after_the_first_data(api: Api, wire: socket.socket) -> None:
    api.toxic("reset_peer", stream="upstream", attributes={"timeout": 200})
    wire.sendall(b"x")
    began = time.perf_counter()
    assert ending(wire) == "reset"
    assert time.perf_counter() - began >= 0.15


def test_a_reset_that_ends_in_time_does_nothing(api: Api, wire: socket.socket) -> None:
    api.toxic("reset_peer", stream="upstream", attributes={"timeout": 60_000})
    wire.sendall(b"ping")
    assert silent(wire, 0.1)
    remove(api, "reset_peer_upstream")
    assert read(wire, 4) == b"ping"


# ------------------------------------------------------------------------------------------- slicer


def test_a_slicer_cuts_into_pieces_a_delay_in_microseconds_apart(
    api: Api, wire: socket.socket
) -> None:
    attributes = {"average_size": 10, "delay": 20_000}
    api.toxic("slicer", attributes=attributes)
    wire.sendall(b"0123456789" * 10)
    began = time.perf_counter()
    pieces: list[bytes] = []
    while sum(len(piece) for piece in pieces) < 100:
        pieces.append(wire.recv(1000))
    assert time.perf_counter() - began >= 0.15
    assert b"".join(pieces) == b"0123456789" * 10
    assert len(pieces) > 3


@pytest.mark.parametrize(
    "attributes", [{}, {"average_size": 3, "size_variation": 5}, {"size_variation": 9}], ids=repr
)
def test_a_slicer_loses_nothing(api: Api, wire: socket.socket, attributes: dict[str, int]) -> None:
    api.toxic("slicer", attributes=attributes)
    round_trip(wire, bytes(range(256)) * 8)


# --------------------------------------------------------------------------------------- limit data


def test_a_limit_passes_so_many_bytes_of_each_connection(
    api: Api, listen: str, wire: socket.socket
) -> None:
    api.toxic("limit_data", attributes={"bytes": 10})
    with closing(dial(listen)) as new:
        for connection in (wire, new):  # of the first, those count that came after
            round_trip(connection, b"1234")
            connection.sendall(b"567890ab")
            assert read(connection, 6) == b"567890"
            assert ending(connection) in ("closed", "reset")


def test_a_limit_of_the_request_lets_the_upstream_have_so_many_bytes(api: Api) -> None:
    got: list[bytes] = []
    over = threading.Event()

    def take(connection: socket.socket) -> None:
        try:
            while data := connection.recv(100):
                got.append(data)
        finally:
            over.set()

    with target(take) as upstream, closing(dial(api.proxy(upstream))) as connection:
        api.toxic("limit_data", stream="upstream", attributes={"bytes": 10})
        connection.sendall(b"1234567890ab")
        assert over.wait(LIMIT)
        assert b"".join(got) == b"1234567890"
        assert ending(connection) in ("closed", "reset")


def test_a_limit_of_0_passes_nothing(api: Api, wire: socket.socket) -> None:
    api.toxic("limit_data")
    wire.sendall(b"ping")
    assert wire.recv(4) == b""


def test_a_changed_limit_counts_on(api: Api, listen: str, wire: socket.socket) -> None:
    api.toxic("limit_data", attributes={"bytes": 6})
    with closing(dial(listen)) as other:
        round_trip(wire)
        round_trip(other)
        update(api, "limit_data_downstream", attributes={"bytes": 10})
        round_trip(wire)
        wire.sendall(b"ping")
        assert read(wire, 4) == b"pi"
        assert ending(wire) in ("closed", "reset")
        update(api, "limit_data_downstream", attributes={"bytes": 2})  # which has passed already
        other.sendall(b"ping")
        assert read(other, 4) == b""


# ----------------------------------------------------------------------------------------- toxicity


def pattern(listen: str, count: int = 40) -> list[bool]:
    """Which of so many new connections a limit of 0 bytes hits."""
    return [not answered(listen) for _ in range(count)]


def test_a_toxicity_hits_some_connections_each_for_good(api: Api, listen: str) -> None:
    api.toxic("limit_data", toxicity=0.5)
    with ExitStack() as stack:
        hit = []
        for _ in range(40):
            connection = stack.enter_context(closing(dial(listen)))
            connection.sendall(b"ping")
            hit.append(connection.recv(4) == b"")
            if not hit[-1]:
                for _ in range(3):
                    round_trip(connection)
    assert 5 < sum(hit) < 35


@pytest.mark.parametrize(
    "type_", ["timeout", "reset_peer", "limit_data", "bandwidth", "slow_close"]
)
def test_a_toxicity_of_0_hits_nobody(api: Api, listen: str, type_: str) -> None:
    api.toxic(type_, toxicity=0, attributes={"delay": 60_000})
    with closing(dial(listen)) as connection:
        round_trip(connection)
        connection.shutdown(socket.SHUT_WR)
        assert read(connection, 4) == b"bye"
        assert ending(connection) == "closed"  # never a reset


def test_an_update_decides_anew_on_live_connections(api: Api, wire: socket.socket) -> None:
    api.toxic("latency", toxicity=0, attributes={"latency": 1000})
    assert round_trip(wire) < 1
    update(api, "latency_downstream", toxicity=1)
    assert round_trip(wire) >= 0.99
    update(api, "latency_downstream", toxicity=0)
    assert round_trip(wire) < 1


def test_the_same_seed_hits_the_same_connections(upstream: str) -> None:
    patterns = []
    for seed in ("42", "42", "43"):
        with served("--seed", seed) as (address, _):
            api = Api(address)
            listen = api.proxy(upstream)
            api.toxic("limit_data", toxicity=0.5)
            patterns.append(pattern(listen, 24))
    assert patterns[0] == patterns[1] != patterns[2]


def test_proxies_of_one_server_hit_different_connections(api: Api, upstream: str) -> None:
    seen = []
    for name in "ab":
        listen = api.proxy(upstream, name=name)
        api.toxic("limit_data", name, toxicity=0.5)
        seen.append(pattern(listen, 24))
    assert seen[0] != seen[1]


# ------------------------------------------------------------- what toxiproxy gets wrong, or hangs at


def test_a_half_close_is_carried_through(api: Api, wire: socket.socket) -> None:
    wire.shutdown(socket.SHUT_WR)
    assert read(wire, 10) == b"bye"


def test_an_upstream_that_is_not_there_resets(api: Api) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as gone:
        nowhere = "127.0.0.1:{}".format(*gone.getsockname()[1:])
    listen = api.proxy(nowhere)
    with pytest.raises(ConnectionResetError), closing(dial(listen)) as connection:
        connection.recv(1)


def quick(api: Api, method: str, path: str, body: Any = None) -> Any:
    began = time.perf_counter()
    told = api.ask(method, path, body)
    assert told.code < 300, told
    assert time.perf_counter() - began < ANSWER_SECONDS, (method, path)
    return told.body


def every_call(api: Api) -> None:
    """Each of them answers, whatever the connections of the proxy are up to."""
    quick(api, "GET", "/proxies")
    quick(api, "GET", "/proxies/p")
    for type_ in ("latency", "bandwidth", "slow_close", "timeout", "slicer", "limit_data"):
        path = f"/proxies/p/toxics/{type_}_downstream"
        given = {"type": type_, "attributes": {"latency": 500, "bytes": 1 << 40}, "toxicity": 0.5}
        quick(api, "POST", "/proxies/p/toxics", given)
        quick(api, "GET", path)
        quick(api, "PATCH", path, {"toxicity": 1})
        if type_ != "timeout":  # which would end the connections
            quick(api, "DELETE", path)
    quick(api, "POST", "/reset")
    upstream = api.get("/proxies/p")["upstream"]
    quick(api, "POST", "/proxies/p", {"enabled": False})
    quick(api, "POST", "/populate", [{"name": "p", "upstream": upstream}])
    quick(api, "POST", "/proxies/p", {"listen": "127.0.0.1:0"})
    quick(api, "DELETE", "/proxies/p")


def test_a_client_that_stops_reading_holds_no_call_up(api: Api, listen: str) -> None:
    api.toxic("latency", name="l", attributes={"latency": 500})
    with closing(dial(listen)) as connection:
        connection.setblocking(False)
        end = time.monotonic() + 1.0
        sent = 0
        while time.monotonic() < end:
            try:
                sent += connection.send(b"z" * 65536)
            except BlockingIOError:
                time.sleep(0.01)
        assert sent > 1 << 20
        every_call(api)
        leave_hard(connection)


def test_an_upstream_that_never_accepts_holds_no_call_up(api: Api) -> None:
    with closing(socket.socket()) as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(3):  # its backlog is full
            filler = stack.enter_context(closing(socket.socket()))
            filler.setblocking(False)
            filler.connect_ex(address)
        listen = api.proxy("{}:{}".format(*address))
        for _ in range(5):
            stack.enter_context(closing(dial(listen))).sendall(b"ping")
        every_call(api)
