"""An answer's body: the attempt that brought it is in flight until it is read, left, or out of time."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest

from brownout import Guard, LimitReached, OutcomeClass, Retry, State, TimedOut, deadline
from brownout.ext.httpx import Transport
from tests.ext.client import classes, client_of
from tests.ext.server import Server, begun, cut, held, reply, reset, rest, watch
from tests.seen import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.ext.client import Client

ASYNC = [pytest.param((lib, True), id=f"{lib.__name__}-async") for lib in (httpx, httpx2)]
SYNC = [pytest.param((lib, False), id=f"{lib.__name__}-sync") for lib in (httpx, httpx2)]


def opened(client: Client, url: str, **how: Any) -> Any:
    """An answer whose body has not been read."""
    request = client.client.build_request("GET", url, **how)
    return client.run(client.client.send(request, stream=True))


def read(client: Client, answer: Any) -> bytes:
    body: bytes = client.run(answer.aread() if client.is_async else answer.read())
    return body


def close(client: Client, answer: Any) -> None:
    client.run(answer.aclose() if client.is_async else answer.close())


def used(guard: Guard) -> tuple[int, int]:
    """Attempts in flight, and permits in use."""
    assert guard._core.limit is not None
    guard._target.fold(time.monotonic())
    flying = sum(op.evidence.in_flight for op in guard._target.operations.values())
    return flying, guard._core.limit.in_use


def test_the_attempt_is_in_flight_until_the_body_is_read(kind: Any, server: Server) -> None:
    guard = Guard("t", limit=1)
    server.script.append(begun(length=8, then=held(then=rest(b"more"))))
    with client_of(kind, guard) as client:
        answer = opened(client, server.url)
        assert used(guard) == (1, 1)
        assert classes(guard) == {}
        with pytest.raises(LimitReached):
            client.get(server.url)
        server.go.set()
        assert read(client, answer) == b"somemore"
        assert used(guard) == (0, 0)
        assert client.get(server.url).status_code == 200
    assert classes(guard) == {"SUCCESS": 2}


def test_whoever_closes_early_blames_nobody(kind: Any, server: Server) -> None:
    guard = Guard("t", limit=1)
    server.script.append(begun(then=watch))
    with client_of(kind, guard) as client:
        answer = opened(client, server.url)
        close(client, answer)
        assert used(guard) == (0, 0)
        close(client, answer)
        assert used(guard) == (0, 0)
        until(lambda: server.left == ["reset"])
    assert classes(guard) == {"SUCCESS": 1}


def test_an_answer_that_nobody_closes_gives_its_permit_back(kind: Any, server: Server) -> None:
    guard = Guard("t", limit=1)
    server.script.append(begun(then=watch))
    with client_of(kind, guard) as client:
        answer = opened(client, server.url)
        assert used(guard) == (1, 1)
        del answer
        gc.collect()
        assert used(guard) == (0, 0)
    assert classes(guard) == {"SUCCESS": 1}


def test_or_at_its_deadline(kind: Any, server: Server) -> None:
    guard = Guard("t", limit=1, timeout=0.3)
    server.script.append(begun(then=watch))
    with client_of(kind, guard) as client:
        answer = opened(client, server.url)
        assert used(guard) == (1, 1)
        until(lambda: used(guard) == (0, 0))
        assert client.get(server.url).status_code == 200
        close(client, answer)
        assert used(guard) == (0, 0)
    assert classes(guard) == {"SUCCESS": 2}


@pytest.mark.parametrize("end", [cut, reset])
def test_a_body_that_is_cut_is_a_failure(kind: Any, server: Server, end: Any) -> None:
    guard = Guard("t", limit=1, retry=Retry(attempts=3, budget=1.0, backoff=0.01))
    server.script.append(begun(then=end))
    with client_of(kind, guard) as client:
        with pytest.raises(client.lib.TransportError):
            client.get(server.url)
        assert used(guard) == (0, 0)
        assert (
            len(server.came) == 1
        )  # its caller may have read a part of it: decided by the headers
    assert classes(guard) == {"FAILURE": 1}


def test_a_body_that_stalls_is_silence(kind: Any, server: Server) -> None:
    guard = Guard("t", limit=1, timeout=0.3)
    server.script.append(begun(then=watch))
    with client_of(kind, guard) as client:
        expected = TimedOut if client.is_async else client.lib.ReadTimeout
        began = time.monotonic()
        with pytest.raises(expected):
            client.get(server.url)
        assert 0.25 < time.monotonic() - began < 1.5
        assert used(guard) == (0, 0)
        until(lambda: server.left == ["reset"])
        assert client.get(server.url).status_code == 200
    assert classes(guard) == {"UNKNOWN": 1, "SUCCESS": 1}


def test_a_deadline_that_the_caller_brought_blames_nobody(kind: Any, server: Server) -> None:
    guard = Guard("t", limit=1, timeout=5.0)
    server.script.append(begun(then=watch))
    with client_of(kind, guard) as client:
        expected = TimedOut if client.is_async else client.lib.ReadTimeout
        with deadline(0.3), pytest.raises(expected):
            client.get(server.url)
        assert used(guard) == (0, 0)
    assert classes(guard) == {"SHORT": 1}


def test_the_users_own_read_timeout_is_silence_too(kind: Any, server: Server) -> None:
    guard = Guard("t", limit=1)
    server.script.append(begun(then=watch))
    with client_of(kind, guard) as client:
        with pytest.raises(client.lib.ReadTimeout):
            client.get(server.url, timeout=0.2)
        assert used(guard) == (0, 0)
        until(lambda: server.left == ["reset"])
    assert classes(guard) == {"UNKNOWN": 1}


def test_a_stalled_body_is_seen_while_it_lasts(server: Server) -> None:
    """A target that says 200 at once and then nothing: no time-out, and nobody has given up."""
    guard = Guard("t")

    async def main() -> None:
        inner: Any = httpx.AsyncHTTPTransport(verify=False)
        transport: Any = Transport(inner, guard=guard)
        async with httpx.AsyncClient(transport=transport, timeout=None) as client:
            for _ in range(60):
                await client.get(server.url)
            server.otherwise = begun(then=watch)
            tasks = [asyncio.create_task(client.get(server.url)) for _ in range(30)]
            await asyncio.to_thread(until, lambda: guard.state is State.UNRESPONSIVE)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def test_a_caller_that_reads_at_leisure_is_nothing_against_the_target(
    kind: Any, server: Server
) -> None:
    guard = Guard("t", limit=1)
    server.script.append(begun(length=4, then=lambda *_: True))
    with client_of(kind, guard) as client:
        answer = opened(client, server.url)
        began = time.monotonic()
        until(lambda: time.monotonic() > began + 0.4)
        assert guard._target.operations["GET"].evidence.fold(time.monotonic()).ages == []
        read(client, answer)
    guard._target.fold(time.monotonic())
    assert guard._target.operations["GET"].evidence.window().sketch.quantile(0.99) < 0.2


def test_events_are_settled_at_their_headers(kind: Any, server: Server) -> None:
    """A stream of events is silent for long when all is well."""
    guard = Guard("t", limit=1)
    server.script.append(reply(content_type="text/event-stream; charset=utf-8"))
    with client_of(kind, guard) as client:
        answer = opened(client, server.url)
        assert used(guard) == (0, 0)
        assert classes(guard) == {"SUCCESS": 1}
        close(client, answer)
    assert classes(guard) == {"SUCCESS": 1}


@pytest.mark.parametrize("status", [500, 503])
def test_a_bad_answer_is_settled_at_its_headers(kind: Any, server: Server, status: int) -> None:
    guard = Guard("t", limit=1)
    server.script.append(reply(status))
    with client_of(kind, guard) as client:
        answer = opened(client, server.url)
        assert used(guard) == (0, 0)
        close(client, answer)
    assert sum(classes(guard).values()) == 1
    assert "SUCCESS" not in classes(guard)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_an_empty_body_ends(kind: Any, server: Server, method: str) -> None:
    guard = Guard("t", limit=1)
    with client_of(kind, guard) as client:
        for _ in range(3):
            server.script.append(reply(200, b""))
            client.request(method, server.url)
            assert used(guard) == (0, 0)
    assert classes(guard) == {"SUCCESS": 3}
    assert server.accepted == 1  # polite, and used again


def test_what_was_read_to_the_end_is_closed_politely(kind: Any, server: Server) -> None:
    guard = Guard("t", limit=1)

    def then_watch(one: Server, connection: Any) -> bool:
        reply()(one, connection)
        return watch(one, connection)

    server.script.append(then_watch)
    with client_of(kind, guard) as client:
        assert client.get(server.url).text == "ok"
    until(lambda: server.left)
    assert server.left == ["closed"]


def test_a_body_made_by_hand_is_not_held() -> None:
    """Nobody reads it: it is there."""
    guard = Guard("t", limit=1)
    for lib in (httpx, httpx2):
        mock = lib.MockTransport(lambda _, lib=lib: lib.Response(200, text="here"))
        transport: Any = Transport(mock, guard=guard)
        with lib.Client(transport=transport) as client:
            assert client.get("http://target/").text == "here"
            assert used(guard) == (0, 0)
    assert classes(guard) == {"SUCCESS": 2}


def test_guards_around_guards_both_follow_the_body(kind: Any, server: Server) -> None:
    inner, outer = Guard("inner", limit=1), Guard("outer", limit=1)
    server.script.append(begun(then=watch))
    with client_of(kind, inner) as client:
        client.client._transport = Transport(client.transport, guard=outer)
        answer = opened(client, server.url)
        assert used(inner) == used(outer) == (1, 1)
        close(client, answer)
        assert used(inner) == used(outer) == (0, 0)


# ------------------------------------------------------------------------------ giving up before


@pytest.mark.parametrize("again", [False, True], ids=["new", "used-again"])
def test_silence_before_the_headers_is_aborted(kind: Any, server: Server, *, again: bool) -> None:
    guard = Guard("t", limit=1, timeout=0.3)
    with client_of(kind, guard) as client:
        if again:
            client.get(server.url)
        server.script.append(watch)
        with pytest.raises((TimedOut, client.lib.ReadTimeout)):
            client.get(server.url)
        until(lambda: server.left)
        assert server.left == ["reset"]
        assert server.accepted == 1
        assert used(guard) == (0, 0)


@pytest.mark.parametrize("kind", ASYNC)
@pytest.mark.parametrize("begins", [False, True], ids=["headers", "body"])
def test_a_cancel_aborts(kind: Any, server: Server, *, begins: bool) -> None:
    guard = Guard("t", limit=1)
    server.script.append(begun(then=watch) if begins else watch)

    async def main(client: Any) -> None:
        task = asyncio.create_task(client.get(server.url))
        await asyncio.to_thread(until, lambda: server.came)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with client_of(kind, guard) as client:
        client.run(main(client.client))
        until(lambda: server.left)
    assert server.left == ["reset"]
    assert used(guard) == (0, 0)
    assert classes(guard) == {"CANCELLED": 1}


# -------------------------------------------------------------------------- cancelled anywhere


async def cancelled_at(step: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Run until its event loop has turned so many times, then cancel; whether it was still running."""
    task = asyncio.ensure_future(work())
    for _ in range(step):
        await asyncio.sleep(0)
        if task.done():
            break
    over = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return not over


@pytest.mark.parametrize("kind", ASYNC)
def test_no_cancel_point_loses_a_permit(kind: Any, server: Server) -> None:
    lib = kind[0]
    guard = Guard("t", limit=1, timeout=5.0)
    server.otherwise = begun(length=8, then=rest(b"more"))

    async def main() -> int:
        steps = 0
        for step in range(2000):
            inner: Any = lib.AsyncHTTPTransport(verify=False)
            transport: Any = Transport(inner, guard=guard)
            async with lib.AsyncClient(transport=transport) as client:

                async def work(client: Any = client) -> None:
                    async with client.stream("GET", server.url) as answer:
                        async for _ in answer.aiter_bytes():
                            await asyncio.sleep(0)

                running = await cancelled_at(step, work)
            gc.collect()
            assert used(guard) == (0, 0), step
            if not running:
                return steps
            steps += 1
        return steps

    assert 10 < asyncio.run(main()) < 2000
    counts = classes(guard)
    assert set(counts) <= {"SUCCESS", "CANCELLED", "LOCAL"}
    assert counts[OutcomeClass.CANCELLED.name] > 0
