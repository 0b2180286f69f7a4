"""Several real processes and one file."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from brownout import BrownoutError, State
from brownout.fleet.local import Fleet, read
from tests.fleet.sample import only

LIMIT = 20.0
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes as POSIX has them")

SHARE = """
import sys, threading, brownout
from brownout.fleet import sharing
name, count = sys.argv[1], int(sys.argv[2])
guard, own = brownout.Guard("shared"), brownout.Guard(f"only-{name}")
for n in range(count):
    guard.call(lambda: None, operation="read")
    own.call(lambda: None, operation="read")
print("called", flush=True)
sys.stdin.read()
"""

HURRY = """
import brownout, sys
from brownout import State, _watch
from brownout.fleet.sharing import Sharing
guards = [brownout.Guard(f"target-{n}") for n in range(20)]
for guard in guards:
    for _ in range(30):
        guard.call(lambda: 0, operation="read")
writer = Sharing(sys.argv[1])
print("ready", flush=True)
while True:
    change = _watch.Change("target", None, State.HEALTHY, guards[0].verdict, 1.0)
    for _ in range(20):
        writer.hear(change)
    writer.write()
    assert not writer.trouble, writer.trouble
"""

FORK = """
import os, sys, threading, brownout
from brownout.fleet import fork, local
path, caught = sys.argv[1], sys.argv[2] == "caught"
guard = brownout.Guard("shared")
brownout.share(path)
for n in range(50):
    guard.call(lambda: 0, operation="read")
pause = threading.Event()
while True:
    try:
        if local.read(path).rows:
            break
    except brownout.BrownoutError:
        pass
    pause.wait(0.05)
hung = threading.Event()
if caught:
    def hang():
        with fork.IN_USE:
            hung.set()
            pause.wait(2)
    threading.Thread(target=hang, daemon=True).start()
    hung.wait(10)
child = os.fork()
for n in range(0 if child else 30):
    guard.call(lambda: 0, operation="read")
print("parent" if child else "child", os.getpid(), flush=True)
sys.stdin.read()
if child:
    os.waitpid(child, 0)
"""


@contextmanager
def started(
    code: str, *arguments: str, path: Path, **environ: str
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *arguments],
        env={**os.environ, "BROWNOUT_FLEET": "" if path == Path() else str(path), **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=LIMIT)


def until(path: Path, condition: Callable[[Fleet], object]) -> Fleet:
    pause, end = threading.Event(), time.monotonic() + LIMIT
    found = None
    while time.monotonic() < end:
        try:
            found = read(path, after=0)
        except BrownoutError:  # not made yet
            found = None
        if found and condition(found):
            return found
        pause.wait(0.05)
    raise AssertionError(f"it did not come about in time: {found}")


def _has(observers: int) -> Callable[[Fleet], bool]:
    return lambda fleet: len(fleet.observers) == observers


def sound(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_four_processes_share_one_file(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    names = ["a", "b", "c", "d"]
    with (
        started(SHARE, "a", "30", path=path, BROWNOUT_SERVICE="a", BROWNOUT_ZONE="east") as a,
        started(SHARE, "b", "30", path=path, BROWNOUT_SERVICE="b") as b,
        started(SHARE, "c", "30", path=path, BROWNOUT_SERVICE="c") as c,
        started(SHARE, "d", "3", path=path, BROWNOUT_SERVICE="d") as d,
    ):
        found = until(path, lambda fleet: len(fleet.observers) == 4 and len(fleet.rows) == 5)
        assert [one.name for one in found.observers] == names
        assert [one.pid for one in found.observers] == [process.pid for process in (a, b, c, d)]
        assert found.observers[0].zone == "east"
        shared = next(row for row in found.rows if row.target == "shared")
        assert (shared.state, shared.seen_by, shared.observers) == (State.HEALTHY, 3, 3)
        assert len(shared.fresh) == 4
        assert {row.target for row in found.rows} == {"shared", *(f"only-{name}" for name in names)}
        last = next(row for row in found.rows if row.target == "only-d")
        assert (last.state, last.because) == (None, "no evidence: 3 calls in 30 s, 20 are needed")
        assert found.malformed == 0
        for process in (a, b, c, d):
            _, told = process.communicate(timeout=LIMIT)  # closes its input: it ends
            assert (process.returncode, told) == (0, "")
    assert all(one.ended for one in read(path).observers)
    assert sound(path)


def test_one_that_is_killed_turns_stale_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with (
        started(SHARE, "a", "30", path=path, BROWNOUT_SERVICE="a") as a,
        started(SHARE, "b", "30", path=path, BROWNOUT_SERVICE="b") as b,
    ):
        until(path, lambda fleet: len(fleet.observers) == 2 and len(fleet.rows) == 3)
        a.kill()
        a.wait(LIMIT)
        killed = time.time()
        found = until(path, lambda fleet: fleet.observers[1].written > killed)
        dead, alive = found.observers
        assert (dead.ended, alive.pid) == (None, b.pid)
        later = read(path, now=dead.written + 5.1)
        assert later.observers[0].stale(later.at)
        row = next(row for row in later.rows if row.target == "only-a")
        assert (row.state, row.fresh) == (None, ())
        assert "has not been heard of for" in row.because
        b.communicate(timeout=LIMIT)
        assert b.returncode == 0
    assert sound(path)


def test_kills_in_the_midst_of_writing_never_spoil_the_file(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    pause = threading.Event()
    for n in range(8):
        with started(HURRY, str(path), path=Path()) as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            until(path, _has(n + 1))
            pause.wait(0.013 * n)
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait(LIMIT)
        assert sound(path)
        assert read(path).malformed == 0
    assert {one.stat().st_mode & 0o777 for one in tmp_path.iterdir()} == {0o600}


def test_a_forked_child_shares_as_an_observer_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with started(FORK, str(path), "clean", path=path) as process:
        assert process.stdout
        lines = [process.stdout.readline().split() for _ in range(2)]
        pids = {who: int(pid) for who, pid in lines}
        found = until(
            path, lambda fleet: len(fleet.observers) == 2 and fleet.rows[0].observers == 2
        )
        row = only(found.rows)
        seen = {one.observer.pid: one.verdicts[0].number("calls") for one in row.fresh}
        assert seen == {pids["parent"]: 50, pids["child"]: 30}
        before = {one.pid: one.written for one in found.observers}
        until(path, lambda fleet: all(one.written > before[one.pid] for one in fleet.observers))
        process.communicate(timeout=LIMIT)
        assert process.returncode == 0
    assert all(one.ended for one in read(path).observers)
    assert sound(path)


def test_a_child_forked_while_the_file_was_in_use_keeps_its_hands_off(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with started(FORK, str(path), "caught", path=path) as process:
        assert process.stdout
        lines = [process.stdout.readline().split() for _ in range(2)]
        assert {who for who, _ in lines} == {"parent", "child"}
        forked = time.time()
        found = until(path, lambda fleet: fleet.observers[0].written > forked + 3)
        assert len(found.observers) == 1
        process.communicate(timeout=LIMIT)
        assert process.returncode == 0
    assert sound(path)
