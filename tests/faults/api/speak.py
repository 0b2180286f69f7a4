"""A server process, a client of its API, and targets behind its proxies: what these tests speak with."""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT = 10.0
TARGET = "127.0.0.1:9"  # nobody needs to be there


class Told(NamedTuple):
    code: int
    body: Any
    headers: dict[str, str]


class Api:
    """Asks one server; each request on a connection of its own."""

    def __init__(self, address: str, **headers: str) -> None:
        self.address = address
        self.headers = headers

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Told:
        with closing(http.client.HTTPConnection(self.address, timeout=LIMIT)) as connection:
            return self._ask(connection, method, path, body, **headers)

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Any = None,
        **headers: str,
    ) -> Told:
        if body is not None and not isinstance(body, bytes | str):
            body = json.dumps(body)
        sent = {
            name.replace("_", "-"): value for name, value in {**self.headers, **headers}.items()
        }
        connection.request(method, path, body, sent)
        got = connection.getresponse()
        text = got.read()
        told = {name.lower(): value for name, value in got.getheaders()}
        is_json = told.get("content-type") == "application/json"
        return Told(got.status, json.loads(text) if is_json and text else text, told)

    def get(self, path: str) -> Any:
        told = self.ask("GET", path)
        assert told.code == 200, told
        return told.body

    def proxy(self, upstream: str = TARGET, name: str = "p", **more: Any) -> str:
        """Make one; where it listens."""
        told = self.ask("POST", "/proxies", {"name": name, "upstream": upstream, **more})
        assert told.code == 201, told
        listen: str = told.body["listen"]
        return listen

    def toxic(self, type_: str, on: str = "p", **given: Any) -> Any:
        told = self.ask("POST", f"/proxies/{on}/toxics", {"type": type_, **given})
        assert told.code == 200, told
        return told.body

    def forget(self) -> None:
        with closing(http.client.HTTPConnection(self.address, timeout=LIMIT)) as connection:
            for name in self._ask(connection, "GET", "/proxies").body:
                path = f"/proxies/{quote(name, safe='')}"
                assert self._ask(connection, "DELETE", path).code == 204


@contextmanager
def served(*arguments: str, **environ: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`brownout fault serve` in a process of its own; its address, and it."""
    command = [sys.executable, "-m", "brownout", "fault", "serve", *arguments]
    if "--listen" not in arguments:
        command += ["--listen", "127.0.0.1:0"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "BROWNOUT_FAULTS": folder, **environ},
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], LIMIT)
            line = process.stdout.readline() if ready else ""
            assert line.startswith("toxiproxy's API on "), line
            yield line.removeprefix("toxiproxy's API on ").partition(",")[0], process
        finally:
            process.terminate()
            try:
                process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


# ------------------------------------------------------------------------------------------ traffic


@contextmanager
def target(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """A TCP server whose connections are handled in threads; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    alive: list[socket.socket] = []

    def one(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            handle(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(LIMIT)
                alive.append(connection)
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield "{}:{}".format(*listener.getsockname())
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(LIMIT)  # before the close, lest it accept at another's socket of that number
        listener.close()
        for connection in alive:
            with suppress(OSError):
                connection.close()


def echo(connection: socket.socket) -> None:
    """Say back what comes, and at its end `bye`."""
    while data := connection.recv(1 << 16):
        connection.sendall(data)
    connection.sendall(b"bye")


def dial(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    connection = socket.create_connection((host.strip("[]"), int(port)), timeout=LIMIT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read(connection: socket.socket, size: int) -> bytes:
    """So many bytes, fewer at the end."""
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data


def round_trip(connection: socket.socket, data: bytes = b"ping") -> float:
    """Seconds until all of it was echoed."""
    began = time.perf_counter()
    connection.sendall(data)
    assert read(connection, len(data)) == data
    return time.perf_counter() - began


def ending(connection: socket.socket, seconds: float = LIMIT) -> str:
    """How it ends: "reset", "closed", or "open" if it doesn't within so long."""
    connection.settimeout(seconds)
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "open"
    return "closed"


def answered(listen: str) -> bool:
    """Whether a new connection's ping is, before it is closed."""
    with closing(dial(listen)) as connection:
        connection.sendall(b"ping")
        return bool(connection.recv(4))


def leave_hard(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
