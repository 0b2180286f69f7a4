"""Whose calls are bad: every adapter that knows its connection says so, over real sockets.

One name has two addresses, of which one goes bad. The verdict names it.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import httpx2
import pytest
import requests

from brownout import Guard
from brownout.ext.aiohttp import guarded
from brownout.ext.httpx import Transport
from brownout.ext.requests import Adapter
from tests.ext.server import Server, hang, reply
from tests.seen import classes, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

NAME = "shop.test"
ADDRESSES = ("127.0.0.1", "127.0.0.2")
FLYING = 64
BETWEEN_SECONDS = 0.004
SLOW_SECONDS = 0.02


class Pair:
    """Two servers under one name, at one port."""

    def __init__(self) -> None:
        good = Server()
        self.servers = (good, Server(address=(ADDRESSES[1], good.port)))
        self.good, self.bad = self.servers
        for server in self.servers:
            server.otherwise = reply(connection="close")  # so that they take turns
        self.url = f"http://{NAME}:{good.port}"
        self.backend = f"{ADDRESSES[1]}:{good.port}"

    def close(self) -> None:
        for server in self.servers:
            server.close()


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    real, turn = socket.getaddrinfo, count()

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in {NAME, NAME.encode()}:
            return real(host, *args, **kwargs)
        return real(ADDRESSES[next(turn) % 2], *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    one = Pair()
    yield one
    one.close()


@contextmanager
def in_threads(get: Callable[[], Any]) -> Iterator[None]:
    stop = threading.Event()

    def ask() -> None:
        with suppress(Exception):
            get()

    def run() -> None:
        with ThreadPoolExecutor(FLYING) as pool:
            while not stop.wait(BETWEEN_SECONDS):
                pool.submit(ask)
            pool.shutdown(cancel_futures=True)

    with running(run, stop):
        yield


@contextmanager
def in_tasks(client: Callable[[], Any], get: Callable[[Any], Awaitable[Any]]) -> Iterator[None]:
    stop = threading.Event()

    async def run() -> None:
        tasks = []
        async with client() as made:
            while not stop.is_set():
                await asyncio.sleep(BETWEEN_SECONDS)
                tasks.append(asyncio.ensure_future(get(made)))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    with running(lambda: asyncio.run(run()), stop):
        yield


@contextmanager
def running(run: Callable[[], None], stop: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def by_httpx(lib: Any, guard: Guard, url: str, **how: Any) -> Iterator[None]:
    with (
        lib.Client(
            transport=Transport(lib.HTTPTransport(verify=False, **how), guard=guard)
        ) as client,
        in_threads(lambda: client.get(url)),
    ):
        yield


@contextmanager
def by_async_httpx(lib: Any, guard: Guard, url: str, **how: Any) -> Iterator[None]:
    def client() -> Any:
        return lib.AsyncClient(
            transport=Transport(lib.AsyncHTTPTransport(verify=False, **how), guard=guard)
        )

    with in_tasks(client, lambda client: client.get(url)):
        yield


@contextmanager
def by_requests(guard: Guard, url: str) -> Iterator[None]:
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", Adapter(guard=guard, pool_maxsize=FLYING))
        with in_threads(lambda: session.get(url)):
            yield


@contextmanager
def by_aiohttp(guard: Guard, url: str) -> Iterator[None]:
    async def get(session: Any) -> None:
        async with session.get(url) as response:
            await response.read()

    def client() -> Any:
        connector = aiohttp.TCPConnector(use_dns_cache=False)
        return aiohttp.ClientSession(connector=connector, **guarded(guard, resend=False))

    with in_tasks(client, get):
        yield


CLIENTS = {
    "httpx": lambda *of: by_httpx(httpx, *of),
    "httpx2": lambda *of: by_httpx(httpx2, *of),
    "httpx, async": lambda *of: by_async_httpx(httpx, *of),
    "httpx2, async": lambda *of: by_async_httpx(httpx2, *of),
    "requests": by_requests,
    "aiohttp": by_aiohttp,
}


def watching() -> Guard:
    return Guard("shop", timeout=5.0, breaker=None, retry=None)


def well(guard: Guard) -> bool:
    return classes(guard).get("SUCCESS", 0) >= 100


@pytest.mark.parametrize("client", ["httpx2", "aiohttp"])
def test_the_backend_that_fails_is_named(client: str, pair: Pair) -> None:
    guard = watching()
    with CLIENTS[client](guard, pair.url):
        until(lambda: well(guard))
        pair.bad.otherwise = reply(500, connection="close")
        until(lambda: f"; it is backend {pair.backend}: " in guard.verdict.because)


@pytest.mark.parametrize("client", CLIENTS)
def test_the_backend_that_hangs_is_named_while_its_calls_wait(client: str, pair: Pair) -> None:
    guard = watching()
    with CLIENTS[client](guard, pair.url):
        until(lambda: well(guard))
        pair.bad.otherwise = hang
        until(lambda: f"; it is backend {pair.backend}: " in guard.verdict.because)
        assert set(classes(guard)) == {"SUCCESS"}
        pair.close()


class Limping(Server):
    """Of its connections the first does no work."""

    def __init__(self) -> None:
        self.bad = 0
        super().__init__()
        self.otherwise = self._slow(reply())

    @staticmethod
    def _slow(then: Callable[..., bool]) -> Callable[..., bool]:
        def do(server: Server, connection: socket.socket) -> bool:
            server.go.wait(SLOW_SECONDS)
            return then(server, connection)

        return do

    def limp(self) -> None:
        well, ill = self.otherwise, self._slow(reply(500))

        def do(server: Server, connection: socket.socket) -> bool:
            port = connection.getpeername()[1]
            self.bad = self.bad or port
            return (ill if port == self.bad else well)(server, connection)

        self.otherwise = do


@pytest.mark.parametrize("client", ["httpx2, async", "aiohttp", "requests"])
def test_one_bad_connection_of_several_to_one_backend_is_named(client: str) -> None:
    guard, server = watching(), Limping()
    try:
        with CLIENTS[client](guard, server.url):
            until(lambda: well(guard))
            server.limp()
            until(lambda: f"; it is connection {server.bad}: " in guard.verdict.because)
    finally:
        server.close()
