"""A forked child: locks, evidence, permits and gates of its own, and no thread or timer of its parent's."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from brownout import Breaker, Guard, LimitReached, Retry, TimedOut, _guard, _watch, on_change
from brownout._core.breaker import CLOSED, OPEN
from brownout._core.budget import FIRST
from brownout._core.state import State

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes as POSIX has them"),
    # From 3.12 on Python warns of a fork beside threads: that is what is tested.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SECONDS = 20.0


def in_child(check: Callable[[], Any]) -> str:
    """Run `check` in a forked child; what it said: "ok", or its error."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            said = f"ok {check() or ''}".strip()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode()[:4000])
        os._exit(0)
    os.close(write)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG)[0]:
            with os.fdopen(read, "rb") as pipe:
                return pipe.read().decode()
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    os.close(read)
    return "it hangs"


def work() -> str:
    return "ok"


def test_locks_that_somebody_holds_at_the_fork_are_new() -> None:
    guard = Guard("t", retry=Retry(budget=1.0))
    guard.call(work)
    core, target = guard._core, guard._target
    gate = next(iter(core.gates.values()))
    locks: list[Any] = [
        gate._mutex, target._mutex, target.budget._mutex, _guard._lock, _watch._judging.lock,
        _watch._lock,
    ]  # fmt: skip
    for lock in locks:
        lock.acquire()

    def check() -> None:
        gate.observe(State.CRASHED, 1.0, 1.0)
        assert target.budget.spend(0, 0.1)
        assert guard.state is None
        Guard("another").call(work)
        on_change(print)
        _watch.stop()

    try:
        assert in_child(check) == "ok"
    finally:
        for lock in locks:
            lock.release()


def test_the_parents_permits_gates_budget_and_evidence_are_not_the_childs() -> None:
    guard = Guard("t", limit=2, breaker=Breaker(wait=15.0))
    for _ in range(50):
        guard.call(work)
    operation = guard._target.operations["work"]
    gate = guard._core.gates[operation]
    gate.observe(State.CRASHED, 1.0, 1.0)
    guard._target.budget.balance = 0.0
    baseline = operation.usual.baseline
    go, inside = threading.Event(), threading.Semaphore(0)

    def hold() -> None:
        inside.release()
        go.wait(SECONDS)

    holders = [threading.Thread(target=guard.call, args=(hold,)) for _ in range(2)]
    for holder in holders:
        holder.start()
    for _ in holders:
        inside.acquire(timeout=SECONDS)

    def check() -> None:
        assert guard._core.limit is not None
        assert guard._core.limit.in_use == 0
        assert gate.phase is CLOSED
        assert guard._target.budget.balance == FIRST
        assert guard._target.calls == 0
        assert operation.usual.baseline is baseline
        assert guard.call(work) == "ok"
        assert guard._target.calls == 1
        guard._target.fold(time.monotonic())
        assert operation.evidence.settled == 1
        assert sum(o.evidence.in_flight for o in guard._target.operations.values()) == 0

    assert in_child(check) == "ok"
    with pytest.raises(LimitReached):  # nothing of it is seen in the parent
        guard.call(work, operation="other")
    assert gate.phase is OPEN
    go.set()
    for holder in holders:
        holder.join(SECONDS)
    assert guard._core.limit is not None
    assert guard._core.limit.in_use == 0


def test_a_decorated_function_whose_guard_is_gone_is_renewed_too() -> None:
    @Guard("decorated", limit=1)
    def forks() -> str:
        return in_child(lambda: _again(forks))

    assert forks() == "ok"


def _again(forks: Any) -> None:
    (core,) = (core for core in _guard._cores if core.policy.target == "decorated")
    assert core.limit is not None
    assert core.limit.in_use == 0
    assert forks


def test_forked_in_mid_call_the_call_ends_well_in_both() -> None:
    guard = Guard("t", limit=1, breaker=Breaker(probes=1))
    read, write = os.pipe()

    def forks() -> int:
        return os.fork()

    pid = guard.call(forks)
    if not pid:
        try:
            limit = guard._core.limit
            assert limit is not None
            assert limit.in_use == 0  # not -1: the parent's permit is not given back here
            assert guard._target.calls == 0
            assert guard.call(work) == "ok"
            said = b"ok"
        except BaseException as error:
            said = repr(error).encode()
        os.write(write, said)
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 1000) == b"ok"
    os.close(read)
    os.close(write)
    assert guard._core.limit is not None
    assert guard._core.limit.in_use == 0
    assert guard._target.calls == 1


def test_forked_on_a_running_loop_the_child_has_a_wheel_of_its_own() -> None:
    guard = Guard("t", timeout=0.05)

    async def hangs() -> None:
        await asyncio.get_running_loop().create_future()

    async def times_out() -> None:
        with pytest.raises(TimedOut):
            await guard.acall(hangs)

    def child() -> None:
        policy = asyncio.new_event_loop()
        try:
            policy.run_until_complete(times_out())
        finally:
            policy.close()

    async def main() -> str:
        pending = asyncio.create_task(guard.acall(hangs))
        await asyncio.sleep(0)
        said = in_child(child)
        with pytest.raises(TimedOut):
            await pending
        return said

    assert asyncio.run(main()) == "ok"


def test_what_was_asked_for_goes_on_and_the_parents_threads_do_not() -> None:
    guard = Guard("t")
    on_change(lambda _: None)
    assert "brownout-judge" in {thread.name for thread in threading.enumerate()}

    def check() -> None:
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("brownout-judge") == 1
        judge = _watch._judging.thread
        assert judge is not None
        assert judge.is_alive()
        assert guard.call(work) == "ok"

    assert in_child(check) == "ok"


def _in_pool(_: int) -> tuple[int, int]:
    assert _POOLED.call(work) == "ok"
    return os.getpid(), _POOLED._target.calls


_POOLED = Guard("pooled", limit=1)


def test_multiprocessing_by_fork() -> None:
    _guard._registry["pooled"] = _POOLED._target  # each test begins with none
    for _ in range(5):
        _POOLED.call(work)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        told = pool.map(_in_pool, range(20), chunksize=1)
    counts: dict[int, int] = {}
    for pid, calls in told:
        counts[pid] = max(calls, counts.get(pid, 0))
    assert os.getpid() not in counts
    assert sum(counts.values()) == 20


APP = """
import os, threading
from brownout import Guard, on_change
guard = Guard("t", timeout=1.0, limit=1)
on_change(lambda change: None)
for _ in range(7):
    guard.call(lambda: None, operation="op")

def app(environ, start_response):
    guard.call(lambda: None, operation="op")
    names = sorted(thread.name for thread in threading.enumerate() if "brownout" in thread.name)
    body = f"{os.getpid()} {guard._target.calls} {guard._core.limit.in_use} {names}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def test_gunicorn_prefork(tmp_path: Path) -> None:
    """The app is loaded, and calls, before the workers are forked."""
    pytest.importorskip("gunicorn", reason="gunicorn is not installed: prefork goes untested")
    (tmp_path / "app.py").write_text(APP, "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--log-level", "warning",
        "--bind", f"127.0.0.1:{port}", "--no-control-socket", "app:app",
    ]  # fmt: skip
    path = os.pathsep.join([str(Path(__file__).parents[2] / "src"), str(tmp_path)])
    server = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path})
    try:
        counts: dict[str, list[int]] = {}
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and sum(map(len, counts.values())) < 30:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    pid, calls, in_use, names = answer.read().decode().split(" ", 3)
            except OSError:
                assert server.poll() is None
                time.sleep(0.05)
                continue
            assert (in_use, names) == ("0", "['brownout-judge']")
            counts.setdefault(pid, []).append(int(calls))
    finally:
        server.terminate()
        try:
            server.wait(SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
            raise
    assert str(server.pid) not in counts
    assert sum(map(len, counts.values())) == 30
    for calls_seen in counts.values():  # from nothing, each worker its own
        assert calls_seen == list(range(1, len(calls_seen) + 1))
