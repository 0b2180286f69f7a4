"""Bytes flow while faults come and go: intact, in order, bounded; and no control waits for them."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from brownout.fault import (
    Amount,
    Bandwidth,
    Cut,
    Drop,
    Exchange,
    Fault,
    Hang,
    Latency,
    NeverAccept,
    Proxy,
    Refuse,
    Slice,
    SlowClose,
    running,
)
from brownout.fault.tcp.stream import HELD_BYTES
from tests.faults.tcp.echo import Echo
from tests.faults.tcp.test_kinds import served, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.tcp.conftest import Client, Outsider

AT_ONCE = 1.0  # seconds; the defects that these are about took 25


def dial(proxy: Proxy) -> socket.socket:
    host, _, port = proxy.listen.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def a_fault(chance: random.Random) -> Fault:
    """One that loses nothing."""
    stream: Any = chance.choice(["upstream", "downstream", "both"])
    per: Any = chance.choice(["connection", "request"])
    kinds = [
        Latency(seconds=Amount(0.004, jitter=0.004), stream=stream, per=per),
        Bandwidth(bytes_per_second=20_000_000, stream=stream, per=per),
        Slice(bytes=Amount(7000, jitter=5000), seconds=0.0005, stream=stream, per=per),
        Hang(seconds=0.01, stream=stream, per=per),
        Hang(stream=stream, share=0.5),
        SlowClose(seconds=0.02, stream=stream),
        Latency(seconds=0.002, share=0.5, stream=stream),
        Cut(at="reply", after_bytes=1 << 40),
    ]
    return chance.choice(kinds)


def write(sock: socket.socket, seed: int, size: int) -> None:
    chance = random.Random(seed)
    left = size
    while left:
        piece = chance.randbytes(min(left, chance.choice([1, 100, 5000, 100_000])))
        sock.sendall(piece)
        left -= len(piece)
    sock.shutdown(socket.SHUT_WR)


def hashed(seed: int, size: int) -> str:
    chance = random.Random(seed)
    told = hashlib.sha256()
    left = size
    while left:
        piece = chance.randbytes(min(left, chance.choice([1, 100, 5000, 100_000])))
        told.update(piece)
        left -= len(piece)
    return told.hexdigest()


@pytest.mark.parametrize("seed", range(4))
def test_bytes_arrive_intact_while_faults_come_and_go(proxy: Proxy, seed: int) -> None:
    chance = random.Random(seed)
    size = 6_000_000
    with closing(dial(proxy)) as sock:
        writer = threading.Thread(target=write, args=(sock, seed, size))
        writer.start()
        got: list[bytes] = []

        def read() -> None:
            while data := sock.recv(65536):
                got.append(data)

        reader = threading.Thread(target=read)
        reader.start()
        while reader.is_alive():
            names = [*proxy.made]
            act = chance.random()
            if len(names) < 4 and act < 0.5:
                proxy.make(a_fault(chance))
            elif names and act < 0.75:
                proxy.undo(chance.choice(names))
            elif names:
                proxy.change(chance.choice(names), a_fault(chance))
            reader.join(0.01)
            if sum(map(len, got)) > size:
                break
            if all(isinstance(each.fault, Hang) for each in proxy.made.values()):
                for name in names:
                    if name in proxy.made:
                        proxy.undo(name)
        writer.join(20)
        for name in [*proxy.made]:
            proxy.undo(name)
    whole = b"".join(got)
    body, bye = whole[:size], whole[size:]
    assert hashlib.sha256(body).hexdigest() == hashed(seed, size)
    assert bye == b"BYE%d" % size


def test_a_client_that_stops_reading_delays_no_one(proxy: Proxy, outsider: Outsider) -> None:
    """toxiproxy #558: the toxic can't be removed any more, and then the whole API hangs."""
    with closing(dial(proxy)) as deaf:
        deaf.setblocking(False)
        made = proxy.make(Latency(seconds=0.2))
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            try:
                deaf.send(b"z" * 65536)
            except BlockingIOError:
                time.sleep(0.005)
        began = time.monotonic()
        made.undo()
        proxy.make(Latency(seconds=0.001)).undo()
        assert time.monotonic() - began < AT_ONCE
        served(outsider.client(proxy.listen))


def test_what_is_held_is_bounded(proxy: Proxy) -> None:
    with closing(dial(proxy)) as sock, proxy.make(Hang()):
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            sock.sendall(b"z" * 3 * HELD_BYTES)
        [link] = proxy._links.values()
        assert link.up._held < HELD_BYTES + 1_000_000


def test_an_upstream_that_never_accepts_delays_no_one(outsider: Outsider) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        host, port = deaf.getsockname()
        filler = [socket.socket() for _ in range(3)]
        for each in filler:
            each.setblocking(False)
            each.connect_ex((host, port))
        with running(f"{host}:{port}") as proxy:
            client = outsider.client(proxy.listen)
            client.send("x")
            began = time.monotonic()
            proxy.make(Latency(seconds=1)).undo()
            with proxy.make(Cut()):
                pass
        assert time.monotonic() - began < AT_ONCE  # it was stopped too
        for each in filler:
            each.close()


def test_an_upstream_that_refuses_resets_the_client(outsider: Outsider) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host, port = closed.getsockname()
        with running(f"{host}:{port}") as proxy:
            client = outsider.new()
            saw = client.connect(proxy.listen)
            assert "ConnectionResetError" in (saw.error, client.read().error)


def test_a_reset_is_carried_through(proxy: Proxy, client: Client, echo: Echo) -> None:
    with closing(dial(proxy)) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: len(echo.lost) == 1)
    assert isinstance(echo.lost[0], ConnectionResetError)
    served(client)


def test_a_connection_too_many_is_reset(
    proxy: Proxy, client: Client, outsider: Outsider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brownout.fault.tcp.proxy.CONNECTIONS_MOST", 1)
    new = outsider.new()
    assert "ConnectionResetError" in (new.connect(proxy.listen).error, new.read().error)
    assert proxy.connections == 1
    served(client)


def test_a_client_that_stops_reading_can_be_closed(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brownout.fault.tcp.side.DRAIN_SECONDS", 0.1)
    with closing(dial(proxy)) as deaf:
        deaf.sendall(b"z" * (16 << 20))  # more than the buffers on the way back take
        [link] = proxy._links.values()
        wait_until(lambda: "blocked" in link.server._waits)
        with proxy.make(Cut(how="close")):
            deaf.send(b"z")
            wait_until(lambda: proxy.connections == 0)


def test_connections_are_dropped_by_a_real_reset(proxy: Proxy, client: Client) -> None:
    proxy.drop_connections()
    assert client.read().error == "ConnectionResetError"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_of_any_family(outsider: Outsider, host: str) -> None:
    with Echo(host=host) as echo, running(echo.address, f"[{host}]:0") as proxy:
        client = outsider.client(proxy.listen)
        assert client.call("x").got == "x"
        with proxy.make(Cut(client="::/0" if ":" in host else "0.0.0.0/0")):
            client.send("x")
            assert client.read().error == "ConnectionResetError"
        with proxy.make(NeverAccept()):
            assert outsider.new().connect(proxy.listen, wait=0.2).error == "TimeoutError"
        served(outsider.client(proxy.listen))


def test_unix_sockets(outsider: Outsider, tmp_path: Path) -> None:
    with Echo(str(tmp_path / "echo")) as echo:
        where = f"unix:{tmp_path / 'proxy'}"
        with running(echo.address, where) as proxy:
            client = outsider.client(proxy.listen)
            client.end()
            assert client.read(-1).got == "BYE0"
            with proxy.make(Refuse()):
                assert outsider.new().connect(where).error == "ConnectionRefusedError"
            client = outsider.client(where)
            with proxy.make(Drop(stream="downstream")):
                client.send("lost")
                assert client.read(wait=0.1).error == "TimeoutError"
            served(client)
        assert not (tmp_path / "proxy").exists()


def test_started_and_stopped_again_it_keeps_its_port_and_faults(echo: Echo) -> None:
    async def play() -> None:
        proxy = Proxy(echo.address)
        await proxy.start()
        listen = proxy.listen
        with proxy.make(Latency(seconds=0.05, stream="downstream")):
            await proxy.stop()
            assert not proxy.enabled
            await proxy.start()
            assert proxy.listen == listen
            host, _, port = listen.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"x")
            began = time.monotonic()
            assert await reader.read(1) == b"x"
            assert time.monotonic() - began >= 0.04
            writer.close()
            await writer.wait_closed()
        await proxy.stop()
        await proxy.stop()
        assert proxy.connections == 0

    asyncio.run(play())


def test_the_truth_of_every_request_is_kept_while_it_is_watched(
    echo: Echo, outsider: Outsider
) -> None:
    with running(echo.address, watch=True) as proxy:
        client = outsider.client(proxy.listen)
        client.call("one")
        client.call("three")
        told: list[Exchange] = [*proxy.exchanges]
        assert [(each.request, each.bytes_up, each.bytes_delivered) for each in told] == [
            (1, 3, 3),
            (2, 5, 5),
        ]
        assert all(each.passed_upstream and each.replied and each.delivered for each in told)
        assert told[0].ended is not None
        assert told[0].client == "127.0.0.1"


def test_an_exchange_is_looked_at_to_its_end(proxy: Proxy, client: Client) -> None:
    with proxy.make(Hang()):
        client.send("zombie")
        assert client.read(wait=0.05).error == "TimeoutError"
    assert client.read(6).got == "zombie"
    served(client)
    [told] = [*proxy.exchanges]
    assert (told.bytes_up, told.bytes_down, told.bytes_delivered) == (6, 6, 6)
    assert told.ended is not None


def test_untouched_connections_are_written_straight_through(proxy: Proxy, client: Client) -> None:
    [link] = proxy._links.values()
    assert "data_received" in vars(link.client)
    with proxy.make(Latency(seconds=0)):
        assert "data_received" not in vars(link.client)
        served(client)
    served(client)
    assert "data_received" in vars(link.server)
    served(client)
