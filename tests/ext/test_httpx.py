"""The adapter against the real httpx and httpx2, sync and async, over real sockets.

A test is written once, for a client that looks sync; under asyncio it runs on a loop of its own.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from threading import Event
from typing import Any

import httpx
import httpx2
import pytest

from brownout import (
    DeadlineHeader,
    DeadlinePassed,
    Guard,
    LimitReached,
    Phase,
    Retry,
    State,
    TimedOut,
    deadline,
    states,
)
from brownout._core.deadline import HEADER
from brownout.ext.httpx import Transport
from tests.ext import listening
from tests.ext.client import KINDS, classes, client_of, generous
from tests.ext.server import Server, cut, hang, held, reply, reset, reset_at_first_byte
from tests.seen import LIMIT_SECONDS, until


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


# --------------------------------------------------------------------------------------- answers


def test_a_success(kind: Any, server: Server) -> None:
    guard = generous()
    with client_of(kind, guard) as client:
        answer = client.get(server.url + "/a?b=c")
        assert (answer.status_code, answer.text) == (200, "ok")
    assert classes(guard) == {"SUCCESS": 1}
    assert set(guard._target.operations) == {"GET"}


@pytest.mark.parametrize("status", [301, 400, 401, 404, 409])
def test_an_answer_below_500_is_the_targets_success(kind: Any, server: Server, status: int) -> None:
    guard = generous()
    server.script.append(reply(status))
    with client_of(kind, guard) as client:
        assert client.get(server.url).status_code == status
    assert classes(guard) == {"SUCCESS": 1}
    assert len(server.came) == 1


def test_a_500_is_repeated_where_that_is_harmless(kind: Any, server: Server) -> None:
    guard = generous()
    with client_of(kind, guard) as client:
        server.script.extend([reply(500), reply(502)])
        assert client.get(server.url).status_code == 200
        assert len(server.came) == 3
        server.script.append(reply(500, b"its own words"))
        answer = client.request("POST", server.url, content=b"x")
        assert (answer.status_code, answer.text) == (500, "its own words")
        assert len(server.came) == 4
    assert classes(guard) == {"FAILURE": 3, "SUCCESS": 1}
    assert set(guard._target.operations) == {"GET", "POST"}


def test_a_guard_that_is_idempotent_repeats_a_post(kind: Any, server: Server) -> None:
    guard = generous(idempotent=True)
    server.script.append(reply(500))
    with client_of(kind, guard) as client:
        assert client.request("POST", server.url, content=b"x").status_code == 200
    assert [came.body for came in server.came] == [b"x", b"x"]


def test_a_post_with_an_idempotency_key_is_repeated_with_the_same_key(
    kind: Any, server: Server
) -> None:
    guard = generous()
    server.script.extend([reply(500), reply(200)])
    with client_of(kind, guard) as client:
        answer = client.request(
            "POST", server.url, content=b"x", headers={"Idempotency-Key": "order-1"}
        )
        assert answer.status_code == 200
    assert [came.headers["idempotency-key"] for came in server.came] == ["order-1", "order-1"]


def test_the_budget_bounds_what_is_repeated(kind: Any, server: Server) -> None:
    guard = Guard("t", retry=Retry(attempts=3, budget=0.1, backoff=0.01))
    server.script.extend([reply(500)] * 40)
    with client_of(kind, guard) as client:
        for _ in range(20):
            assert client.get(server.url).status_code == 500
    assert len(server.came) in {22, 23}  # one token, and a tenth of 20


@pytest.mark.parametrize(
    "refusal", [reply(429), reply(503, outcome="not-started")], ids=["429", "503 not-started"]
)
def test_a_refusal_for_overload_is_repeated(kind: Any, server: Server, refusal: Any) -> None:
    guard = generous()
    server.script.append(refusal)
    with client_of(kind, guard) as client:
        assert client.request("POST", server.url, content=b"x").status_code == 200
    assert classes(guard) == {"OVERLOAD": 1, "SUCCESS": 1}


def test_a_503_that_says_no_more_may_hide_what_was_done(kind: Any, server: Server) -> None:
    guard = generous()
    server.script.extend([reply(503), reply(503)])
    with client_of(kind, guard) as client:
        assert client.request("POST", server.url, content=b"x").status_code == 503
        assert client.get(server.url).status_code == 200
    assert classes(guard) == {"OVERLOAD": 2, "SUCCESS": 1}


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[3]], ids=["httpx-sync", "httpx2-async"])
def test_a_refusal_for_overload_is_repeated_after_its_time(kind: Any, server: Server) -> None:
    guard = generous()
    server.script.append(reply(503, retry_after="1"))
    with client_of(kind, guard) as client:
        began = time.monotonic()
        assert client.get(server.url).status_code == 200
        assert 1.0 <= time.monotonic() - began < 3.0


def test_a_retry_after_that_the_deadline_does_not_leave_is_not_waited_for(
    kind: Any, server: Server
) -> None:
    guard = generous()
    server.script.append(reply(503, b"busy", retry_after="3"))
    with client_of(kind, guard) as client, deadline(2.0):
        began = time.monotonic()
        answer = client.get(server.url)
        assert (answer.status_code, answer.text) == (503, "busy")
        assert time.monotonic() - began < 1.0
    assert len(server.came) == 1


# -------------------------------------------------------------------------------------- failures


def test_nobody_listens_is_certain(kind: Any, closed_port: int) -> None:
    guard = generous()
    with client_of(kind, guard) as client, pytest.raises(client.lib.ConnectError) as caught:
        client.request("POST", f"http://127.0.0.1:{closed_port}/", content=b"x")
    assert classes(guard) == {"CONNECT": 3}  # never sent: also a POST is repeated
    assert "3 attempts at t.POST" in caught.value.__notes__[0]


def test_silence_is_unknown(kind: Any, server: Server) -> None:
    guard = generous(timeout=0.2)
    server.script.extend([hang, hang])
    with client_of(kind, guard) as client:
        expected = TimedOut if client.is_async else client.lib.ReadTimeout
        began = time.monotonic()
        with pytest.raises(expected):
            client.request("POST", server.url, content=b"x")
        assert 0.15 < time.monotonic() - began < 1.0
        assert len(server.came) == 1  # it may have been done: not repeated
        assert client.get(server.url).status_code == 200  # harmless: repeated
    assert len(server.came) == 3
    assert classes(guard) == {"UNKNOWN": 2, "SUCCESS": 1}


@pytest.mark.parametrize("end", [cut, reset])
def test_a_connection_that_breaks_after_sending_is_unknown(
    kind: Any, server: Server, end: Any
) -> None:
    guard = generous()
    server.script.append(end)
    with client_of(kind, guard) as client, pytest.raises(client.lib.TransportError):
        client.request("POST", server.url, content=b"x")
    assert len(server.came) == 1
    assert classes(guard) == {"FAILURE": 1}
    server.script.append(end)
    with client_of(kind, guard) as client:
        assert client.get(server.url).status_code == 200
    assert classes(guard) == {"FAILURE": 2, "SUCCESS": 1}


def test_a_connection_that_breaks_before_sending_is_certain(kind: Any) -> None:
    """While the TLS handshake is under way nothing of the request has been sent."""
    one = Server(on_accept=reset_at_first_byte)
    guard = generous()
    try:
        url = f"https://127.0.0.1:{one.port}"
        with client_of(kind, guard) as client, pytest.raises(client.lib.TransportError):
            client.request("POST", url, content=b"x")
    finally:
        one.close()
    assert one.accepted == 3
    assert classes(guard) == {"CONNECT": 3}


def test_a_connection_that_is_reset_before_a_byte_is_read_is_not_certain(kind: Any) -> None:
    one = Server(on_accept=reset)
    guard = generous()
    try:
        with client_of(kind, guard) as client, pytest.raises(client.lib.TransportError):
            client.request("POST", one.url, content=b"x")
    finally:
        one.close()
    # Where the reset overtakes the connect it is certain after all, and repeated; no write is.
    counts = classes(guard)
    assert sum(counts.values()) == one.accepted
    assert counts == {"CONNECT": 3} or counts["FAILURE"] == 1


def test_a_body_that_can_be_read_once_is_never_sent_again(kind: Any, server: Server) -> None:
    guard = generous(timeout=0.3)
    with client_of(kind, guard) as client:
        for end in (reply(500), reply(503), reply(429), cut, hang):
            server.script.append(end)
            before = len(server.came)
            try:
                status = client.request("PUT", server.url, content=client.body(b"a", b"b"))
                assert status.status_code >= 429
            except (client.lib.TransportError, TimedOut):
                pass
            assert len(server.came) == before + 1
        assert client.request("PUT", server.url, content=client.body(b"a")).status_code == 200


def test_a_body_that_fails_is_never_sent_again(kind: Any, server: Server) -> None:
    guard = generous()

    async def abroken() -> Any:
        yield b"a"
        raise ZeroDivisionError

    def broken() -> Any:
        yield b"a"
        raise ZeroDivisionError

    with client_of(kind, guard) as client, pytest.raises(ZeroDivisionError):
        client.request("PUT", server.url, content=abroken() if client.is_async else broken())
    assert sum(classes(guard).values()) == 1


def test_a_body_that_was_not_read_may_be_sent_yet(kind: Any, closed_port: int) -> None:
    guard = generous()
    url = f"http://127.0.0.1:{closed_port}/"
    with client_of(kind, guard) as client, pytest.raises(client.lib.ConnectError):
        client.request("POST", url, content=client.body(b"a"))
    assert classes(guard) == {"CONNECT": 3}


# -------------------------------------------------------------------------------------- the pool


def limits(lib: Any) -> Any:
    return lib.Limits(max_connections=1, max_keepalive_connections=1)


def test_the_wait_for_our_own_pool_is_not_the_targets_time(kind: Any, server: Server) -> None:
    guard = Guard("t", timeout=5.0)
    server.script.append(held(then=reply()))

    def meanwhile() -> None:
        until(lambda: len(server.came) == 1)
        guard._target.fold(time.monotonic())
        until(lambda: guard._target.operations["GET"].evidence.in_flight == 4)
        Event().wait(0.4)
        server.go.set()

    with client_of(kind, guard, limits=limits(kind[0])) as client:
        ends = client.together([server.url] * 4, meanwhile)
    assert [end.status_code for end in ends] == [200] * 4
    guard._target.fold(time.monotonic())
    window = guard._target.operations["GET"].evidence.window()
    assert window.waited > 3 * 0.3  # three of four waited for the first
    assert window.sketch.quantile(0.5) < 0.1  # and were served at once
    assert window.sketch.quantile(0.99) > 0.35  # the first was not


def test_our_own_pools_queue_is_nothing_against_the_target(kind: Any, server: Server) -> None:
    guard = Guard("t", timeout=0.2)
    server.script.append(held(then=reply()))

    def meanwhile() -> None:
        until(lambda: classes(guard).get("LOCAL", 0) == 2)
        server.go.set()

    with client_of(kind, guard, limits=limits(kind[0])) as client:
        expected = DeadlinePassed if client.is_async else client.lib.PoolTimeout
        ends = client.together([server.url] * 2, meanwhile, first=server.url)
    assert [type(end) for end in ends] == [expected] * 2
    assert len(server.came) == 1
    assert classes(guard) == {"LOCAL": 2}


def test_the_users_own_pool_timeout_is_nothing_against_the_target(
    kind: Any, server: Server
) -> None:
    guard = Guard("t", timeout=5.0)
    server.script.append(held(then=reply()))

    def meanwhile() -> None:
        until(lambda: classes(guard).get("LOCAL", 0) == 1)
        server.go.set()

    with client_of(kind, guard, limits=limits(kind[0])) as client:
        timeout = client.lib.Timeout(10.0, pool=0.1)
        ends = client.together([server.url] * 2, meanwhile, timeout=timeout)
    assert sum(isinstance(end, client.lib.PoolTimeout) for end in ends) == 1
    assert classes(guard) == {"LOCAL": 1, "SUCCESS": 1}


def test_the_times_are_pushed_anew_at_each_wait(server: Server) -> None:
    """What the wait for the pool took is not granted to the answer once more."""
    guard = Guard("t", timeout=0.6)
    server.script.extend([held(then=reply()), hang])

    def meanwhile() -> None:
        until(lambda: len(server.came) == 1)
        Event().wait(0.4)
        server.go.set()

    with client_of((httpx, False), guard, limits=limits(httpx)) as client:
        began = time.monotonic()
        ends = client.together([server.url] * 2, meanwhile)
        took = time.monotonic() - began
    assert sum(isinstance(end, httpx.ReadTimeout) for end in ends) == 1
    assert 0.55 < took < 0.9


def test_what_is_given_up_is_closed(kind: Any, server: Server) -> None:
    """Answers that are repeated, replaced or left in the back-off: the one connection is free."""

    def spare(request: Any) -> Any:
        return kind[0].Response(200, text="spare", request=request)

    guard = generous(fallback=spare)
    body = b"x" * 300_000  # too large to have been read by the way
    with client_of(kind, guard, limits=limits(kind[0])) as client:
        server.script.extend([reply(503, body), reply(500, body)])
        assert client.get(server.url).text == "ok"
        server.script.append(reply(500, body))
        assert client.request("POST", server.url, content=b"x").text == "spare"
        assert client.get(server.url, timeout=1.0).text == "ok"
    until(lambda: server.open == 0)


def test_an_answer_left_in_the_back_off_is_closed(server: Server) -> None:
    guard = generous(retry=Retry(attempts=3, budget=1.0, backoff=2.0, backoff_most=2.0))

    def arrived(n: int) -> None:
        until(lambda: len(server.came) == n)

    async def main() -> None:
        for lib in (httpx, httpx2):
            inner: Any = lib.AsyncHTTPTransport(limits=limits(lib))
            transport: Any = Transport(inner, guard=guard)
            async with lib.AsyncClient(transport=transport) as client:
                server.script.append(reply(500, b"x" * 300_000))
                came = len(server.came)
                task = asyncio.create_task(client.get(server.url))
                await asyncio.to_thread(arrived, came + 1)
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert (await client.get(server.url, timeout=1.0)).text == "ok"

    asyncio.run(main())


def test_an_answer_whose_fallback_fails_is_closed(kind: Any, server: Server) -> None:
    def broken(_: Any) -> Any:
        raise ZeroDivisionError

    guard = Guard("t", fallback=broken)
    with client_of(kind, guard, limits=limits(kind[0])) as client:
        server.script.append(reply(500, b"x" * 300_000))
        with pytest.raises(ZeroDivisionError):
            client.get(server.url)
        assert client.get(server.url, timeout=1.0).text == "ok"


# ----------------------------------------------------------------------- what the request carries


def test_the_time_left_goes_out_and_is_rewritten_for_each_attempt(
    kind: Any, server: Server
) -> None:
    guard = generous(retry=Retry(attempts=2, budget=1.0, backoff=0.2))
    server.script.append(reply(503))
    with client_of(kind, guard) as client, deadline(2.0):
        client.get(server.url)
    first, second = (int(came.headers[HEADER]) for came in server.came)
    assert 1500 < first <= 2000
    assert second <= first - 100
    with client_of(kind, Guard("free")) as client:
        client.get(server.url)
    assert HEADER not in server.came[-1].headers


def test_the_headers_that_tell_the_time_left_can_be_chosen(kind: Any, server: Server) -> None:
    told = (DeadlineHeader.GRPC, DeadlineHeader("Request-Timeout", "s"))
    server.script.append(reply(503))
    guard = generous(retry=Retry(attempts=2, budget=1.0, backoff=0.2))
    with client_of(kind, guard, told=told) as client, deadline(2.0):
        client.get(server.url)
    for header in told:
        first, second = (header.read(came.headers[header.name]) for came in server.came)
        assert first is not None
        assert second is not None
        assert 1.5 < first <= 2.0
        assert second <= first - 0.1
    assert all(HEADER not in came.headers for came in server.came)
    with client_of(kind, Guard("quiet"), told=()) as client, deadline(2.0):
        client.get(server.url)
    assert not {HEADER, *(header.name for header in told)} & set(server.came[-1].headers)


def test_the_time_left_is_stamped_after_the_wait_for_the_pool(kind: Any, server: Server) -> None:
    guard = Guard("t", timeout=3.0)
    server.script.append(held(then=reply()))

    def meanwhile() -> None:
        until(lambda: len(server.came) == 1)
        Event().wait(0.3)
        server.go.set()

    with client_of(kind, guard, limits=limits(kind[0])) as client:
        client.together([server.url] * 2, meanwhile)
    first, second = (int(came.headers[HEADER]) for came in server.came)
    assert 2800 < first <= 3000
    assert second <= 2750


def test_the_users_own_trace_and_timeout_still_work(kind: Any, server: Server) -> None:
    guard = generous(timeout=5.0)
    events: list[str] = []

    async def atrace(name: str, _: Any) -> None:
        events.append(name)

    def trace(name: str, _: Any) -> None:
        events.append(name)

    with client_of(kind, guard) as client:
        extensions = {"trace": atrace if client.is_async else trace}
        answer = client.get(server.url, extensions=extensions)
        assert "http11.send_request_headers.started" in events
        assert "http11.receive_response_body.complete" in events
        assert answer.request.extensions["trace"] is extensions["trace"]
        server.script.extend([hang] * 3)
        with pytest.raises(client.lib.ReadTimeout):
            client.get(server.url, timeout=0.1)
    assert classes(guard)["UNKNOWN"] == 3


def test_a_redirect_is_a_call_of_its_own(kind: Any, server: Server) -> None:
    guard = generous(timeout=0.8)
    server.script.append(reply(302, Location="/there"))
    with client_of(kind, guard) as client:
        answer = client.get(server.url, follow_redirects=True, timeout=7.0)
        assert answer.request.extensions["timeout"]["read"] == 7.0
        assert "trace" not in answer.request.extensions
    assert [came.path for came in server.came] == ["/", "/there"]
    assert classes(guard) == {"SUCCESS": 2}


def test_an_operation_may_be_named(kind: Any, server: Server) -> None:
    guard = Guard("t")
    with client_of(kind, guard) as client:
        client.get(server.url, extensions={"operation": "quote"})
        client.get(server.url)
    assert set(guard._target.operations) == {"quote", "GET"}


def test_each_host_may_be_a_target_of_its_own(kind: Any, server: Server) -> None:
    guard = Guard("web", limit=1)
    other = Server()
    other.otherwise = reply(500)
    try:
        with client_of(kind, guard, per_host=True) as client:
            for _ in range(3):
                assert client.get(server.url).status_code == 200
                assert client.get(other.url + "/path?query=1").status_code == 500
    finally:
        other.close()
    assert classes(guard) == {}
    assert classes(guard.per(f"127.0.0.1:{server.port}")) == {"SUCCESS": 3}
    assert classes(guard.per(f"127.0.0.1:{other.port}")) == {"FAILURE": 3}
    ports = (server.port, other.port)
    assert {seen.target for seen in states()} == {"web", *(f"web/127.0.0.1:{n}" for n in ports)}


def test_a_hosts_name_may_be_long_and_a_users_name_is_no_part_of_it() -> None:
    guard = Guard("w" * 60)
    seen: Any = httpx.MockTransport(lambda _: httpx.Response(200))
    transport: Any = Transport(seen, guard=guard, per_host=True)
    with httpx.Client(transport=transport) as client:
        client.get("http://user:password@a.example/x?key=1")
        client.get(f"http://{'long.' * 40}example:81/")
        client.get("http://[::1]:82/")
    names = [one.target for one in states()]
    whole = guard.policy.target
    assert names == [whole, f"{whole}/::1:82", f"{whole}/a.example", names[-1]]
    assert len(names[-1]) == 100
    assert names[-1].endswith("long.example:81")


def test_a_fallback_answers(kind: Any, closed_port: int) -> None:
    lib = kind[0]
    guard = Guard("t", fallback=lambda request: lib.Response(203, request=request, text="spare"))
    with client_of(kind, guard) as client:
        answer = client.get(f"http://127.0.0.1:{closed_port}/")
        assert (answer.status_code, answer.text) == (203, "spare")


def test_what_the_guard_refuses_is_not_sent(kind: Any, server: Server) -> None:
    guard = Guard("t", limit=1)
    server.script.append(held(then=reply()))

    def meanwhile() -> None:
        until(lambda: len(server.came) == 1)

    with client_of(kind, guard) as client:
        with deadline(0.0), pytest.raises(DeadlinePassed):
            client.get(server.url)

        def full() -> None:
            meanwhile()
            with pytest.raises(LimitReached):
                guard.call(lambda: None)
            server.go.set()

        assert client.together([server.url], full)[0].status_code == 200
    assert len(server.came) == 1


def test_it_is_seen(kind: Any, server: Server) -> None:
    """The loop's end: the state of a target that answers 500, judged from its callers' side."""
    guard = Guard("t")
    server.otherwise = reply(500)
    with client_of(kind, guard) as client:
        end = time.monotonic() + LIMIT_SECONDS
        while guard.state is not State.DEGRADED and time.monotonic() < end:
            client.get(server.url)
    assert guard.state is State.DEGRADED


# ------------------------------------------------------------------------------ other transports


class Refuses:
    """Does its work, then fails; it tells nothing of how far it has come."""

    def __init__(self) -> None:
        self.calls = 0

    def handle_request(self, request: Any) -> Any:
        self.calls += 1
        raise httpx.ReadError("after its work was done")

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def test_of_a_transport_without_trace_nothing_is_certain() -> None:
    guard = generous()
    inner = Refuses()
    with (
        httpx.Client(transport=Transport(inner, guard=guard)) as client,
        pytest.raises(httpx.ReadError),
    ):
        client.post("http://target/", content=b"x")
    assert inner.calls == 1
    assert classes(guard) == {"FAILURE": 1}


@pytest.mark.parametrize("lib", [httpx, httpx2])
def test_a_transport_without_trace_that_hangs_is_unknown(lib: Any) -> None:
    guard = generous(timeout=0.1)
    calls = []

    async def hangs(request: Any) -> Any:
        calls.append(1)
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        transport: Any = Transport(lib.MockTransport(hangs), guard=guard)
        async with lib.AsyncClient(transport=transport) as client:
            with pytest.raises(TimedOut) as caught:
                await client.post("http://target/", content=b"x")
        assert caught.value.phase is Phase.SENDING

    asyncio.run(main())
    assert len(calls) == 1
    assert classes(guard) == {"UNKNOWN": 1}


def test_guards_around_guards(kind: Any, server: Server) -> None:
    inner, outer = Guard("inner", timeout=5.0), Guard("outer", timeout=5.0)
    with client_of(kind, inner) as client:
        client.client._transport = Transport(client.transport, guard=outer)
        assert client.get(server.url).status_code == 200
    assert classes(inner) == classes(outer) == {"SUCCESS": 1}


# ----------------------------------------------------------------------------------------- forms


def test_it_imports_neither_library() -> None:
    code = (
        "import sys, brownout.ext.httpx;"
        "raise SystemExit(bool({'httpx', 'httpx2', 'httpcore', 'asyncio'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


class Inner:
    """Writes down how it is opened and closed."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def __enter__(self) -> None:
        self.log.append("enter")

    def __exit__(self, *_: object) -> None:
        self.log.append("exit")

    async def __aenter__(self) -> None:
        self.log.append("aenter")

    async def __aexit__(self, *_: object) -> None:
        self.log.append("aexit")

    def close(self) -> None:
        self.log.append("close")

    async def aclose(self) -> None:
        self.log.append("aclose")


@pytest.mark.parametrize("lib", [httpx, httpx2])
def test_the_inner_transport_is_opened_and_closed(lib: Any) -> None:
    guard = Guard("t")

    def sync_forms(inner: Inner) -> None:
        with lib.Client(transport=Transport(inner, guard=guard)):
            pass
        lib.Client(transport=Transport(inner, guard=guard)).close()

    async def async_forms(inner: Inner) -> None:
        async with lib.AsyncClient(transport=Transport(inner, guard=guard)):
            pass
        await lib.AsyncClient(transport=Transport(inner, guard=guard)).aclose()

    one, other = Inner(), Inner()
    sync_forms(one)
    asyncio.run(async_forms(other))
    assert one.log == ["enter", "exit", "close"]
    assert other.log == ["aenter", "aexit", "aclose"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("2", 2.0),
        (" 2 ", 2.0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("9" * 400, 3600.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 3600.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    from brownout.ext.reply import retry_after

    assert retry_after(value) == seconds


def test_the_server_of_these_tests_ends_its_threads() -> None:
    one = Server()
    with socket.create_connection(("127.0.0.1", one.port)):
        until(lambda: one.open == 1)
        one.close()
    assert one.open == 0
    assert not any(thread.is_alive() for thread in one._threads)
    assert listening.LIMIT_SECONDS > 1
