"""What the adapters of HTTP's clients do beside telling: send again, push the time in, and warn."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import httpx2
import pytest
import requests
import urllib3

from brownout import DeadlinePassed, Guard, OutcomeClass, Refused, Retry, Shown, deadline
from brownout.ext.aiohttp import classify as classify_aiohttp
from brownout.ext.aiohttp import guarded
from brownout.ext.httpx import classify as classify_httpx
from brownout.ext.requests import Adapter, ResendWarning
from brownout.ext.requests import classify as classify_requests
from brownout.ext.urllib3 import classify as classify_urllib3
from brownout.ext.urllib3 import watch
from tests.ext.server import Server, cut, reply
from tests.seen import classes

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def generous() -> Guard:
    return Guard("t", retry=Retry(attempts=3, budget=1.0, backoff=0.01), breaker=None)


def asked_requests(guard: Guard, server: Server, method: str = "POST", **more: Any) -> int:
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", Adapter(guard=guard))
        return session.request(method, server.url, data=more.pop("data", b"x"), **more).status_code


def asked_aiohttp(guard: Guard, server: Server, method: str = "POST", **more: Any) -> int:
    async def call() -> int:
        async with (
            aiohttp.ClientSession(**guarded(guard, resend=False)) as session,
            session.request(method, server.url, data=more.pop("data", b"x"), **more) as response,
        ):
            await response.read()
            return response.status

    return asyncio.run(call())


BOTH = pytest.mark.parametrize(
    "asked", [asked_requests, asked_aiohttp], ids=["requests", "aiohttp"]
)


@BOTH
def test_what_was_turned_away_is_sent_again(asked: Any, server: Server) -> None:
    guard = generous()
    server.script.extend([reply(429), reply(503, outcome="not-started")])
    assert asked(guard, server) == 200
    assert classes(guard) == {"OVERLOAD": 2, "SUCCESS": 1}


@BOTH
def test_what_may_have_been_done_is_not(asked: Any, server: Server) -> None:
    guard = generous()
    server.script.append(reply(503))
    assert asked(guard, server) == 503
    assert classes(guard) == {"OVERLOAD": 1}


@BOTH
def test_a_key_makes_it_safe(asked: Any, server: Server) -> None:
    guard = generous()
    server.script.extend([reply(500), cut])
    assert asked(guard, server, headers={"Idempotency-Key": "order-1"}) == 200
    assert [came.headers["idempotency-key"] for came in server.came] == ["order-1"] * 3
    assert classes(guard) == {"FAILURE": 2, "SUCCESS": 1}


@BOTH
def test_a_body_that_is_gone_is_not_sent_again(asked: Any, server: Server) -> None:
    async def parts() -> Any:
        yield b"x"

    server.script.append(reply(429))
    data = parts() if asked is asked_aiohttp else iter([b"x"])
    assert asked(generous(), server, data=data) == 429
    assert len(server.came) == 1


@BOTH
def test_the_time_that_is_left_is_told_to_the_next_hop(asked: Any, server: Server) -> None:
    assert asked(Guard("t", timeout=2.0), server) == 200
    assert 0 < int(server.came[0].headers["x-envoy-expected-rq-timeout-ms"]) <= 2000


@BOTH
def test_without_time_nothing_is_sent(asked: Any, server: Server) -> None:
    with deadline(0.0), pytest.raises(DeadlinePassed) as caught:
        asked(Guard("t"), server)
    assert isinstance(caught.value, Refused)
    assert server.came == []


def test_requests_waits_no_longer_than_the_guard_allows(server: Server) -> None:
    guard = Guard("t", timeout=0.3)
    server.script.append(lambda *_: not asyncio.run(asyncio.sleep(1.5)))
    with pytest.raises(requests.Timeout):
        asked_requests(guard, server)
    assert classes(guard) == {"UNKNOWN": 1}


def test_an_empty_pool_is_no_evidence_against_the_target(server: Server) -> None:
    manager = watch(urllib3.PoolManager(maxsize=1, block=True, retries=False))
    held = manager.request("GET", server.url, preload_content=False)
    guard = Guard("t")
    with pytest.raises(urllib3.exceptions.EmptyPoolError) as caught:
        guard.call(manager.request, "GET", server.url, pool_timeout=0.05)
    held.release_conn()
    manager.clear()
    assert classes(guard) == {"LOCAL": 1}
    assert classify_urllib3(caught.value) == Shown.of(OutcomeClass.LOCAL)


def test_an_empty_pool_of_aiohttp_is_none_either(server: Server) -> None:
    guard, own = Guard("t"), Guard("own")

    async def call() -> None:
        span = aiohttp.ClientTimeout(connect=0.05)
        connector = aiohttp.TCPConnector(limit=1)
        async with (
            aiohttp.ClientSession(
                connector=connector, timeout=span, **guarded(own, resend=False)
            ) as session,
            session.get(server.url),
        ):
            await guard.acall(asking, session)

    async def asking(session: aiohttp.ClientSession) -> None:
        async with session.get(server.url):
            pass

    def half(_: Any, one: Any) -> bool:
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        return False

    server.script.append(half)
    with pytest.raises(aiohttp.ConnectionTimeoutError):
        asyncio.run(call())
    assert classes(guard) == {"LOCAL": 1}


# ------------------------------------------------------------------------------ sending again


def test_a_urllib3_that_sends_put_again_is_reported_once() -> None:
    manager = urllib3.PoolManager()
    with pytest.warns(ResendWarning, match="DELETE, PUT .*retries=False"):
        watch(manager)
    watch(manager)
    watch(urllib3.PoolManager(retries=False))
    watch(urllib3.PoolManager(retries=urllib3.Retry(3, allowed_methods={"GET"})))
    with pytest.raises(TypeError, match="PoolManager"):
        watch("http://")


def test_an_adapter_of_requests_is_reported_where_it_does() -> None:
    Adapter()
    with pytest.warns(ResendWarning, match="max_retries"):
        Adapter(max_retries=3)


def test_a_session_of_aiohttp_is_reported_when_it_puts(server: Server) -> None:
    async def call(resend: bool | None) -> None:
        async with aiohttp.ClientSession(**guarded(None, resend=resend)) as session:
            for _ in range(2):
                async with session.put(server.url, data=b"x") as response:
                    await response.read()

    with pytest.warns(ResendWarning, match="resend=False") as caught:
        asyncio.run(call(None))
    assert len(caught) == 1
    asyncio.run(call(True))
    asyncio.run(call(False))


def test_what_is_no_error_of_theirs_is_not_theirs_to_judge() -> None:
    for classify in (classify_aiohttp, classify_requests, classify_urllib3):
        assert classify(ValueError("x")) is None


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_stream_that_was_refused_unread_is_certain(library: Any) -> None:
    class Reset:
        error_code = 7

    error = library.RemoteProtocolError("<StreamReset>")
    error.__cause__ = RuntimeError(Reset())
    shown = classify_httpx(error)
    assert shown == Shown.of(OutcomeClass.OVERLOAD)
    assert classify_httpx(library.RemoteProtocolError("x")) == Shown.of(OutcomeClass.FAILURE)


def test_an_adapter_that_was_pickled_only_looks(server: Server) -> None:
    with requests.Session() as session:
        session.mount("http://", pickle.loads(pickle.dumps(Adapter(guard=Guard("t")))))
        assert session.get(server.url).status_code == 200
