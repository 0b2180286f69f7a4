"""What adapters say of the backend and the connection of an attempt, as the sockets have it."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import requests

from brownout.ext.aiohttp import guarded
from brownout.ext.requests import Adapter
from tests.ext.client import KINDS, client_of, generous
from tests.ext.proxy import Proxy
from tests.ext.server import Server, cut, reply
from tests.ext.streams import StreamServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from brownout import Guard
    from tests.ext.conftest import Tls

    Get = Callable[[str], int]


@contextmanager
def by_httpx(
    kind: Any, guard: Guard, *, proxy: str = "", uds: str | None = None, tls: Any = False
) -> Iterator[Get]:
    through = {"proxy": kind[0].Proxy(proxy), "trust_env": False} if proxy else {"uds": uds}
    with client_of(kind, guard, verify=tls, **through) as client:
        yield lambda url: client.get(url).status_code


@contextmanager
def by_requests(guard: Guard, *, proxy: str = "") -> Iterator[Get]:
    with requests.Session() as session:
        session.trust_env = False
        session.proxies = {"http": proxy}
        session.mount("http://", Adapter(guard=guard))
        yield lambda url: session.get(url).status_code


@contextmanager
def by_aiohttp(
    guard: Guard, *, proxy: str = "", uds: str = "", tls: ssl.SSLContext | None = None
) -> Iterator[Get]:
    async def make() -> aiohttp.ClientSession:
        connector = aiohttp.UnixConnector(uds) if uds else aiohttp.TCPConnector(ssl=tls or True)
        return aiohttp.ClientSession(connector=connector, **guarded(guard, resend=False))

    async def get(url: str) -> int:
        async with session.get(url, proxy=proxy or None) as response:
            await response.read()
            return response.status

    with asyncio.Runner() as runner:
        session = runner.run(make())
        try:
            yield lambda url: runner.run(get(url))
        finally:
            runner.run(session.close())


HTTPX = {
    f"{lib.__name__}{', async' * is_async}": (
        lambda *of, kind=(lib, is_async), **how: by_httpx(kind, *of, **how)
    )
    for lib, is_async in KINDS
}
ALL: dict[str, Any] = {**HTTPX, "aiohttp": by_aiohttp, "requests": by_requests}
each = pytest.mark.parametrize("by", ALL.values(), ids=ALL)
each_but_requests = pytest.mark.parametrize(
    "by", [by for name, by in ALL.items() if name != "requests"], ids=[*ALL][:-1]
)


def labels(guard: Guard) -> list[dict[str, str]]:
    """Those of all attempts that have ended."""
    guard._target.fold(time.monotonic())  # what held attempts showed waits for it
    (operation,) = guard._target.operations.values()
    return [dict(one.labels) for one in operation.evidence.labelled(-inf)]


def here(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


class Noting(Server):
    """It writes down the port of the caller of each request."""

    def __init__(self, **how: Any) -> None:
        self.ports: list[str] = []
        super().__init__(**how)
        self.otherwise = self.noted(reply())

    def noted(self, then: Callable[..., bool]) -> Callable[..., bool]:
        def do(server: Server, connection: socket.socket) -> bool:
            peer = connection.getpeername()
            self.ports.append(str(peer[1]) if peer else "")
            return then(server, connection)

        return do


@pytest.fixture
def noting() -> Iterator[Noting]:
    one = Noting()
    yield one
    one.close()


@each
def test_an_attempt_bears_its_backend_and_its_connection(by: Any, noting: Noting) -> None:
    guard = generous()
    with by(guard) as get:
        noting.script.append(noting.noted(reply()))
        noting.script.append(noting.noted(reply(connection="close")))
        assert [get(noting.url) for _ in range(4)] == [200] * 4
    first, second, third, fourth = noting.ports
    assert first == second != third == fourth
    told = labels(guard)
    assert {one["backend"] for one in told} == {here(noting)}
    assert sorted(one["connection"] for one in told) == sorted(noting.ports)


@each
def test_each_try_bears_its_own(by: Any, noting: Noting) -> None:
    guard = generous()
    with by(guard) as get:
        noting.script += [noting.noted(reply(500, connection="close")), noting.noted(cut)]
        assert get(noting.url) == 200
    assert len(set(noting.ports)) == 3
    assert [one["connection"] for one in labels(guard)] == noting.ports


@each_but_requests
def test_under_tls(by: Any, tls: Tls) -> None:
    guard, server = generous(), Noting(tls=tls.server)
    try:
        with by(guard, tls=tls.client) as get:
            assert get(server.url) == get(server.url) == 200
    finally:
        server.close()
    assert labels(guard) == [{"backend": here(server), "connection": server.ports[0]}] * 2


@each
def test_an_address_of_ipv6_is_written_in_brackets(by: Any) -> None:
    guard, server = generous(), Noting(address=("::1", 0), family=socket.AF_INET6)
    try:
        with by(guard) as get:
            assert get(f"http://[::1]:{server.port}") == 200
    finally:
        server.close()
    (only,) = labels(guard)
    assert only == {"backend": f"[::1]:{server.port}", "connection": server.ports[0]}


@each_but_requests
def test_a_unix_socket_is_told_by_its_path(by: Any, tmp_path: Path) -> None:
    guard, path = generous(), str(tmp_path / "shop.socket")
    server = Noting(address=path, family=socket.AF_UNIX)
    try:
        with by(guard, uds=path) as get:
            assert get("http://shop.test") == get("http://shop.test") == 200
    finally:
        server.close()
    first, second = labels(guard)
    assert first == second
    assert first["backend"] == path
    assert first["connection"].startswith("fd ")


@each
def test_behind_a_proxy_no_backend_is_claimed(by: Any, noting: Noting) -> None:
    guard, proxy = generous(), Proxy()
    try:
        with by(guard, proxy=proxy.url) as get:
            assert get(noting.url) == 200
    finally:
        proxy.close()
    (only,) = labels(guard)
    assert set(only) == {"connection"}


@each_but_requests
def test_nor_through_a_tunnel(by: Any, tls: Tls) -> None:
    guard, proxy, server = generous(), Proxy(), Noting(tls=tls.server)
    try:
        with by(guard, proxy=proxy.url, tls=tls.client) as get:
            assert get(server.url) == 200
    finally:
        proxy.close()
        server.close()
    (only,) = labels(guard)
    assert set(only) == {"connection"}


def test_streams_of_http2_share_a_connection(kind: Any, tls: Tls) -> None:
    guard, server = generous(), StreamServer(tls.server)
    try:
        with client_of(kind, guard, verify=tls.client, http2=True) as client:
            for _ in range(2):
                assert client.get(f"{server.url}/ok").status_code == 200
        first, second = labels(guard)
    finally:
        server.close()
    assert first == second
    assert first["backend"] == f"127.0.0.1:{server.port}"
    assert server.accepted == 1
