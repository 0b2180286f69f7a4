"""`Once` around an opaque or a resumable handler, over a ledger in memory, without a server."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest

from brownout import deadline
from brownout.errors import ConfigurationError, LedgerUnavailable, NoEffect
from brownout.ledger import Ledger, Once, Standing
from brownout.ledger.memory import MemoryStore
from tests.ledger.http.speak import Call, Handler, answering, new_key, raising, who

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

NOW = 1_800_000_000.0
ROUTES = {"POST /mail": "opaque", "POST /ship/{order}": "resumable"}
MAIL, SHIP = "POST /mail", "POST /ship/7"
ASK = "GET /.well-known/outcome/"


class Store(MemoryStore):
    """In memory, with a clock that is set by hand, and that can be down."""

    def __init__(self) -> None:
        self.at = NOW
        self.down = ""  # the operations that fail: "", "all", or those of a name
        super().__init__(now=lambda: self.at)

    async def arun(self, op: Any) -> Any:
        if self.down in {"all", op.__name__}:
            op.close()
            raise LedgerUnavailable("it is down")
        return await super().arun(op)


class Server:
    def __init__(self, **options: Any) -> None:
        self.store = Store()
        self.ledger = Ledger(self.store, **{"lease_seconds": 30.0, **options.pop("ledger", {})})
        self.handler = Handler()
        given = {"principal": who, "routes": ROUTES, **options}
        self.app = Once(self.handler, ledger=self.ledger, **given)

    def key(self, ago: float = 0.0) -> str:
        return new_key(self.store.at - ago)

    async def call(self, *args: Any, **more: Any) -> Call:
        if "key" not in more:
            more["key"] = self.key()
        return await Call(*args, **more).of(self.app)

    async def ask(
        self, key: str | None, *, who: str = "alice", route: str = "", **more: Any
    ) -> Call:
        query = f"?route={route.replace(' ', '%20')}" if route else ""
        return await Call(f"{ASK}{key}{query}", key=None, who=who, **more).of(self.app)

    async def void(self, key: str | None, *, who: str = "alice", route: str = "") -> Call:
        query = f"?route={route.replace(' ', '%20')}" if route else ""
        line = f"POST /.well-known/outcome/{key}/void{query}"
        return await Call(line, key=None, who=who).of(self.app)

    def standing(self, key: str | None) -> list[Standing]:
        return [row.standing for row in self.ledger.rows() if row.key == key]


@pytest.fixture
def server() -> Server:
    return Server()


def play(script: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await script

    asyncio.run(bounded())


def played(test: Callable[..., Coroutine[Any, Any, None]]) -> Any:
    """A test that is a coroutine, and takes a server."""

    def run(server: Server) -> None:
        play(test(server))

    run.__name__ = test.__name__
    return run


# ---------------------------------------------------------------------------------- once, and again


@played
async def test_the_second_call_gets_the_first_one_s_answer(server: Server) -> None:
    server.handler.does = answering(
        201, b'{"id":', b" 7}", location="/mails/7", set_cookie="s=1", date="now"
    )
    first = await server.call()
    again = await server.call(key=first.key)
    assert len(server.handler.done) == 1
    assert (first.status, first.body, first.outcome) == (201, b'{"id": 7}', "done")
    assert not first.replayed
    assert "set-cookie" in first.headers
    assert (again.status, again.body, again.outcome) == (201, b'{"id": 7}', "done")
    assert again.replayed
    assert again.headers["location"] == "/mails/7"
    assert again.headers["content-type"] == "application/json"
    assert again.headers["content-length"] == "9"
    assert not {"set-cookie", "date"} & set(again.headers)
    assert server.app.counts["POST /mail"] == {"run": 1, "replayed": 1}


@pytest.mark.parametrize("line", [MAIL, SHIP, "PUT /files/1", "DELETE /x"])
@pytest.mark.parametrize("body", [b"", b"\x00\xff" * 100, b"x" * 5_000])
def test_every_body_comes_to_the_handler_and_back(line: str, body: bytes) -> None:
    async def script() -> None:
        server = Server()
        server.handler.does = answering(200, body)
        first = await server.call(line, body, parts=3)
        again = await server.call(line, body, key=first.key)
        assert server.handler.done == [body]
        assert first.body == again.body == body
        assert again.replayed

    play(script())


@played
async def test_headers_and_quotes_are_no_part_of_the_work(server: Server) -> None:
    key = server.key()
    await server.call(key=key, trace="1")
    again = await server.call(key=f'"{key.upper()}"', trace="2")
    assert again.replayed


@pytest.mark.parametrize(
    "other", [{"body": b"{ }"}, {"line": "POST /mail?x=1"}], ids=["body", "query"]
)
def test_the_same_key_with_another_payload_is_refused_and_nothing_runs(other: Any) -> None:
    async def script() -> None:
        server = Server()
        first = await server.call()
        wrong = await server.call(key=first.key, **other)
        assert (wrong.status, wrong.problem) == (422, "other-payload")
        assert len(server.handler.done) == 1

    play(script())


@played
async def test_another_order_of_the_same_route_is_another_payload(server: Server) -> None:
    first = await server.call("POST /ship/7")
    wrong = await server.call("POST /ship/8", key=first.key)
    assert wrong.problem == "other-payload"


@played
async def test_the_same_key_at_another_route_is_other_work(server: Server) -> None:
    first = await server.call(MAIL)
    other = await server.call(SHIP, key=first.key)
    assert (other.status, other.replayed) == (201, False)
    assert len(server.handler.done) == 2


def test_equal_json_is_equal_work_on_demand() -> None:
    async def script() -> None:
        server = Server(canonical_json=True)
        first = await server.call(body=b'{"a": 1, "b": 2}')
        again = await server.call(body=b'{"b":2,"a":1}', key=first.key)
        assert again.replayed

    play(script())


@played
async def test_a_key_of_somebody_else_is_a_key_that_nobody_has_used(server: Server) -> None:
    mine = await server.call()
    theirs = await server.call(key=mine.key, who="bob")
    assert (theirs.status, theirs.replayed) == (201, False)
    assert len(server.handler.done) == 2
    unknown, foreign = await server.ask(server.key()), await server.ask(mine.key, who="carol")
    assert unknown.status == foreign.status == 404
    assert unknown.told == foreign.told
    assert [n for n, _ in unknown.sent[0]["headers"]] == [n for n, _ in foreign.sent[0]["headers"]]
    # A void of somebody else's key says nothing of it, and does nothing to it.
    voided = await server.void(mine.key, who="carol")
    assert voided.outcome == "voided"
    assert (await server.call(key=mine.key)).replayed


# ------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("key", "status", "name"),
    [
        (None, 400, "key-missing"),
        ("not-a-key", 400, "key-malformed"),
        ("01929b4e-7a2f-4c3d-8e4f-5a6b7c8d9e0f", 400, "key-malformed"),  # version 4
        ("x" * 37, 400, "key-too-long"),
        ("x" * 5_000, 400, "key-too-long"),
        ('"', 400, "key-malformed"),
    ],
)
def test_a_key_that_is_none_is_refused(key: str | None, status: int, name: str) -> None:
    async def script() -> None:
        server = Server()
        refused = await server.call(key=key)
        assert (refused.status, refused.problem, refused.outcome) == (status, name, "not-started")
        assert server.handler.done == []

    play(script())


@played
async def test_a_key_from_the_future_or_past_the_horizon_is_refused(server: Server) -> None:
    ahead = await server.call(key=server.key(ago=-400))
    assert (ahead.status, ahead.problem) == (422, "key-from-the-future")
    assert ahead.outcome == "not-started"
    old = await server.call(key=server.key(ago=86_500))
    assert (old.status, old.problem) == (422, "key-too-old")
    assert old.outcome == ""  # it may have been done, and be forgotten
    assert server.handler.done == []
    assert (await server.call(key=server.key(ago=86_300))).status == 201


@played
async def test_without_a_principal_nothing_begins(server: Server) -> None:
    refused = await server.call(who="")
    assert (refused.status, refused.problem) == (401, "no-principal")
    assert (await server.ask(server.key(), who="")).status == 401
    assert server.handler.done == []


def test_a_principal_that_fails_is_no_answer_about_the_work(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def script() -> None:
        for principal in (lambda _: 1 / 0, lambda _: 7):
            server = Server(principal=principal)
            refused = await server.call()
            assert (refused.status, refused.problem) == (500, "principal-failed")
            assert refused.outcome == "not-started"
            assert server.handler.done == []

    play(script())
    assert "principal" in caplog.text


def test_a_principal_may_be_asked_for_by_await_and_have_any_name() -> None:
    async def slow(scope: Any) -> str | None:
        return who(scope)

    async def script() -> None:
        server = Server(principal=slow)
        names = ["a", "a b", "POST /mail a", "x" * 1_000, "é\x7f"]
        key = server.key()
        for name in names:
            assert not (await server.call(key=key, who=name)).replayed, name
        for name in names:
            assert (await server.call(key=key, who=name)).replayed, name
        assert len(server.handler.done) == len(names)

    play(script())


@played
async def test_a_body_has_a_limit_and_a_longer_one_takes_no_key(server: Server) -> None:
    server.app = Once(
        server.handler, ledger=server.ledger, principal=who, routes=ROUTES, body_most_bytes=10
    )
    key = server.key()
    for more in ({}, {"content_length": "11"}):
        refused = await server.call(body=b"x" * 11, key=key, parts=4, **more)
        assert (refused.status, refused.problem) == (413, "body-too-large")
        assert refused.outcome == "not-started"
    assert server.standing(key) == []
    assert (await server.call(body=b"x" * 10, key=key)).status == 201


@played
async def test_a_caller_that_leaves_before_all_is_said_takes_no_key(server: Server) -> None:
    call = Call(key=server.key(), parts=2)
    call._messages.pop()  # the rest does not come
    call.leaves.set()
    await call.of(server.app)
    assert call.sent == []
    assert server.standing(call.key) == []
    assert server.handler.done == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"principal": None},
        {"principal": "alice"},
        {"ledger": "memory:"},
        {"routes": {"POST /pay": "atomic"}},  # memory takes part in nobody's transaction
        {"routes": {"/pay": "opaque"}},
        {"body_most_bytes": -1},
        {"wait_most_seconds": float("inf")},
        {"wait_most_seconds": "5"},
    ],
)
def test_what_can_t_work_is_refused_when_it_is_built(wrong: Any) -> None:
    good = {"ledger": Ledger("memory:"), "principal": who, "routes": ROUTES}
    with pytest.raises(ConfigurationError, match="can't work"):
        Once(Handler(), **{**good, **wrong})


def test_a_principal_must_be_given() -> None:
    made: Any = Once
    with pytest.raises(TypeError, match="principal"):
        made(Handler(), ledger=Ledger("memory:"), routes=ROUTES)


# -------------------------------------------------------------------------- what has no business here


@pytest.mark.parametrize(
    ("line", "key"), [("GET /mail", ""), ("POST /other", None), ("HEAD /x", "")]
)
def test_a_call_without_a_key_or_that_only_asks_goes_through(line: str, key: str | None) -> None:
    async def script() -> None:
        server = Server()
        server.store.down = "all"
        for _ in range(2):
            call = await Call(line, key=key).of(server.app)
            assert (call.status, call.outcome) == (201, "")
        assert len(server.handler.done) == 2

    play(script())


def test_websockets_and_the_lifespan_pass_through() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])
        if scope["type"] == "lifespan":
            seen.append((await receive())["type"])

    async def receive() -> Any:
        return {"type": "lifespan.shutdown"}

    async def send(message: Any) -> None:
        raise AssertionError

    async def script() -> None:
        once = Once(app, ledger=Ledger("memory:"), principal=who)
        await once({"type": "websocket", "path": "/"}, receive, send)
        await once({"type": "lifespan"}, receive, send)

    play(script())
    assert seen == ["websocket", "lifespan", "lifespan.shutdown"]


@played
async def test_an_undeclared_route_with_a_key_is_opaque(server: Server) -> None:
    server.handler.does = raising(OSError("half done"))
    with pytest.raises(OSError, match="half done"):
        await server.call("POST /other", key=(key := server.key()))
    assert server.standing(key) == [Standing.DOUBT]
    again = await server.call("POST /other", key=key)
    assert (again.status, again.problem, again.outcome) == (409, "in-doubt", "doubt")
    elsewhere = await server.call("POST /another", key=key)
    assert elsewhere.problem == "other-payload"
    assert len(server.handler.done) == 1


# ------------------------------------------------------------------------------------ at the same time


@pytest.mark.parametrize("number", [8, 50])
@pytest.mark.parametrize("line", [MAIL, SHIP, "POST /other"])
def test_of_many_at_the_same_time_one_runs_and_all_are_answered(number: int, line: str) -> None:
    async def script() -> None:
        server = Server()
        go = asyncio.Event()
        server.handler.before = go.wait
        key = server.key()
        calls = [
            asyncio.create_task(server.call(line, key=key, prefer="wait=10")) for _ in range(number)
        ]
        await server.handler.started.wait()
        refused = await server.call(line, key=key)  # this one won't wait
        assert (refused.status, refused.problem, refused.outcome) == (409, "running", "running")
        assert refused.headers["retry-after"] == "1"
        go.set()
        told = await asyncio.gather(*calls)
        assert len(server.handler.done) == 1
        assert {call.status for call in told} == {201}
        assert {call.body for call in told} == {b'{"sent": true}'}
        assert sum(not call.replayed for call in told) == 1
        assert server.app._running == {}

    play(script())


@played
async def test_another_payload_while_the_first_runs_is_refused(server: Server) -> None:
    go = asyncio.Event()
    server.handler.before = go.wait
    key = server.key()
    first = asyncio.create_task(server.call(key=key))
    await server.handler.started.wait()
    assert (await server.call(key=key, body=b"other")).problem == "other-payload"
    go.set()
    assert (await first).status == 201


def test_a_second_that_comes_at_any_moment_of_the_first_never_runs() -> None:
    """After each turn of the loop, from before the first's start until after its end."""

    async def script() -> None:
        for turns in range(40):
            server = Server()
            key = server.key()
            first = asyncio.create_task(server.call(key=key))
            for _ in range(turns):
                await asyncio.sleep(0)
            second = await server.call(key=key)
            assert {(await first).status, second.status} <= {201, 409}
            assert len(server.handler.done) == 1, turns

    play(script())


@played
async def test_two_processes_at_the_same_work_run_it_once(server: Server) -> None:
    """The other one has the same ledger, and an object of its own."""
    other = Once(server.handler, ledger=server.ledger, principal=who, routes=ROUTES)
    go = asyncio.Event()
    server.handler.before = go.wait
    key = server.key()
    first = asyncio.create_task(server.call(key=key))
    await server.handler.started.wait()
    refused = await Call(key=key).of(other)
    assert (refused.problem, refused.status) == ("running", 409)
    waiting = asyncio.create_task(Call(key=key, prefer="wait=10").of(other))
    await asyncio.sleep(0)
    go.set()
    assert (await waiting).replayed
    assert (await first).status == 201
    assert len(server.handler.done) == 1


@played
async def test_nobody_waits_longer_than_the_deadline_or_the_limit(server: Server) -> None:
    server.app._wait_most = 0.02
    never = asyncio.Event()
    server.handler.before = never.wait
    key = server.key()
    first = asyncio.create_task(server.call(key=key))
    await server.handler.started.wait()
    assert (await server.call(key=key, prefer="wait=9999")).problem == "running"
    server.app._wait_most = 30.0
    with deadline(0.02):
        assert (await server.call(key=key, prefer="wait=9999")).problem == "running"
    never.set()
    await first


# -------------------------------------------------------------------------------- the caller leaves


@played
async def test_a_caller_that_leaves_ends_nothing(server: Server) -> None:
    go = asyncio.Event()
    server.handler.before = go.wait
    call = Call(key=server.key())
    first = asyncio.create_task(call.of(server.app))
    await server.handler.started.wait()
    call.leaves.set()
    call.gone = True
    for _ in range(5):
        await asyncio.sleep(0)
    assert server.standing(call.key) == [Standing.RUNNING]
    go.set()
    await first
    assert server.standing(call.key) == [Standing.DONE]
    assert (await server.call(key=call.key)).body == b'{"sent": true}'
    assert len(server.handler.done) == 1


@played
async def test_a_server_that_cancels_the_call_ends_nothing(server: Server) -> None:
    go = asyncio.Event()
    server.handler.before = go.wait
    key = server.key()
    first = asyncio.create_task(server.call(key=key))
    await server.handler.started.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await server.call(key=key)).problem == "running"
    go.set()
    again = await server.call(key=key, prefer="wait=10")
    assert again.replayed
    assert len(server.handler.done) == 1


def test_a_handler_that_fails_unheard_is_in_doubt_and_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def script() -> None:
        server = Server()
        server.handler.does = raising(OSError("half done"))
        go = asyncio.Event()
        server.handler.before = go.wait
        key = server.key()
        first = asyncio.create_task(server.call(key=key))
        await server.handler.started.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go.set()
        assert (await server.call(key=key, prefer="wait=10")).problem == "in-doubt"

    play(script())
    assert "half done" in caplog.text


@played
async def test_a_handler_sees_a_disconnect_only_when_all_is_said(server: Server) -> None:
    seen: list[str] = []

    async def does(scope: Any, receive: Any, send: Any) -> None:
        leaving = asyncio.create_task(receive())
        await asyncio.sleep(0)
        assert not leaving.done()
        await answering(200, b"a", b"b")(scope, receive, send)
        seen.append((await leaving)["type"])

    server.handler.does = does
    call = Call(key=server.key())
    call.leaves.set()
    await call.of(server.app)
    assert seen == ["http.disconnect"]


@played
async def test_the_lifespan_ends_when_the_handlers_have(server: Server) -> None:
    go = asyncio.Event()
    server.handler.before = go.wait
    first = asyncio.create_task(server.call())
    await server.handler.started.wait()
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        ended.append((await receive())["type"])

    async def receive() -> Any:
        return {"type": "lifespan.shutdown"}

    server.app.app = app
    ending = asyncio.create_task(server.app({"type": "lifespan"}, receive, Call().send))
    for _ in range(5):
        await asyncio.sleep(0)
    assert ended == []
    go.set()
    await ending
    assert (await first).status == 201
    assert ended == ["lifespan.shutdown"]


# --------------------------------------------------------------------------------------- large, and slow


@pytest.mark.parametrize("line", [MAIL, SHIP])
def test_a_large_answer_goes_out_and_its_digest_is_kept(line: str) -> None:
    async def script() -> None:
        server = Server()
        parts = [os.urandom(40_000) for _ in range(3)]
        server.handler.does = answering(201, *parts, location="/files/1")
        first = await server.call(line)
        again = await server.call(line, key=first.key)
        assert first.body == b"".join(parts)
        assert first.outcome == "done"
        assert (again.status, again.body) == (200, b"")
        assert again.outcome == "done;body=dropped"
        assert again.replayed
        assert again.headers["location"] == "/files/1"
        assert len(server.handler.done) == 1
        [row] = server.store._rows.values()
        assert row.reply is not None
        assert row.reply.body == hashlib.sha256(first.body).digest()

    play(script())


@played
async def test_nothing_goes_out_before_the_ledger_has_it(server: Server) -> None:
    """Half of an answer has come, and the caller has seen none of it."""
    go = asyncio.Event()
    call = Call(key=server.key())

    async def does(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await go.wait()
        assert call.sent == []
        assert server.standing(call.key) == [Standing.RUNNING]
        await send({"type": "http.response.body", "body": b"half"})

    server.handler.does = does
    task = asyncio.create_task(call.of(server.app))
    await server.handler.started.wait()
    go.set()
    await task
    assert call.body == b"halfhalf"


@played
async def test_after_the_limit_a_stream_goes_out_as_it_comes(server: Server) -> None:
    call = Call(key=server.key())

    async def does(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 65_537, "more_body": True})
        assert server.standing(call.key) == [Standing.DONE]
        assert len(call.sent) == 2
        await send({"type": "http.response.body", "body": b"y", "more_body": True})
        assert call.sent[-1]["body"] == b"y"
        await send({"type": "http.response.body", "body": b"z"})

    server.handler.does = does
    await call.of(server.app)
    assert call.body.endswith(b"yz")


@played
async def test_an_app_has_no_way_to_answer_past_us(server: Server) -> None:
    async def does(scope: Any, receive: Any, send: Any) -> None:
        assert list(scope["extensions"]) == ["tls"]
        await answering(200, b"ok")(scope, receive, send)

    server.handler.does = does
    assert (await server.call()).status == 200


@played
async def test_what_an_app_does_after_its_answer_delays_nobody(server: Server) -> None:
    go = asyncio.Event()
    call = Call(key=server.key())

    async def does(scope: Any, receive: Any, send: Any) -> None:
        await answering(200, b"ok")(scope, receive, send)
        said.set()
        await go.wait()

    said = asyncio.Event()
    server.handler.does = does
    first = asyncio.create_task(call.of(server.app))
    await said.wait()
    again = await server.call(key=call.key, prefer="wait=10")
    assert again.replayed
    assert not first.done()
    go.set()
    await first


# -------------------------------------------------------------------------------------------- it fails


@pytest.mark.parametrize(
    ("line", "status", "outcome"), [(MAIL, 500, "doubt"), (SHIP, 500, "running")]
)
@pytest.mark.parametrize("how", ["raises", "500 and raises", "503", "says nothing"])
def test_a_handler_that_fails_releases_no_key(
    line: str, status: int, outcome: str, how: str
) -> None:
    async def quiet(scope: Any, receive: Any, send: Any) -> None:
        pass

    async def script() -> None:
        server = Server()
        error = RuntimeError("after half of it")
        server.handler.does = {
            "raises": raising(error),
            "500 and raises": answering(500, b"oh", raises=error),  # as starlette does
            "503": answering(503, b"oh"),
            "says nothing": quiet,
        }[how]
        call = Call(line, key=server.key())
        if "raises" in how:
            with pytest.raises(RuntimeError, match="after half of it"):
                await call.of(server.app)
        else:
            await call.of(server.app)
        assert call.status in {status, 503}
        assert call.outcome == outcome
        server.handler.does = answering(201, b"at last")
        again = await server.call(line, key=call.key)
        if line == MAIL:
            assert again.problem == "in-doubt"
            assert len(server.handler.done) == 1
        else:
            assert again.body == b"at last"
            assert len(server.handler.done) == 2

    play(script())


@pytest.mark.parametrize("status", [200, 302, 400, 402, 404, 409, 422])
def test_what_a_handler_decided_is_kept(status: int) -> None:
    async def script() -> None:
        server = Server()
        server.handler.does = answering(status, b"so")
        first = await server.call()
        again = await server.call(key=first.key)
        assert (again.status, again.body, again.replayed) == (status, b"so", True)
        assert len(server.handler.done) == 1

    play(script())


@pytest.mark.parametrize(
    "does",
    [
        raising(NoEffect("the mail server is down")),
        answering(500, b"oh", raises=NoEffect("the mail server is down")),
        raising(ExceptionGroup("all", [NoEffect(), NoEffect()])),
    ],
    ids=["raised", "made a 500", "in a group"],
)
def test_no_effect_releases_the_key_of_an_opaque_handler(does: Any) -> None:
    async def script() -> None:
        server = Server()
        server.handler.does = does
        first = await server.call()
        assert (first.status, first.problem, first.outcome) == (503, "no-effect", "not-started")
        assert server.standing(first.key) == []
        server.handler.does = answering(201, b"sent")
        assert (await server.call(key=first.key)).status == 201

    play(script())


@pytest.mark.parametrize("status", [200, 401, 429, 503])
def test_a_handler_may_say_in_its_answer_that_it_did_not_start(status: int) -> None:
    async def script() -> None:
        server = Server()
        server.handler.does = answering(status, b"later", outcome="not-started")
        first = await server.call()
        assert (first.status, first.body, first.outcome) == (status, b"later", "not-started")
        assert server.standing(first.key) == []

    play(script())


def test_what_was_raised_because_of_no_effect_is_no_such_thing() -> None:
    async def does(scope: Any, receive: Any, send: Any) -> None:
        try:
            raise NoEffect
        except NoEffect as error:
            raise ValueError from error

    async def script() -> None:
        for wrong in (does, raising(ExceptionGroup("some", [NoEffect(), ValueError()]))):
            server = Server()
            server.handler.does = wrong
            key = server.key()
            with pytest.raises((ValueError, ExceptionGroup)):
                await server.call(key=key)
            assert server.standing(key) == [Standing.DOUBT]

    play(script())


@played
async def test_no_effect_of_a_resumable_handler_lets_the_next_call_go_on(server: Server) -> None:
    """An earlier run of it may have had one: it is not voided, and not forgotten."""
    server.handler.does = raising(NoEffect())
    first = await server.call(SHIP)
    assert (first.status, first.outcome) == (503, "running")
    assert (await server.void(first.key)).outcome.startswith("running")
    server.handler.does = answering(201, b"shipped")
    assert (await server.call(SHIP, key=first.key)).body == b"shipped"


# ------------------------------------------------------------------------------------ leases, and the ledger


@played
async def test_an_opaque_handler_past_its_lease_is_in_doubt_and_tells_late(server: Server) -> None:
    """Its process stood still; another looks, and then it comes back."""
    go = asyncio.Event()
    server.handler.before = go.wait
    key = server.key()
    first = asyncio.create_task(server.call(key=key))
    await server.handler.started.wait()
    server.store.at += 31.0
    other = Once(server.handler, ledger=server.ledger, principal=who, routes=ROUTES)
    assert (await Call(key=key).of(other)).problem == "in-doubt"
    go.set()
    assert (await first).status == 201
    assert (await Call(key=key).of(other)).replayed
    assert len(server.handler.done) == 1


@played
async def test_a_resumable_handler_that_comes_back_late_tells_what_its_successor_said(
    server: Server,
) -> None:
    stopped = asyncio.Event()
    server.handler.before = stopped.wait
    key = server.key()
    first = asyncio.create_task(server.call(SHIP, key=key))
    await server.handler.started.wait()
    server.store.at += 31.0
    successor = Handler()
    successor.does = answering(201, b"the successor's")
    other = Once(successor, ledger=server.ledger, principal=who, routes=ROUTES)
    assert (await Call(SHIP, key=key).of(other)).body == b"the successor's"
    server.handler.does = answering(201, b"the first one's")
    stopped.set()
    late = await first
    assert (late.body, late.replayed) == (b"the successor's", True)


@played
async def test_without_the_ledger_no_work_begins_and_that_is_certain(server: Server) -> None:
    server.store.down = "all"
    for line in (MAIL, SHIP, "POST /other"):
        refused = await server.call(line)
        assert (refused.status, refused.problem) == (503, "ledger-unavailable")
        assert refused.outcome == "not-started"
        assert refused.headers["retry-after"] == "1"
    assert server.handler.done == []
    asked = await server.ask(server.key())
    assert (asked.status, asked.problem, asked.outcome) == (503, "could-not-ask", "")
    server.store.down = ""
    assert (await server.call()).status == 201


def test_an_end_that_can_t_be_recorded_is_not_told_as_done(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def script() -> None:
        server = Server()
        pauses: list[float] = []
        turn = asyncio.sleep

        async def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 5:
                server.store.down = ""
            await turn(0)

        go = asyncio.Event()
        server.handler.before = go.wait
        key = server.key()
        first = asyncio.create_task(server.call(key=key))
        await server.handler.started.wait()
        server.store.down = "all"
        monkeypatch.setattr("brownout.ledger.http.ways.asyncio.sleep", pause)
        go.set()
        told = await first
        assert (told.status, told.problem, told.outcome) == (503, "not-recorded", "")
        await asyncio.wait(set(server.app._tasks))
        assert server.standing(key) == [Standing.DONE]
        assert (await server.call(key=key)).body == b'{"sent": true}'

    with caplog.at_level(logging.ERROR, "brownout"):
        play(script())
    assert "could not be recorded" in caplog.text


# ------------------------------------------------------------------------------------------- questions


@played
async def test_whoever_asks_gets_the_answer_with_its_body(server: Server) -> None:
    server.handler.does = answering(201, b"\x00\xff", location="/1")
    first = await server.call()
    asked = await server.ask(first.key)
    assert asked.status == 200
    assert asked.outcome == 'done;route="POST /mail"'
    assert asked.headers["cache-control"] == "no-store"
    told = asked.told
    assert (told["outcome"], told["route"]) == ("done", "POST /mail")
    assert told["reply"]["body"] == "AP8="
    assert told["reply"]["status"] == 201
    assert ["location", "/1"] in told["reply"]["headers"]
    assert (await server.ask(first.key, route="POST /mail")).outcome == "done"
    head = await Call(f"HEAD /.well-known/outcome/{first.key}", key=None).of(server.app)
    assert (head.status, head.body) == (200, b"")


@played
async def test_what_is_voided_never_runs(server: Server) -> None:
    key = server.key()
    assert (await server.ask(key)).problem == "unknown-key"
    voided = await server.void(key)
    assert (voided.status, voided.outcome, voided.told["outcome"]) == (200, "voided", "voided")
    for line in (MAIL, SHIP, "POST /other"):
        late = await server.call(line, key=key)
        assert (late.status, late.problem, late.outcome) == (410, "voided", "voided")
    assert server.handler.done == []
    assert (await server.void(key)).outcome == "voided"
    assert (await server.ask(key)).outcome == "voided"


@played
async def test_what_is_done_or_runs_is_not_voided(server: Server) -> None:
    go = asyncio.Event()
    server.handler.before = go.wait
    key = server.key()
    first = asyncio.create_task(server.call(key=key))
    await server.handler.started.wait()
    server.app._wait_most = 0.02
    assert (await server.void(key)).outcome == 'running;route="POST /mail"'
    assert (await server.ask(key)).headers["retry-after"] == "1"
    server.app._wait_most = 30.0
    asking = asyncio.create_task(server.ask(key, prefer="wait=10"))
    await asyncio.sleep(0)
    go.set()
    assert (await first).status == 201
    assert (await asking).told["reply"]["status"] == 201
    assert (await server.void(key)).outcome == 'done;route="POST /mail"'


@played
async def test_a_question_can_wait_for_work_that_has_not_come_yet(server: Server) -> None:
    key = server.key()
    asking = asyncio.create_task(server.ask(key, prefer="wait=10"))
    await asyncio.sleep(0)
    await server.call(key=key)
    assert (await asking).told["outcome"] == "done"


@played
async def test_a_void_names_its_route_or_is_one_of_all(server: Server) -> None:
    key = server.key()
    assert (await server.void(key, route="POST /mail")).outcome == "voided"
    assert (await server.ask(key)).problem == "unknown-key"  # at another route it may yet begin
    assert (await server.call(SHIP, key=key)).status == 201
    assert (await server.call(MAIL, key=key)).status == 410
    assert (await server.ask(key)).outcome == 'done;route="POST /ship/{order}"'
    assert (await server.ask(key, route="POST /mail")).outcome == "voided"
    assert (await server.ask(key, route=SHIP)).told["outcome"] == "done"


@played
async def test_a_key_of_several_routes_is_asked_about_by_route(server: Server) -> None:
    key = server.key()
    await server.call(MAIL, key=key)
    await server.call(SHIP, key=key)
    for asked in (await server.ask(key), await server.void(key)):
        assert (asked.status, asked.problem) == (409, "ambiguous-key")
        assert "POST /mail" in asked.told["detail"]
    assert (await server.ask(key, route="POST /mail")).told["outcome"] == "done"


@pytest.mark.parametrize(
    ("line", "status", "name"),
    [
        ("GET /.well-known/outcome/nonsense", 400, "key-malformed"),
        ("GET /.well-known/outcome/" + "x" * 3_000, 400, "key-malformed"),
        ("POST /.well-known/outcome/KEY", 405, "method-not-allowed"),
        ("GET /.well-known/outcome/KEY/void", 405, "method-not-allowed"),
        ("POST /.well-known/outcome/KEY/forget", 404, "no-such-question"),
        ("DELETE /.well-known/outcome", 405, "method-not-allowed"),
        ("GET /.well-known/outcome/KEY?route=a&route=b", 400, "route-missing"),
    ],
)
def test_a_question_that_makes_no_sense_is_told_so(line: str, status: int, name: str) -> None:
    async def script() -> None:
        server = Server()
        asked = await Call(line.replace("KEY", server.key()), key=None).of(server.app)
        assert (asked.status, asked.problem) == (status, name)
        assert server.handler.done == []

    play(script())


@played
async def test_of_a_key_that_was_forgotten_nothing_is_claimed(server: Server) -> None:
    asked = await server.void(server.key(ago=86_400 + 3_700))
    assert (asked.status, asked.problem, asked.outcome) == (422, "key-too-old", "")
    early = await server.void(server.key(ago=-4_000))
    assert (early.status, early.problem, early.outcome) == (422, "key-from-the-future", "")


@played
async def test_the_server_says_how_it_keeps_what(server: Server) -> None:
    for path in ("/.well-known/outcome", "/.well-known/outcome/"):
        told = (await Call(f"GET {path}", key=None).of(server.app)).told
        assert told["horizon_seconds"] == 86_400.0
        assert told["margin_seconds"] == 3_600.0
        assert told["routes"] == ROUTES
        assert told["undeclared"] == "opaque"


@played
async def test_a_mounted_app_has_the_questions_below_its_mount(server: Server) -> None:
    call = Call("POST /v1/mail", key=server.key())
    call.scope["root_path"] = "/v1"
    assert (await call.of(server.app)).outcome == "done"
    asked = Call(f"GET /v1/.well-known/outcome/{call.key}", key=None)
    asked.scope["root_path"] = "/v1"
    assert (await asked.of(server.app)).told["route"] == "POST /mail"
