"""Giving up under TLS, through a tunnel, through a proxy: the target sees a reset, and no more bytes."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from brownout import Guard, TimedOut
from tests.ext.client import classes, client_of, generous
from tests.ext.proxy import Proxy
from tests.ext.server import Server, begun, count, watch
from tests.ext.streams import StreamServer
from tests.ext.test_httpx_bodies import close, opened, read, used
from tests.seen import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ext.conftest import Tls

ROOM = 4096  # bytes; the kernel doubles it
BODY = 4_000_000  # more than a socket's two ends take
LITTLE = 200_000


@pytest.fixture
def secure(tls: Tls) -> Iterator[Server]:
    one = Server(tls=tls.server)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    one = Proxy()
    try:
        yield one
    finally:
        one.close()


def through(lib: Any, proxy: Proxy, tls: Tls) -> dict[str, Any]:
    return {"proxy": lib.Proxy(proxy.url), "verify": tls.client, "trust_env": False}


# -------------------------------------------------------------------------------------- under TLS


@pytest.mark.parametrize("do", [watch, begun(then=watch)], ids=["headers", "body"])
def test_silence_under_tls_is_aborted(kind: Any, secure: Server, tls: Tls, do: Any) -> None:
    guard = Guard("t", limit=1, timeout=1.0)
    with client_of(kind, guard, verify=tls.client) as client:
        assert client.get(secure.url).text == "ok"
        secure.script.append(do)
        with pytest.raises((TimedOut, client.lib.ReadTimeout)):
            client.get(secure.url)
        until(lambda: secure.left)
        assert secure.left == ["reset"]
        assert used(guard) == (0, 0)
    assert classes(guard) == {"SUCCESS": 1, "UNKNOWN": 1}


def test_whoever_closes_early_under_tls_aborts(kind: Any, secure: Server, tls: Tls) -> None:
    guard = Guard("t", limit=1)
    secure.script.append(begun(then=watch))
    with client_of(kind, guard, verify=tls.client) as client:
        close(client, opened(client, secure.url))
        until(lambda: secure.left)
    assert secure.left == ["reset"]
    assert classes(guard) == {"SUCCESS": 1}


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_what_waits_in_the_socket_is_not_delivered_later(
    kind: Any, tls: Tls, *, encrypted: bool
) -> None:
    """The target reads nothing while its caller waits, and all of it when that one has left."""
    guard = Guard("t", limit=1, timeout=1.0)
    server = Server(on_accept=count, tls=tls.server if encrypted else None)
    server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
    try:
        with client_of(kind, guard, verify=tls.client) as client:
            with pytest.raises((TimedOut, client.lib.WriteTimeout)):
                client.request("POST", server.url, content=b"x" * BODY)
            server.go.set()
            until(lambda: server.left)
    finally:
        server.close()
    assert server.left == ["reset"]
    assert server.late < LITTLE
    assert used(guard) == (0, 0)


def test_http2_under_tls(kind: Any, tls: Tls) -> None:
    guard = Guard("t", timeout=1.0)
    server = StreamServer(tls.server)
    try:
        with client_of(kind, guard, verify=tls.client, http2=True) as client:
            answer = client.get(server.url + "/ok")
            assert (answer.http_version, answer.text) == ("HTTP/2", "ok")
            with pytest.raises((TimedOut, client.lib.ReadTimeout)):
                client.get(server.url + "/hang")
            until(lambda: server.reset or server.left)
            assert client.get(server.url + "/ok").text == "ok"
    finally:
        server.close()
    assert classes(guard) == {"SUCCESS": 2, "UNKNOWN": 1}


# -------------------------------------------------------------------------------- through a proxy


def test_silence_through_a_tunnel_is_aborted(
    kind: Any, secure: Server, proxy: Proxy, tls: Tls
) -> None:
    guard = Guard("t", limit=1, timeout=1.0)
    with client_of(kind, guard, **through(kind[0], proxy, tls)) as client:
        assert client.get(secure.url).text == "ok"
        secure.script.append(watch)
        with pytest.raises((TimedOut, client.lib.ReadTimeout)):
            client.get(secure.url)
        until(lambda: secure.left and proxy.left)
        assert used(guard) == (0, 0)
    assert proxy.asked == [f"CONNECT 127.0.0.1:{secure.port} HTTP/1.1"]
    assert proxy.left == ["reset"]
    assert secure.left == ["reset"]
    assert classes(guard) == {"SUCCESS": 1, "UNKNOWN": 1}


def test_a_stalled_body_through_a_tunnel_is_aborted(
    kind: Any, secure: Server, proxy: Proxy, tls: Tls
) -> None:
    guard = Guard("t", limit=1, timeout=1.0)
    secure.script.append(begun(then=watch))
    with client_of(kind, guard, **through(kind[0], proxy, tls)) as client:
        answer = opened(client, secure.url)
        with pytest.raises((TimedOut, client.lib.ReadTimeout)):
            read(client, answer)
        until(lambda: secure.left and proxy.left)
    assert (proxy.left, secure.left) == (["reset"], ["reset"])
    assert classes(guard) == {"UNKNOWN": 1}


def test_silence_through_a_plain_proxy_is_aborted(
    kind: Any, server: Server, proxy: Proxy, tls: Tls
) -> None:
    guard = Guard("t", limit=1, timeout=1.0)
    server.script.append(watch)
    with client_of(kind, guard, **through(kind[0], proxy, tls)) as client:
        with pytest.raises((TimedOut, client.lib.ReadTimeout)):
            client.get(server.url)
        until(lambda: server.left and proxy.left)
    assert (proxy.left, server.left) == (["reset"], ["reset"])


def test_a_tunnel_that_is_refused_has_sent_nothing(
    kind: Any, secure: Server, proxy: Proxy, tls: Tls
) -> None:
    """So also a POST goes again."""
    guard = generous()
    proxy.script.append("refuse")
    with client_of(kind, guard, **through(kind[0], proxy, tls)) as client:
        assert client.request("POST", secure.url, content=b"x").text == "ok"
    assert len(proxy.asked) == 2
    assert [came.body for came in secure.came] == [b"x"]
    assert classes(guard) == {"CONNECT": 1, "SUCCESS": 1}


def test_a_tunnel_that_does_not_come_about_has_sent_nothing(
    kind: Any, secure: Server, proxy: Proxy, tls: Tls
) -> None:
    guard = generous(timeout=1.0)
    proxy.script.append("hang")
    with client_of(kind, guard, **through(kind[0], proxy, tls)) as client:
        assert client.request("POST", secure.url, content=b"x").text == "ok"
        until(lambda: proxy.left)
    assert proxy.left[0] == "reset"
    assert [came.body for came in secure.came] == [b"x"]
    assert classes(guard) == {"UNKNOWN": 1, "SUCCESS": 1}
