"""The ASGI middleware: as a plain app with hand-written scopes, and for real under uvicorn and hypercorn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from contextvars import ContextVar
from math import inf
from typing import TYPE_CHECKING, Any

import httpx2
import hypercorn
import hypercorn.asyncio
import pytest
import uvicorn

from brownout import (
    ConfigurationError,
    DeadlineHeader,
    DeadlinePassed,
    Guard,
    deadline,
    remaining,
)
from brownout.ext.asgi import Counts, Deadlines
from brownout.ext.httpx import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from brownout.testing import FakeClock

ENVOY = DeadlineHeader.ENVOY.name
START = {"type": "http.response.start", "status": 200, "headers": []}


def part(body: bytes = b"", *, more: bool = False, after: float = 0.0) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more, "after": after}


class Call:
    """One HTTP call of an app: what it is sent, and what it says."""

    def __init__(self, *messages: dict[str, Any], **headers: str) -> None:
        pairs = [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()]
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": pairs,
        }
        self.messages = list(messages or [part()])
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if not self.messages:
            return {"type": "http.disconnect"}
        message = self.messages.pop(0)
        await asyncio.sleep(message.get("after", 0.0))
        return message

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    async def of(self, app: Any) -> Call:
        await app(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        [status] = [m["status"] for m in self.sent if m["type"] == "http.response.start"]
        return int(status)

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent)


class Handler:
    """An app that notes what deadline it was called under, and reads its body."""

    def __init__(self) -> None:
        self.left: list[float] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.left.append(remaining())
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        await send(START)
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def handler() -> Handler:
    return Handler()


# ------------------------------------------------------------------------- the deadline comes in


@pytest.mark.parametrize(
    ("headers", "left"),
    [
        ({}, inf),
        ({"x_envoy_expected_rq_timeout_ms": "1500"}, 1.5),
        ({"X_Envoy_Expected_Rq_Timeout_Ms": "1500"}, 1.5),  # some servers keep the case
        ({"grpc_timeout": "2S"}, 2.0),
        ({"grpc_timeout": "2S", "x_envoy_expected_rq_timeout_ms": "500"}, 0.5),
        ({"grpc_timeout": "250m", "x_envoy_expected_rq_timeout_ms": "500"}, 0.25),
        ({"request_timeout": "1"}, inf),  # nobody said that it is to be believed
        ({"grpc_timeout": "soon", "x_envoy_expected_rq_timeout_ms": "500"}, 0.5),
        ({"grpc_timeout": "soon"}, inf),
    ],
)
def test_the_handler_runs_under_its_callers_deadline(
    clock: FakeClock, handler: Handler, headers: dict[str, str], left: float
) -> None:
    app = Deadlines(handler)
    call = clock.run(Call(**headers).of(app))
    assert (call.status, call.body) == (200, b"ok")
    assert handler.left == [pytest.approx(left)]
    assert (app.counts.bounded, app.counts.unbounded) == ((1, 0) if left < inf else (0, 1))
    assert remaining() == inf


def test_other_headers_are_believed_where_they_are_named(
    clock: FakeClock, handler: Handler
) -> None:
    app = Deadlines(handler, headers=[DeadlineHeader("Request-Timeout", "s")])
    clock.run(Call(request_timeout="0.7").of(app))
    clock.run(Call(x_envoy_expected_rq_timeout_ms="500").of(app))
    assert handler.left == [pytest.approx(0.7), inf]


@pytest.mark.parametrize(
    ("value", "options", "left"),
    [
        ("5000", {"maximum": 2.0}, 2.0),
        ("500", {"maximum": 2.0}, 0.5),
        (None, {"maximum": 2.0}, 2.0),
        (None, {"default": 1.0}, 1.0),
        ("soon", {"default": 1.0}, 1.0),
        ("5000", {"default": 1.0}, 5.0),
        (None, {"default": 1.0, "maximum": 2.0}, 1.0),
        ("5000", {"default": 1.0, "maximum": 2.0}, 2.0),
    ],
)
def test_a_default_and_a_maximum(
    clock: FakeClock, handler: Handler, value: str | None, options: Any, left: float
) -> None:
    headers = {} if value is None else {ENVOY: value}
    clock.run(Call(**headers).of(Deadlines(handler, **options)))
    assert handler.left == [pytest.approx(left)]


def test_what_makes_no_sense_is_counted_and_said_once_without_its_value(
    clock: FakeClock, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    app = Deadlines(handler)
    for _ in range(3):
        assert clock.run(Call(grpc_timeout="secret").of(app)).status == 200
    assert app.counts.ignored == {"grpc-timeout": 3}
    assert len(caplog.records) == 1
    assert "grpc-timeout" in caplog.text
    assert "secret" not in caplog.text


def test_a_guarded_call_below_is_bounded(clock: FakeClock) -> None:
    guard = Guard("t")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def hangs() -> None:
            await asyncio.sleep(60)

        with pytest.raises(TimeoutError):
            await guard.acall(hangs)
        await Handler()(scope, receive, send)

    began = clock.now()
    assert clock.run(Call(grpc_timeout="250m").of(Deadlines(app))).status == 200
    assert clock.now() - began == pytest.approx(0.25, abs=0.02)


# --------------------------------------------------------------------------- what is dropped


def test_expired_work_is_dropped_before_the_handler(clock: FakeClock, handler: Handler) -> None:
    app = Deadlines(handler)
    call = clock.run(Call(grpc_timeout="0n").of(app))
    assert handler.left == []
    assert call.status == 504
    problem = json.loads(call.body)
    assert problem["status"] == 504
    assert "before the work had begun" in problem["detail"]
    headers = dict(call.sent[0]["headers"])
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"content-length"] == str(len(call.body)).encode()
    counts = app.counts
    assert (counts.dropped, counts.dropped_before, counts.dropped_at_body) == (1, 1, 0)


def test_dropping_can_be_turned_off(clock: FakeClock, handler: Handler) -> None:
    app = Deadlines(handler, drop=False)
    assert clock.run(Call(grpc_timeout="0n").of(app)).status == 200
    assert clock.run(Call(part(b"x", after=1.0), grpc_timeout="1m").of(app)).status == 200
    assert handler.left == [0.0, pytest.approx(0.001)]
    assert app.counts.dropped == 0


@pytest.mark.parametrize(
    "messages",
    [
        [part(b"all", after=1.0)],
        [part(b"some", more=True), part(b"rest", after=1.0)],
        [part(b"some", more=True), part(b"", after=1.0)],  # the end of a chunked body
        [part(b"", more=True, after=1.0), part(b"rest")],
    ],
)
def test_a_body_that_comes_after_the_deadline_is_dropped(
    clock: FakeClock, handler: Handler, messages: Any
) -> None:
    app = Deadlines(handler)
    call = clock.run(Call(*messages, grpc_timeout="500m").of(app))
    assert call.status == 504
    assert "body" in json.loads(call.body)["detail"]
    assert handler.bodies == []
    assert (app.counts.dropped_before, app.counts.dropped_at_body) == (0, 1)


def test_a_body_that_comes_in_time_is_not(clock: FakeClock, handler: Handler) -> None:
    messages = [part(b"some", more=True, after=0.2), part(b" rest", after=0.2)]
    assert clock.run(Call(*messages, grpc_timeout="500m").of(Deadlines(handler))).status == 200
    assert handler.bodies == [b"some rest"]


def test_without_a_body_there_is_none_to_be_late(clock: FakeClock, handler: Handler) -> None:
    """A handler that overran and only then asks whether its caller is still there has done its work."""
    assert (
        clock.run(Call(part(after=1.0), grpc_timeout="500m").of(Deadlines(handler))).status == 200
    )


def framework(turn: str) -> Any:
    """An app that makes something of its own of an exception, as frameworks do."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
        except Exception as error:
            if turn == "answers":
                await send({**START, "status": 400})
                await send({"type": "http.response.body", "body": b"bad"})
            elif turn == "wraps":
                raise RuntimeError("500") from error
            elif turn == "answers and raises":
                await send({**START, "status": 500})
                raise
        if turn == "fails by itself":
            raise ValueError("of the app")

    return app


@pytest.mark.parametrize("turn", ["answers", "wraps", "answers and raises", "says nothing"])
def test_what_a_framework_makes_of_a_late_body_is_504_all_the_same(
    clock: FakeClock, turn: str
) -> None:
    call = clock.run(Call(part(b"x", after=1.0), grpc_timeout="1m").of(Deadlines(framework(turn))))
    assert call.status == 504
    assert len(call.sent) == 2


def test_an_exception_of_its_own_after_a_late_body_arrives_all_the_same(clock: FakeClock) -> None:
    call = Call(part(b"x", after=1.0), grpc_timeout="1m")
    with pytest.raises(ValueError, match="of the app"):
        clock.run(call.of(Deadlines(framework("fails by itself"))))
    assert call.status == 504


def test_an_exception_of_the_app_arrives_as_the_apps(clock: FakeClock) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    call = Call(grpc_timeout="1S")
    with pytest.raises(ZeroDivisionError):
        clock.run(call.of(Deadlines(app)))
    assert call.sent == []


def test_a_late_body_of_an_answer_under_way_is_passed_on(clock: FakeClock) -> None:
    got: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        got.append((await receive())["body"])
        await send({"type": "http.response.body", "body": b"echo"})

    call = clock.run(Call(part(b"late", after=1.0), grpc_timeout="1m").of(Deadlines(app)))
    assert (call.status, call.body, got) == (200, b"echo", [b"late"])


def test_the_wait_for_a_busy_loop_counts(handler: Handler, monkeypatch: Any) -> None:
    """Ten calls are ready at once; each holds the loop for a tenth of a second before it waits."""
    now = [100.0]
    monkeypatch.setattr("brownout.ext.asgi.monotonic", lambda: now[0])

    async def busy(scope: Any, receive: Any, send: Any) -> None:
        now[0] += 0.1
        await handler(scope, receive, send)

    app = Deadlines(busy)

    async def main() -> tuple[list[Call], Call]:
        tasks = [asyncio.create_task(Call(grpc_timeout="350m").of(app)) for _ in range(10)]
        calls = [await task for task in tasks]
        return calls, await Call(grpc_timeout="350m").of(app)

    calls, later = asyncio.run(main())
    assert [call.status for call in calls] == [200] * 4 + [504] * 6
    assert handler.left[:4] == [pytest.approx(left, abs=0.05) for left in (0.35, 0.25, 0.15, 0.05)]
    assert later.status == 200  # a new turn
    assert app.counts.dropped_before == 6


def test_a_tasks_own_work_is_no_wait(handler: Handler, monkeypatch: Any) -> None:
    now = [100.0]
    monkeypatch.setattr("brownout.ext.asgi.monotonic", lambda: now[0])
    app = Deadlines(handler)

    async def main() -> None:
        call = Call(grpc_timeout="350m")

        async def receive() -> Any:
            return part()

        await app(call.scope, receive, call.send)
        now[0] += 1.0
        await app(call.scope, receive, call.send)

    asyncio.run(main())
    assert handler.left == [pytest.approx(0.35, abs=0.05)] * 2


def test_a_loop_that_was_stopped_in_mid_turn_leaves_nothing(
    handler: Handler, monkeypatch: Any
) -> None:
    now = [100.0]
    monkeypatch.setattr("brownout.ext.asgi.monotonic", lambda: now[0])

    async def busy(scope: Any, receive: Any, send: Any) -> None:
        now[0] += 1.0
        await handler(scope, receive, send)

    app = Deadlines(busy)

    async def one(*, stop: bool) -> int:
        if stop:
            asyncio.get_running_loop().stop()  # at the end of this turn: the mark is never reached
        call = Call(part(), grpc_timeout="350m")

        async def receive() -> Any:
            return part()

        await app(call.scope, receive, call.send)
        return call.status

    async def two() -> list[int]:
        return list(await asyncio.gather(one(stop=False), one(stop=False)))

    loop = asyncio.new_event_loop()
    task = loop.create_task(one(stop=True))
    loop.run_forever()
    loop.close()
    assert task.result() == 200
    assert asyncio.run(two()) == [200, 504]


# --------------------------------------------------------------------- what must not be broken


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "something new"])
def test_all_but_http_passes_through_untouched(kind: str) -> None:
    scope, receive, send = {"type": kind}, object(), object()
    seen: list[Any] = []

    async def app(*args: Any) -> None:
        seen.extend([*args, remaining()])

    asyncio.run(Deadlines(app, maximum=1.0)(scope, receive, send))  # type: ignore[arg-type]
    assert seen[0] is scope
    assert seen[1] is receive
    assert seen[2] is send
    assert seen[3] == inf


def test_context_variables_go_in_and_come_out(clock: FakeClock) -> None:
    user: ContextVar[str] = ContextVar("user")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert user.get() == "outer"
        user.set("inner")
        await Handler()(scope, receive, send)

    async def main() -> str:
        user.set("outer")
        task = asyncio.current_task()
        await Call(grpc_timeout="1S").of(Deadlines(app))
        assert asyncio.current_task() is task
        return user.get()

    assert clock.run(main()) == "inner"


def test_a_streamed_answer_goes_out_as_it_comes(clock: FakeClock) -> None:
    sent_at: list[float] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for number in range(3):
            await asyncio.sleep(1.0)
            body = {"type": "http.response.body", "body": b"%d" % number, "more_body": number < 2}
            await send(body)
            sent_at.append(clock.now())

    began = clock.now()
    call = clock.run(Call(grpc_timeout="500m").of(Deadlines(app)))  # overrun, and not cut off
    assert call.body == b"012"
    assert [at - began for at in sent_at] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("stream", [False, True])
def test_background_work_after_the_answer_is_free(clock: FakeClock, stream: bool) -> None:
    """Frameworks answer in a task of its own when they stream: with a copy of the context."""
    guard = Guard("t")
    done: list[Any] = []

    async def audit() -> None:
        await asyncio.sleep(5.0)

        async def write() -> float:
            return remaining()

        done.append(await guard.acall(write))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        done.append(remaining())
        spawned = asyncio.create_task(audit())
        answer = Handler()(scope, receive, send)
        await (asyncio.create_task(answer) if stream else answer)
        await audit()
        await spawned

    assert clock.run(Call(grpc_timeout="1S").of(Deadlines(app))).status == 200
    assert done == [1.0, inf, inf]


def test_the_deadline_outside_still_holds(clock: FakeClock, handler: Handler) -> None:
    async def main() -> None:
        with deadline(0.5):
            await Call(grpc_timeout="1S").of(Deadlines(handler))

    clock.run(main())
    assert handler.left == [0.5]


# -------------------------------------------------------------------------- how it is set up


def test_a_framework_that_makes_the_middleware_is_handed_the_counts(
    clock: FakeClock, handler: Handler
) -> None:
    counts = Counts()
    clock.run(Call(grpc_timeout="0n").of(Deadlines(handler, counts=counts)))
    assert counts == Counts(bounded=1, dropped_before=1)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"default": 0}, "default=0"),
        ({"maximum": -1.0}, "maximum=-1.0"),
        ({"maximum": float("nan")}, "maximum=nan"),
        ({"default": "1"}, "default='1'"),
        ({"default": True}, "default=True"),
        ({"default": 3.0, "maximum": 2.0}, "at most the maximum"),
        ({"headers": ["Request-Timeout"]}, "give DeadlineHeaders"),
    ],
)
def test_what_can_not_work_is_refused_at_once(options: Any, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        Deadlines(Handler(), **options)


# ------------------------------------------------------------------------- for real, over sockets


@contextlib.contextmanager
def by_uvicorn(app: Any) -> Iterator[str]:
    config = uvicorn.Config(app, port=0, log_level="error", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    up = threading.Event()
    startup: Callable[..., Any] = server.startup

    async def started(*args: Any, **kwargs: Any) -> None:
        await startup(*args, **kwargs)
        up.set()

    server.startup = started  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert up.wait(20)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


@contextlib.contextmanager
def by_hypercorn(app: Any) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))  # who comes early waits
    port = listener.getsockname()[1]
    config = hypercorn.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog, config.graceful_timeout = None, 1.0
    over = threading.Event()

    async def without_lifespan(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for _ in range(2):  # startup, shutdown
            message = await receive()
            await send({"type": message["type"] + ".complete"})

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        watcher = threading.Thread(
            target=lambda: (over.wait(50), loop.call_soon_threadsafe(stop.set))
        )
        watcher.start()
        await hypercorn.asyncio.serve(without_lifespan, config, shutdown_trigger=stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        over.set()
        thread.join(20)


@pytest.fixture(params=[by_uvicorn, by_hypercorn], ids=lambda by: by.__name__)
def serving(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_the_first_hops_deadline_bounds_the_second_over_real_sockets(
    handler: Handler, serving: Any
) -> None:
    app = Deadlines(handler)
    guard = Guard("second", timeout=5.0)
    with (
        serving(app) as url,
        httpx2.Client(transport=Transport(httpx2.HTTPTransport(), guard=guard)) as client,
    ):
        with deadline(3.0):
            assert client.get(url).text == "ok"
            assert client.post(url, content=b"body").text == "ok"
        assert client.get(url).text == "ok"  # bounded by the guard's own time-out
        with httpx2.Client() as bare:
            assert bare.get(url).text == "ok"
            assert bare.get(url, headers={"grpc-timeout": "0n"}).status_code == 504
    first, second, third, fourth = handler.left
    assert 2.0 < second <= first <= 3.0
    assert 4.0 < third <= 5.0
    assert fourth == inf
    assert handler.bodies == [b"", b"body", b"", b""]
    assert app.counts == Counts(bounded=4, unbounded=1, dropped_before=1)


def test_a_body_that_stalls_past_the_deadline_is_dropped_over_real_sockets(
    handler: Handler, serving: Any
) -> None:
    app = Deadlines(handler)
    over = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"some"
        over.wait(0.3)
        yield b"rest"

    with serving(app) as url, httpx2.Client() as client:
        answer = client.post(url, content=body(), headers={ENVOY: "100"})
    assert answer.status_code == 504
    assert answer.json()["title"] == "Deadline passed"
    assert len(handler.left) == 1
    assert handler.bodies == []
    assert app.counts.dropped_at_body == 1


def test_a_hop_in_the_middle_passes_on_what_is_left_over_real_sockets(
    handler: Handler, serving: Any
) -> None:
    inner = Guard("inner")
    over = threading.Event()
    left: list[float] = []

    async def middle(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.to_thread(over.wait, 0.2)
        left.append(remaining())
        transport = Transport(httpx2.AsyncHTTPTransport(verify=False), guard=inner)
        async with httpx2.AsyncClient(transport=transport) as client:
            answer = await client.get(target)
        await send({**START, "status": answer.status_code})
        await send({"type": "http.response.body", "body": answer.content})

    with serving(Deadlines(handler)) as target, serving(Deadlines(middle)) as url:
        outer = Transport(httpx2.HTTPTransport(), guard=Guard("outer"))
        with httpx2.Client(transport=outer) as client, deadline(3.0):
            assert client.get(url).text == "ok"
            with pytest.raises(DeadlinePassed), deadline(0.0):
                client.get(url)
    assert len(left) == 1
    assert 1.0 < handler.left[0] <= left[0] <= 2.8
