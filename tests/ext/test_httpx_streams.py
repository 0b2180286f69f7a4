"""HTTP/2: many streams on one connection. Giving one up resets it, and leaves the others alone."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from brownout import Guard, LimitReached, TimedOut, deadline
from tests.ext.client import classes, client_of
from tests.ext.streams import StreamServer
from tests.ext.test_httpx_bodies import close, opened, read, used
from tests.seen import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.ext.client import Client

CANCEL = 8
HTTP2 = {"http1": False, "http2": True}


@pytest.fixture
def server() -> Iterator[StreamServer]:
    one = StreamServer()
    try:
        yield one
    finally:
        one.close()


def beside(
    client: Client, server: StreamServer, first: Get, then: Get, go: Callable[[], None]
) -> tuple[Any, Any]:
    """Get both, the second when the first has come, and meanwhile `go`; their ends."""

    def came() -> None:
        until(lambda: first.path in server.came)

    with ThreadPoolExecutor(3) as pool:
        going = pool.submit(go)
        if client.runner is None:
            one = pool.submit(ended, lambda: first.now(client, server))
            came()
            both = ended(lambda: then.now(client, server)), one.result()
        else:
            both = client.run(_beside(client, server, first, then, came))
        going.result()
    return both[1], both[0]


async def _beside(
    client: Client, server: StreamServer, first: Get, then: Get, came: Callable[[], None]
) -> tuple[Any, Any]:
    one = asyncio.create_task(first.later(client, server))
    await asyncio.to_thread(came)
    two = asyncio.create_task(then.later(client, server))
    ends = await asyncio.gather(two, one, return_exceptions=True)
    return ends[0], ends[1]


class Get(NamedTuple):
    """A GET, with a deadline and a read time-out of its own."""

    path: str
    seconds: float = 15.0
    read: float = 15.0

    def now(self, client: Client, server: StreamServer) -> Any:
        with deadline(self.seconds):
            return client.client.get(server.url + self.path, timeout=self.read)

    async def later(self, client: Client, server: StreamServer) -> Any:
        with deadline(self.seconds):
            return await client.client.get(server.url + self.path, timeout=self.read)


def ended(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return error


def test_many_answers_come_over_one_connection(kind: Any, server: StreamServer) -> None:
    guard = Guard("t")
    with client_of(kind, guard, **HTTP2) as client:
        for number in range(3):
            answer = client.get(f"{server.url}/ok{number}")
            assert (answer.http_version, answer.text) == ("HTTP/2", "ok")
    assert server.accepted == 1
    assert server.reset == []
    assert classes(guard) == {"SUCCESS": 3}


def test_a_streamed_answer_is_settled_at_its_end(kind: Any, server: StreamServer) -> None:
    guard = Guard("t", limit=1)
    with client_of(kind, guard, **HTTP2) as client:
        answer = begun(client, server, "/a")
        assert used(guard) == (1, 1)
        assert classes(guard) == {}
        with pytest.raises(LimitReached):
            client.get(server.url + "/ok")
        server.finish("/a")
        assert read(client, answer) == b"somemore"
        assert used(guard) == (0, 0)
    assert server.reset == []
    assert classes(guard) == {"SUCCESS": 1}


def begun(client: Client, server: StreamServer, path: str, body: bytes = b"some") -> Any:
    """An answer whose body has not been read to its end."""

    def begin() -> None:
        until(lambda: path in server.came)
        server.begin(path, body)

    with ThreadPoolExecutor(1) as pool:
        begins = pool.submit(begin)
        answer = opened(client, server.url + path)
        begins.result()
    return answer


def test_a_body_that_stalls_is_silence_and_its_stream_is_reset(
    kind: Any, server: StreamServer
) -> None:
    guard = Guard("t", limit=1, timeout=0.5)
    with client_of(kind, guard, **HTTP2) as client:
        answer = begun(client, server, "/stalls")
        with pytest.raises((TimedOut, client.lib.ReadTimeout)):
            read(client, answer)
        assert used(guard) == (0, 0)
        until(lambda: server.reset)
        assert server.reset == [("/stalls", CANCEL)]
        assert client.get(server.url + "/ok").text == "ok"
        assert server.accepted == 1
    assert classes(guard) == {"UNKNOWN": 1, "SUCCESS": 1}


def test_whoever_closes_early_resets_the_stream_alone(kind: Any, server: StreamServer) -> None:
    guard = Guard("t")
    with client_of(kind, guard, **HTTP2) as client:
        answer = begun(client, server, "/a")
        other = begun(client, server, "/b")
        close(client, answer)
        until(lambda: server.reset)
        server.finish("/b")
        assert read(client, other) == b"somemore"
    assert server.reset == [("/a", CANCEL)]
    assert server.accepted == 1
    assert classes(guard) == {"SUCCESS": 2}


@pytest.mark.parametrize(
    ("hangs", "hangs_first"),
    [
        pytest.param(Get("/hang", seconds=0.5), True, id="the-reader"),
        pytest.param(Get("/hang", seconds=0.5), False, id="a-waiter"),
        pytest.param(Get("/hang", read=0.5), True, id="the-users-own-time-out"),
    ],
)
def test_silence_before_the_headers_does_not_end_the_neighbour(
    kind: Any, server: StreamServer, hangs: Get, *, hangs_first: bool
) -> None:
    """Under threads one reads for both: when its time is over, and while the other's is."""
    guard = Guard("t", timeout=15.0)
    long = Get("/long")

    def go() -> None:
        until(lambda: server.reset and "/long" in server.came)
        server.begin("/long")
        server.finish("/long")

    with client_of(kind, guard, **HTTP2) as client:
        client.get(server.url + "/ok")
        order = (hangs, long) if hangs_first else (long, hangs)
        ends = dict(zip(order, beside(client, server, *order, go), strict=True))
        assert isinstance(ends[hangs], TimedOut | client.lib.ReadTimeout)
        assert ends[long].text == "somemore"
        assert client.get(server.url + "/ok").text == "ok"
    assert server.reset == [("/hang", CANCEL)]
    assert server.accepted == 1
    assert classes(guard) == {"SUCCESS": 3, "SHORT" if hangs.seconds < 1.0 else "UNKNOWN": 1}


def test_a_connection_that_is_silent_is_left(kind: Any, server: StreamServer) -> None:
    """As in a partition: it is open, and leads nowhere. Resets go nowhere too."""
    guard = Guard("t", timeout=0.4, breaker=None)
    with client_of(kind, guard, **HTTP2) as client:
        assert client.get(server.url + "/ok").text == "ok"
        server.deafen()
        for _ in range(10):
            try:
                answer = client.get(server.url + "/ok")
                break
            except (TimedOut, client.lib.ReadTimeout):
                continue
        assert answer.text == "ok"
        until(lambda: server.left)
        assert server.left == ["reset"]
        assert server.accepted == 2
    assert server.came == ["/ok", "/ok"]  # nothing of it was delivered


def test_what_nobody_reads_takes_no_room(kind: Any, server: StreamServer) -> None:
    """What came of a stream that is given up counts as read: else the connection would run full."""
    guard = Guard("t")
    with client_of(kind, guard, **HTTP2) as client:
        for number in range(3):
            close(client, begun(client, server, f"/big{number}", b"x" * 16000))
        client.get(server.url + "/ok")
        (connection,) = client.transport._inner._pool.connections
        room = connection._connection._h2_state._inbound_flow_control_window_manager
        assert room.max_window_size - room.current_window_size == 3 * 16000 + 2
        assert room._bytes_processed == 3 * 16000 + 2
    assert server.accepted == 1


def test_an_answer_that_nobody_closes_gives_its_permit_back(
    kind: Any, server: StreamServer
) -> None:
    guard = Guard("t", limit=1)
    with client_of(kind, guard, **HTTP2) as client:
        answer = begun(client, server, "/a")
        assert used(guard) == (1, 1)
        del answer
        gc.collect()
        assert used(guard) == (0, 0)
    assert classes(guard) == {"SUCCESS": 1}
