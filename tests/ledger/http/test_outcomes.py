"""`Outcomes`, the client: against a real server with `Once`, and against servers that are none."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from brownout.errors import (
    ConfigurationError,
    KeyFromTheFuture,
    KeyMalformed,
    KeyTooOld,
    LedgerUnavailable,
)
from brownout.ledger import Answer, Ledger, Once, Outcomes, Standing
from tests.ext.server import Server, begun, cut, hang, held, reply, reset
from tests.ledger.http.serve import served
from tests.ledger.http.speak import Handler, answering, new_key, raising, who

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ask = Callable[..., Answer]

ALICE = {"who": "alice"}
ROUTES = {"POST /mail": "opaque", "POST /ship/{order}": "resumable"}


class Mail:
    """A server with `Once`, a caller, and a way to ask about calls."""

    def __init__(self, url: str, handler: Handler, once: Once) -> None:
        self.url = url
        self.handler = handler
        self.once = once
        self.outcomes = Outcomes(url, headers=ALICE)

    def call(self, line: str = "POST /mail", key: str = "", **more: Any) -> httpx2.Response:
        method, path = line.split()
        headers = {"idempotency-key": key or new_key(), **ALICE}
        return httpx2.request(method, self.url + path, headers=headers, content=b"{}", **more)


@pytest.fixture(scope="module")
def mail() -> Iterator[Mail]:
    handler = Handler()
    once = Once(handler, ledger=Ledger("memory:"), principal=who, routes=ROUTES)
    with served(once) as url:
        yield Mail(url, handler, once)


@pytest.fixture(params=["ask", "aask"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Answer]:
    """Both forms of the question."""

    def asked(outcomes: Outcomes, key: str, *, void: bool = False, seconds: float = 5.0) -> Answer:
        if request.param == "ask":
            return outcomes.ask(key, void=void, seconds=seconds)
        return asyncio.run(outcomes.aask(key, void=void, seconds=seconds))

    return asked


def test_a_done_call_is_told_with_its_answer(mail: Mail, ask: Ask) -> None:
    mail.handler.does = answering(201, b"\x00\xff", location="/1")
    key = new_key()
    assert mail.call(key=key).status_code == 201
    told = ask(mail.outcomes, key)
    assert told.fact
    assert told.reply is not None
    assert (told.reply.status, told.reply.body, told.reply.whole) == (201, b"\x00\xff", True)
    assert ("location", "/1") in told.reply.headers


def test_what_is_absent_proves_nothing_and_what_is_void_never_runs(mail: Mail, ask: Ask) -> None:
    key, before = new_key(), len(mail.handler.done)
    told = ask(mail.outcomes, key, seconds=0.4)
    assert (told.standing, told.fact) == (Standing.ABSENT, False)
    assert ask(mail.outcomes, key, void=True).standing is Standing.VOID
    assert mail.call(key=key).status_code == 410
    assert len(mail.handler.done) == before


def test_doubt_is_told_as_doubt(mail: Mail, ask: Ask) -> None:
    mail.handler.does = raising(OSError("half done"))
    key = new_key()
    assert mail.call(key=key).status_code == 500
    assert ask(mail.outcomes, key, void=True).standing is Standing.DOUBT
    mail.handler.does = answering(201, b"ok")


def test_a_question_names_its_route(mail: Mail, ask: Ask) -> None:
    mail.handler.does = answering(201, b"ok")
    key = new_key()
    mail.call("POST /mail", key)
    mail.call("POST /ship/7", key)
    with pytest.raises(LedgerUnavailable, match="route="):
        ask(mail.outcomes, key)
    for route in ("POST /mail", "POST /ship/7", "POST /ship/{order}"):
        named = Outcomes(mail.url, route=route, headers=ALICE)
        assert ask(named, key).standing is Standing.DONE
    other = Outcomes(mail.url, route="POST /other", headers=ALICE)
    assert ask(other, key, seconds=0.4).standing is Standing.ABSENT


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("nonsense", KeyMalformed),
        (new_key(time.time() - 100_000), KeyTooOld),
        (new_key(time.time() + 3_600), KeyFromTheFuture),
    ],
    ids=["malformed", "old", "future"],
)
def test_what_is_wrong_with_a_key_is_said(
    mail: Mail, ask: Ask, key: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        ask(mail.outcomes, key, void=True)


def test_who_asks_must_be_known(mail: Mail, ask: Ask) -> None:
    with pytest.raises(LedgerUnavailable, match=r"401.*headers="):
        ask(Outcomes(mail.url), new_key())
    tokens = iter(["", "alice"])
    changing = Outcomes(mail.url, headers=lambda: {"who": next(tokens)})
    with pytest.raises(LedgerUnavailable, match="401"):
        ask(changing, new_key(), void=True)
    assert ask(changing, new_key(), void=True).standing is Standing.VOID


def test_a_question_waits_for_the_end_of_the_work(mail: Mail, ask: Ask) -> None:
    key, began = new_key(), threading.Event()
    gate: list[Callable[[], object]] = []

    async def before() -> None:
        loop, go = asyncio.get_running_loop(), asyncio.Event()
        gate.append(lambda: loop.call_soon_threadsafe(go.set))
        began.set()
        async with asyncio.timeout(20):
            await go.wait()

    mail.handler.before = before
    try:
        with ThreadPoolExecutor() as pool:
            called = pool.submit(mail.call, key=key, timeout=30.0)
            assert began.wait(20)
            assert ask(mail.outcomes, key, seconds=0.4).standing is Standing.RUNNING
            asked = pool.submit(ask, mail.outcomes, key, seconds=20.0)
            gate[0]()
            assert asked.result().standing is Standing.DONE
            assert called.result().status_code == 201
    finally:
        mail.handler.before = None


def test_below_a_path(ask: Ask) -> None:
    handler = Handler()
    once = Once(handler, ledger=Ledger("memory:"), principal=who, routes=ROUTES)

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await once({**scope, "root_path": "/v1"}, receive, send)

    with served(mounted) as url:
        outcomes = Outcomes(f"{url}/v1/", headers=ALICE)
        assert ask(outcomes, new_key(), void=True).standing is Standing.VOID


# ------------------------------------------------------------------- what is no answer is never one


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


TRUE = b'{"outcome": "voided", "because": ""}'
NOT_FOUND = b'{"type": "about:blank", "title": "Not Found", "status": 404}'


@pytest.mark.parametrize(
    "answer",
    [
        cut,
        reset,
        hang,
        begun(then=cut, body=TRUE, length=len(TRUE) + 1),
        begun(then=hang, body=TRUE, length=len(TRUE) + 1),
        reply(404, NOT_FOUND),
        reply(404, b"Not Found"),
        reply(200, b""),
        reply(200, b"ok"),
        reply(200, b"[]"),
        reply(200, b'"voided"'),
        reply(200, b'{"outcome": "maybe"}'),
        reply(200, b'{"outcome": "done", "reply": {"status": "201"}}'),
        reply(200, b'{"outcome": "done", "reply": 7}'),
        reply(200, b'{"outcome": ["done"]}'),
        reply(200, b"[" * 100_000),
        reply(301, TRUE, location="/elsewhere"),
        reply(500, TRUE),
        reply(503, b'{"type": "urn:brownout:problem:could-not-ask"}'),
        reply(404, b'{"type": "urn:brownout:problem:no-such-question"}'),
        reply(200, b'{"outcome": "absent", "x": "' + b"x" * 1_100_000 + b'"}'),
        reply(200, b'{"outcome": "done", "reply": null, "route": "POST /other"}'),
    ],
    ids=[f"{n}" for n in range(22)],
)
def test_whatever_else_answers_says_nothing_of_the_work(
    server: Server, ask: Ask, answer: Any
) -> None:
    server.otherwise = answer
    outcomes = Outcomes(server.url, route="POST /mail")
    with pytest.raises(LedgerUnavailable, match="could not be asked") as found:
        ask(outcomes, new_key(), void=True, seconds=0.4)
    assert not found.value.not_started


def test_a_head_that_is_cut_is_no_answer(server: Server, ask: Ask) -> None:
    def cut_head(_: Server, connection: Any) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")
        return False

    server.otherwise = cut_head
    with pytest.raises(LedgerUnavailable):
        ask(Outcomes(server.url), new_key(), void=True, seconds=0.4)


def test_a_server_that_dribbles_ends_with_the_time(server: Server) -> None:
    def dribble(server: Server, connection: Any) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        for _ in range(1_000):
            connection.sendall(b" ")
            if server.go.wait(0.05):
                break
        return False

    server.otherwise = dribble
    began = time.monotonic()
    with pytest.raises(LedgerUnavailable, match="could not be asked"):
        Outcomes(server.url).ask(new_key(), void=False, seconds=0.5)
    assert time.monotonic() - began < 2.0


def test_nobody_there_is_could_not_ask(ask: Ask) -> None:
    with pytest.raises(LedgerUnavailable, match="could not be asked"):
        ask(Outcomes("http://127.0.0.1:1"), new_key())


def test_questions_of_many_tasks_are_bounded_and_each_ends(server: Server) -> None:
    server.otherwise = held(then=reply(200, TRUE))

    async def script() -> list[Any]:
        outcomes = Outcomes(server.url)
        asked = [outcomes.aask(new_key(), void=True, seconds=0.3) for _ in range(30)]
        return await asyncio.gather(*asked, return_exceptions=True)

    told = asyncio.run(script())
    assert {type(one) for one in told} == {LedgerUnavailable}
    assert server.accepted <= 16


def test_close_lets_go_of_the_threads_and_the_next_question_has_new_ones(mail: Mail) -> None:
    outcomes = Outcomes(mail.url, headers=ALICE)
    for _ in range(2):
        told = asyncio.run(outcomes.aask(new_key(), void=True, seconds=5.0))
        assert told.standing is Standing.VOID
        outcomes.close()
    outcomes.close()


@pytest.mark.parametrize(
    "url",
    ["", "payments", "ftp://payments", "http://", "http://a:b@c", "http://a?b", "http://a#b",
     "http://a:b", "http://[::1", None],
)  # fmt: skip
def test_a_url_that_can_t_be_asked_is_refused_at_once(url: Any) -> None:
    with pytest.raises(ConfigurationError) as found:
        Outcomes(url)
    assert "a:b@" not in str(found.value)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), "5", True])
def test_a_timeout_is_a_number_of_seconds(timeout: Any) -> None:
    with pytest.raises(ConfigurationError):
        Outcomes("http://payments", timeout=timeout)
