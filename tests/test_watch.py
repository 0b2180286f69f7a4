"""Seeing: the judge's tick, listeners, and what health checks claim."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

import brownout
from brownout import Change, Guard, State, _watch, on_change, states, watch
from tests.seen import LIMIT_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brownout.testing import FakeClock


@contextmanager
def hung_threads(guard: Guard, n: int) -> Iterator[None]:
    go = threading.Event()
    threads = [threading.Thread(target=guard.call, args=(go.wait, 30.0)) for _ in range(n)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        go.set()
        for thread in threads:
            thread.join(LIMIT_SECONDS)


def test_importing_starts_no_thread() -> None:
    code = (
        "import threading, brownout; brownout.Guard('t').state; brownout.states();"
        "raise SystemExit(threading.active_count() - 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


@pytest.mark.parametrize("callers", [4, 40])
def test_a_hang_is_seen_while_it_lasts_by_asking(callers: int) -> None:
    """All callers hang, no further call is made; another thread reads the state."""
    guard = Guard("t", timeout=0.2)
    with hung_threads(guard, callers):
        until(lambda: guard.state is State.UNRESPONSIVE)
        assert f"of {callers} calls" in guard.verdict.because
        assert guard.verdict.number("in_flight") == callers
        assert [seen.state for seen in states()] == [State.UNRESPONSIVE]


def test_a_hang_is_seen_while_it_lasts_by_being_told() -> None:
    """The same, and nobody reads the state either: the judge's thread tells."""
    changes: list[Change] = []
    seen = threading.Event()
    where: list[str] = []

    @on_change
    def tell(change: Change) -> None:
        where.append(threading.current_thread().name)
        changes.append(change)
        if change.after is State.UNRESPONSIVE:
            seen.set()

    guard = Guard("t", timeout=0.2)
    with hung_threads(guard, 8):
        assert seen.wait(LIMIT_SECONDS)
    last = changes[-1]
    assert (last.target, last.before) == ("t", None)
    assert "answer" in last.because
    assert set(where) == {"brownout-judge"}


def test_tasks_that_hang_are_seen_from_another_thread() -> None:
    """The loop is busy with nothing else: its callers have no time-out that would end them."""
    guard = Guard("t")
    seen: list[State | None] = []

    async def main() -> None:
        tasks = [asyncio.create_task(guard.acall(asyncio.Event().wait)) for _ in range(8)]
        await asyncio.sleep(0)
        await asyncio.to_thread(until, lambda: guard.state is State.UNRESPONSIVE)
        seen.append(guard.state)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert seen == [State.UNRESPONSIVE]


def test_a_state_ends_when_nobody_has_called_for_long(clock: FakeClock) -> None:
    guard = Guard("t", breaker=None)

    def refuses() -> None:
        raise ConnectionRefusedError(111, "no")

    for _ in range(100):
        with pytest.raises(ConnectionRefusedError):
            guard.call(refuses)
        clock.advance(0.02)
    assert guard.state is State.CRASHED
    seen: list[State | None] = []
    for _ in range(400):
        clock.advance(0.1)
        seen.append(guard.state)
    assert seen[-1] is None


# ------------------------------------------------------------------------------------- listeners


def crash(guard: Guard) -> None:
    def refuses() -> None:
        raise ConnectionRefusedError(111, "no")

    for _ in range(60):
        with pytest.raises((ConnectionRefusedError, brownout.Refused)):
            guard.call(refuses)


def test_a_listener_that_raises_hurts_neither_calls_nor_listeners(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = threading.Event()

    @on_change
    def broken(_: Change) -> None:
        raise ZeroDivisionError

    on_change(lambda change: seen.set() if change.after is State.CRASHED else None)
    guard = Guard("t", breaker=None)
    end = time.monotonic() + LIMIT_SECONDS
    while not seen.wait(0.05) and time.monotonic() < end:
        crash(guard)
    assert seen.is_set()
    until(lambda: "listener" in caplog.text)
    assert guard.call(lambda: "ok") == "ok"


def test_a_listener_that_leaves_does_not_end_the_judge() -> None:
    seen: list[str] = []

    @on_change
    def leaves(change: Change) -> None:
        seen.append(change.target)
        raise SystemExit

    for name in ("one", "two"):
        guard = Guard(name, breaker=None)
        end = time.monotonic() + LIMIT_SECONDS
        while name not in seen and time.monotonic() < end:
            crash(guard)
            threading.Event().wait(0.05)
    assert seen[:1] == ["one"]
    assert "two" in seen


def test_a_listener_that_blocks_does_not_hurt_calls() -> None:
    stuck, go = threading.Event(), threading.Event()

    @on_change
    def blocks(_: Change) -> None:
        stuck.set()
        go.wait(30.0)

    guard = Guard("t", breaker=None)
    try:
        end = time.monotonic() + LIMIT_SECONDS
        while not stuck.wait(0.05) and time.monotonic() < end:
            crash(guard)
        assert stuck.is_set()
        began = time.monotonic()
        for _ in range(1000):
            guard.call(lambda: "ok", operation="op")
        assert time.monotonic() - began < 2.0

        def is_seen() -> bool:
            crash(guard)
            return guard.state is State.CRASHED

        until(is_seen)
    finally:
        go.set()


def test_listeners_are_bounded_and_can_be_forgotten() -> None:
    on_change(print)
    for _ in range(99):
        on_change(lambda _: None)
    on_change(print)  # is told already
    with pytest.raises(brownout.ConfigurationError):
        on_change(lambda _: None)
    _watch.forget(print)
    on_change(lambda _: None)


# ---------------------------------------------------------------------------------------- claims


class Health:
    """A health check over HTTP: answers with `status`, or not at all."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[tuple[str, str | None]] = []
        self.silent = False
        self.go = threading.Event()
        health = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                health.asked.append((self.path, self.headers["Authorization"]))
                if health.silent:
                    health.go.wait(30.0)
                    return
                self.send_response(health.status)
                if health.status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.go.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(LIMIT_SECONDS)


@pytest.fixture
def health(monkeypatch: pytest.MonkeyPatch) -> Iterator[Health]:
    monkeypatch.setattr(_watch, "HEALTH_SECONDS", 0.02)
    monkeypatch.setattr(_watch, "HEALTH_TIMEOUT_SECONDS", 0.2)
    one = Health()
    try:
        yield one
    finally:
        _watch.stop()
        one.close()


def test_no_health_check_is_asked_unless_watched(health: Health) -> None:
    guard = Guard("t", health=f"http://{health.address}/health")
    assert guard.verdict.claim is None
    assert health.asked == []
    watch()
    until(lambda: guard.verdict.claim is True)


def test_a_health_check_over_http(health: Health) -> None:
    watch()
    guard = Guard("t", health=f"http://user:p%40ss@{health.address}/health?full=1")
    until(lambda: guard.verdict.claim is True)
    assert health.asked[0] == ("/health?full=1", "Basic dXNlcjpwQHNz")
    for status in (500, 302, 404):
        health.status = status
        until(lambda: guard.verdict.claim is False)
        health.status = 204
        until(lambda: guard.verdict.claim is True)
    assert {path for path, _ in health.asked} == {"/health?full=1"}  # no redirect is followed


def test_a_health_check_that_says_nothing_does_not_say_ok(health: Health) -> None:
    guard = Guard("t", health=f"http://{health.address}")
    watch()
    until(lambda: guard.verdict.claim is True)
    health.silent = True
    until(lambda: guard.verdict.claim is False)


def test_a_health_check_that_nobody_answers_does_not_say_ok(health: Health) -> None:
    address = health.address
    guard = Guard("t", health=f"http://{address}")
    watch()
    until(lambda: guard.verdict.claim is True)
    health.server.server_close()
    until(lambda: guard.verdict.claim is False)


def test_a_health_check_may_be_a_function(health: Health) -> None:
    told: list[bool | Exception] = [True]

    def ask() -> bool:
        if isinstance(told[-1], Exception):
            raise told[-1]
        return told[-1]

    guard = Guard("t", health=ask)
    watch()
    until(lambda: guard.verdict.claim is True)
    told.append(False)
    until(lambda: guard.verdict.claim is False)
    told.append(True)
    until(lambda: guard.verdict.claim is True)
    told.append(ZeroDivisionError())
    until(lambda: guard.verdict.claim is False)


def test_a_function_that_hangs_does_not_say_ok_and_delays_no_other(health: Health) -> None:
    hanging = threading.Event()

    def hang() -> bool:
        if hanging.is_set():
            health.go.wait(30.0)
        return True

    guard, other = Guard("t", health=hang), Guard("other", health=lambda: True)
    watch()
    until(lambda: guard.verdict.claim is True)
    hanging.set()
    until(lambda: guard.verdict.claim is False)
    other._target.claim = None
    until(lambda: other.verdict.claim is True)


def test_a_claim_of_ok_while_callers_suffer_is_a_contradiction(health: Health) -> None:
    guard = Guard("t", breaker=None, health=f"http://{health.address}")
    watch()
    until(lambda: guard.verdict.claim is True)
    end = time.monotonic() + LIMIT_SECONDS
    while guard.state is not State.CRASHED and time.monotonic() < end:
        crash(guard)
        threading.Event().wait(0.02)
    verdict = guard.verdict
    assert verdict.contradiction
    assert "; its own health check said ok 0." in verdict.because
    health.status = 500
    until(lambda: guard.verdict.claim is False)
    assert not guard.verdict.contradiction
    assert "health check" not in guard.verdict.because


def test_states_tells_every_target_by_name() -> None:
    for name in ("b", "a", "c"):
        Guard(name)
    assert [seen.target for seen in states()] == ["a", "b", "c"]
    assert {seen.state for seen in states()} == {None}
