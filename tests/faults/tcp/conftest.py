"""An upstream that echoes, proxies before it on either loop, and a client in another process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from brownout.fault import tcp
from tests.faults.tcp.echo import Echo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brownout.fault import Proxy


END_SECONDS = 10.0


class Saw(NamedTuple):
    """What one step gave the client: data, or the name of an exception; and how long it took."""

    got: str | None
    error: str | None
    seconds: float


class Client:
    """One connection of the outsider."""

    def __init__(self, outsider: Outsider, number: int) -> None:
        self._outsider = outsider
        self.number = number

    def _ask(self, what: str, **more: Any) -> Saw:
        return self._outsider.ask(what, self.number, **more)

    def connect(self, to: str, wait: float = 5.0) -> Saw:
        return self._ask("connect", to=to, wait=wait)

    def send(self, data: str) -> Saw:
        return self._ask("send", data=data, wait=5.0)

    def read(self, size: int = 0, wait: float = 5.0) -> Saw:
        return self._ask("read", size=size, wait=wait)

    def call(self, data: str) -> Saw:
        """Send it, and read as much."""
        self.send(data)
        return self.read(len(data))

    def end(self) -> None:
        self._ask("end")

    def close(self) -> None:
        self._ask("close")


class Outsider:
    """The process, and what it is asked to do."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("outsider.py"))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._numbers = count()

    def ask(self, what: str, number: int, **more: Any) -> Saw:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"what": what, "number": number, **more}) + "\n")
        self._process.stdin.flush()
        return Saw(**json.loads(self._process.stdout.readline()))

    def new(self) -> Client:
        return Client(self, next(self._numbers))

    def client(self, to: str) -> Client:
        """Connected."""
        client = self.new()
        assert client.connect(to).error is None
        return client

    def end(self) -> None:
        """It ends at the end of what it is told; by a kill where that is not enough."""
        try:
            self._process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise


@pytest.fixture(scope="session")
def outsider() -> Iterator[Outsider]:
    outsider = Outsider()
    try:
        yield outsider
    finally:
        outsider.end()


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as echo:
        yield echo


@pytest.fixture(params=["asyncio", "uvloop"])
def proxy(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, echo: Echo
) -> Iterator[Proxy]:
    if request.param == "asyncio":
        monkeypatch.setattr("brownout.fault.tcp.thread.new_loop", asyncio.new_event_loop)
    else:
        pytest.importorskip("uvloop")
    with tcp.running(echo.address) as proxy:
        yield proxy
    assert proxy.connections == 0
    assert [each for each in threading.enumerate() if "brownout proxy" in each.name] == []


@pytest.fixture
def client(outsider: Outsider, proxy: Proxy) -> Client:
    """Connected through the proxy, and served once: a live connection."""
    client = outsider.client(proxy.listen)
    assert client.call("hello").got == "hello"
    return client
