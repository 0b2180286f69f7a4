"""What is of one form alone: servers out of sight, clients that are cancelled, the proxy's own wire."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from brownout.errors import BrownoutError
from brownout.fault import Cut, Drop, Duplicate, Latency, Slice, Status, http

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.http.conftest import Stage

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"


# -------------------------------------------------------------------------------------------- ASGI


def test_a_server_out_of_sight_is_told_by_an_exception(stage: Stage) -> None:
    faults = http.HttpFaults(stage.shop)
    inside = httpx.ASGITransport(faults)

    async def call() -> None:
        async with httpx.AsyncClient(transport=inside, base_url="http://shop") as client:
            with pytest.raises(ConnectionAbortedError):
                await client.get("/")

    for fault in (Cut(), Cut(at="reply"), Cut(at="reply", after_bytes=10)):
        with faults.make(fault):
            asyncio.run(call())


def test_other_scopes_and_the_errors_of_the_application_pass() -> None:
    came: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        came.append(scope["type"])
        if scope["type"] == "http":
            raise ZeroDivisionError

    async def nothing(*_: Any) -> Any:
        return {"type": "http.request", "body": b""}

    faults = http.HttpFaults(app)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with faults.make(Latency(seconds=0)):
        asyncio.run(faults({"type": "websocket"}, nothing, nothing))
        asyncio.run(faults({"type": "lifespan"}, nothing, nothing))
        with pytest.raises(ZeroDivisionError):
            asyncio.run(faults(scope, nothing, nothing))
    assert came == ["websocket", "lifespan", "http"]


# --------------------------------------------------------------------------------------- transport


def test_a_cancelled_call_gives_its_connection_back(stage: Stage) -> None:
    async def play() -> int:
        faults = http.HttpTransport(
            httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=1), verify=False)
        )
        async with httpx.AsyncClient(transport=faults, timeout=5) as client:
            url = f"http://{stage.address}/"
            with faults.make(Latency(seconds=60)) as made:
                call = asyncio.ensure_future(client.get(url))
                async with asyncio.timeout(5):
                    while not any(each.what == "delayed" for each in made.log):  # noqa: ASYNC110
                        await asyncio.sleep(0.005)
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
            return (await client.get(url)).status_code

    assert asyncio.run(play()) == 200


def test_a_request_of_no_known_length_is_not_duplicated(stage: Stage) -> None:
    faults = http.HttpTransport(httpx.HTTPTransport(verify=False))
    stage.shop.executed.clear()
    with httpx.Client(transport=faults) as client, faults.make(Duplicate()) as made:
        assert client.post(f"http://{stage.address}/", content=iter([b"a", b"b"])).is_success
    assert stage.shop.executed == [b"ab"]
    assert [*made.log][-1].what == "refused: the request does not say how long it is"


# -------------------------------------------------------------------------------------- the proxy


@contextmanager
def upstream(do: Callable[[socket.socket], None]) -> Iterator[str]:
    """Each connection is handed to `do`."""
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.settimeout(10)
                one = threading.Thread(target=serve, args=[connection])
                one.start()
                threads.append(one)

        def serve(connection: socket.socket) -> None:
            with connection:
                do(connection)

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            accepting.join(10)
            for each in threads:
                each.join(10)


def dial(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def until(sock: socket.socket, end: bytes) -> bytes:
    got = b""
    while not got.endswith(end):
        data = sock.recv(65536)
        assert data, got
        got += data
    return got


def rest(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.mark.parametrize(
    "message",
    [
        HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
        HEAD + b"Content-Length: +3\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        HEAD + b"A : b\r\n\r\n",
        HEAD + b"A: b\r\n folded\r\n\r\n",
        HEAD + b"A: b\nC: d\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"GET\r\n\r\n",
        HEAD + b"A: " + bytes(70_000).replace(b"\0", b"a") + b"\r\n\r\n",
    ],
    ids=lambda message: repr(message[:70]),
)
def test_what_could_be_read_in_two_ways_is_refused(stage: Stage, message: bytes) -> None:
    stage.shop.executed.clear()
    with dial(stage.proxy.listen) as client:
        client.sendall(message)
        assert client.recv(12) == b"HTTP/1.1 400"
    assert stage.shop.executed == []


def test_connections_are_kept_and_requests_may_come_at_once(stage: Stage) -> None:
    with dial(stage.proxy.listen) as client:
        client.sendall((HEAD + b"\r\n") * 2 + HEAD + b"Connection: close\r\n\r\n")
        assert rest(client).count(b"HTTP/1.1 200 OK") == 3


def test_an_old_client_is_answered_until_the_end(stage: Stage) -> None:
    with dial(stage.proxy.listen) as client:
        client.sendall(b"GET /chunked HTTP/1.0\r\nHost: a\r\n\r\n")
        head, _, body = rest(client).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert len(body) == 1000


def test_bodies_pass_as_they_come_both_ways() -> None:
    def ping(connection: socket.socket) -> None:
        until(connection, b"\r\n\r\n")
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(2):
            until(connection, b"ping\r\n")
            connection.sendall(b"4\r\npong\r\n")
        until(connection, b"0\r\n\r\n")
        connection.sendall(b"0\r\n\r\n")

    with upstream(ping) as address, http.running(address) as proxy, dial(proxy.listen) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        until(client, b"\r\n\r\n")
        for _ in range(2):
            client.sendall(b"4\r\nping\r\n")
            assert until(client, b"pong\r\n") == b"4\r\npong\r\n"
        client.sendall(b"0\r\n\r\n")
        assert until(client, b"0\r\n\r\n") == b"0\r\n\r\n"


def test_another_protocol_passes_as_bytes() -> None:
    def switch(connection: socket.socket) -> None:
        asked = until(connection, b"\r\n\r\n").lower()
        assert b"upgrade: chat\r\n" in asked
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"
        )
        connection.sendall(until(connection, b"!").upper())

    with upstream(switch) as address, http.running(address) as proxy, dial(proxy.listen) as client:
        client.sendall(HEAD + b"Connection: Upgrade\r\nUpgrade: chat\r\n\r\n")
        assert until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 101")
        client.sendall(b"\0hello!")
        assert rest(client) == b"\0HELLO!"


def test_an_upstream_that_ends_ends_the_client() -> None:
    def half(connection: socket.socket) -> None:
        until(connection, b"\r\n\r\n")
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    wanted = pytest.raises(httpx.RemoteProtocolError, match="received 4 bytes, expected 10")
    with upstream(half) as address, http.running(address) as proxy, wanted:
        httpx.get(f"http://{proxy.listen}/", timeout=10)


def test_a_client_that_leaves_takes_its_request_along() -> None:
    left = threading.Event()

    def wait(connection: socket.socket) -> None:
        until(connection, b"\r\n\r\n")
        try:
            assert connection.recv(1) == b""
        except ConnectionResetError:
            pass
        left.set()

    with upstream(wait) as address, http.running(address) as proxy:
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"http://{proxy.listen}/", timeout=0.3)
        assert left.wait(10)


def test_no_upstream_is_a_502_and_no_address_an_error(stage: Stage) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
        with http.running(nobody) as proxy:
            answer = httpx.get(f"http://{proxy.listen}/", timeout=10)
            assert answer.status_code == 502
            assert "can't be reached" in answer.text
    with pytest.raises(BrownoutError, match="can't listen"), http.running(nobody, stage.address):
        pass


def test_a_client_in_another_process_and_on_a_unix_socket(stage: Stage, tmp_path: Any) -> None:
    path = tmp_path / "web"
    asks = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n');"
        "print(b''.join(iter(lambda: s.recv(65536), b'')).split(b'\\r\\n')[0].decode())"
    )
    with http.running(stage.address, f"unix:{path}") as proxy, proxy.make(Status(code=429)):
        told = subprocess.run(
            [sys.executable, "-c", asks, str(path)], capture_output=True, text=True, check=True
        )
    assert told.stdout == "HTTP/1.1 429 Too Many Requests\n"


def test_a_proxy_stops_while_a_client_waits(stage: Stage) -> None:
    with http.running(stage.address) as proxy:
        proxy.make(Drop())
        client = dial(proxy.listen)
        client.sendall(HEAD + b"\r\n")
        assert stage.shop.until(lambda: proxy.connections == 1)
    with client:
        assert client.recv(1) == b""
    assert proxy.connections == 0


# ------------------------------------------------------------------------------ fixture, command


def test_the_fixture(faults: Any, stage: Stage) -> None:
    proxy = faults.http(stage.address)
    proxy.make(Slice(bytes=100))
    assert httpx.get(f"http://{proxy.listen}/", timeout=10).is_success


def test_the_command(stage: Stage) -> None:
    command = [sys.executable, "-m", "brownout", "fault", "add", "http", "status", stage.address]
    amounts = ["code=503", "retry_after=2", "header=x-user:42", "--for", "30s", "--json"]
    told = json.loads(subprocess.run([*command, *amounts], capture_output=True, check=True).stdout)
    try:
        url = f"http://{told['listen']}/"
        assert httpx.get(url, headers={"x-user": "42"}, timeout=10).status_code == 503
        assert httpx.get(url, timeout=10).status_code == 200
    finally:
        clear = [sys.executable, "-m", "brownout", "fault", "clear", told["id"]]
        cleared = subprocess.run(clear, capture_output=True, text=True, check=False)
        if cleared.returncode:
            os.kill(told["pid"], signal.SIGKILL)
    assert cleared.stdout.startswith("cleared: ")
