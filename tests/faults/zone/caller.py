"""What a caller in a zone does and sees: run by a worker there, whose clients stay open between two calls."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT = 0.3
LINES, WEB, DATAGRAMS, CACHE = 7000, 7001, 7002, 6379
OPEN: dict[str, Any] = {}


def seen(act: Callable[[], object]) -> str:
    """ "ok" and the answer, or the exception as its user reads it."""
    try:
        return f"ok {act()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


class Raw:
    def __init__(self, host: str, timeout: float = TIMEOUT) -> None:
        self.socket = socket.create_connection((host, LINES), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, line: str = "get") -> str:
        self.socket.sendall(f"{line}\n".encode())
        return self.socket.recv(100).decode().strip()

    def close(self) -> None:
        self.socket.close()


class Web:
    def __init__(self, host: str, timeout: float = TIMEOUT) -> None:
        import httpx

        self.client = httpx.Client(
            base_url=f"http://{host}:{WEB}", timeout=timeout, trust_env=False
        )

    def ask(self, line: str = "get") -> str:
        return self.client.get(f"/{line}").text.strip()

    def close(self) -> None:
        self.client.close()


class Cache:
    def __init__(self, host: str, timeout: float = TIMEOUT) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.client = redis.Redis(
            host,
            CACHE,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )

    def ask(self, line: str = "get") -> str:
        return str(self.client.incr("n") if line == "incr" else self.client.get("n"))

    def close(self) -> None:
        self.client.close()


CLIENTS: dict[str, Callable[[str], Any]] = {"raw": Raw, "httpx": Web, "redis": Cache}


def connect(kind: str, host: str) -> str:
    """Open the client that stays open, and ask it once: it is good."""
    if kind in OPEN:
        OPEN.pop(kind).close()
    OPEN[kind] = CLIENTS[kind](host)
    return str(OPEN[kind].ask())


def on_open(kind: str, line: str = "get") -> str:
    return seen(lambda: OPEN[kind].ask(line))


def abort() -> None:
    """Reset the raw connection: nothing of it is sent any more."""
    raw = OPEN.pop("raw")
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


def on_new(kind: str, host: str, line: str = "get") -> str:
    def act() -> str:
        client = CLIENTS[kind](host)
        try:
            return str(client.ask(line))
        finally:
            client.close()

    return seen(act)


def datagram(host: str, line: str = "get", timeout: float = TIMEOUT) -> str:
    def act() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.settimeout(timeout)
            one.connect((host, DATAGRAMS))
            one.send(line.encode())
            return one.recv(100).decode().strip()

    return seen(act)


def connect_seconds(host: str, port: int = LINES) -> float:
    began = time.monotonic()
    with socket.create_connection((host, port), 10):
        return time.monotonic() - began


def turns(count: int, timeout: float = 10) -> list[float]:
    """How long each exchange took, sorted."""
    OPEN["raw"].socket.settimeout(timeout)
    took: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        OPEN["raw"].ask()
        took.append(time.perf_counter() - began)
    OPEN["raw"].socket.settimeout(TIMEOUT)
    return sorted(took)


def download(host: str, size: int) -> float:
    """Bytes a second."""
    raw = Raw(host, 20)
    try:
        began = time.monotonic()
        raw.socket.sendall(f"much {size}\n".encode())
        left = size
        while left:
            left -= len(raw.socket.recv(65_536))
        return size / (time.monotonic() - began)
    finally:
        raw.close()


def which_connect(host: str, count: int) -> list[bool]:
    """Of so many new connections, one after the other: which were made."""
    return [on_new("raw", host).startswith("ok") for _ in range(count)]


def network() -> tuple[str, str, str]:
    """The namespace of the process, that of this thread, and the zone as the environment names it."""
    return (
        os.readlink("/proc/self/ns/net"),
        os.readlink("/proc/thread-self/ns/net"),
        os.environ.get("BROWNOUT_ZONE", ""),
    )


def routes() -> list[str]:
    with open("/proc/net/route", encoding="ascii") as file:
        return file.read().splitlines()[1:]


def reach(address: str, port: int) -> str:
    return seen(lambda: socket.create_connection((address, port), TIMEOUT).close())


def local_echo() -> str:
    """A connection within the zone, on its own loopback."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), 5) as one,
        server.accept()[0] as accepted,
    ):
        accepted.sendall(b"here")
        return one.recv(10).decode()


def child_namespace() -> str:
    code = "import os; print(os.readlink('/proc/self/ns/net'))"
    return subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def together(count: int) -> int:
    """Returns once so many calls are at it at the same time."""
    with _TOGETHER:
        OPEN["together"] = OPEN.get("together", 0) + 1
        _TOGETHER.notify_all()
        if not _TOGETHER.wait_for(lambda: OPEN["together"] >= count, 10):
            raise TimeoutError(OPEN["together"])
    return threading.get_ident()


_TOGETHER = threading.Condition()


class Unfit(Exception):
    def __init__(self, one: str, two: str) -> None:  # so that it can't be unpickled
        super().__init__(one + two)


def fail(how: str) -> object:
    if how == "value":
        raise ValueError("no")
    if how == "unfit":
        raise Unfit("a", "b")
    if how == "answer":
        return threading.Lock()
    if how == "exit":
        os._exit(3)
    return how
