"""The pytest plugin, in runs of its own: as its users meet it."""

from __future__ import annotations

import pytest

import brownout.fault.process.place
import brownout.fault.tcp
import brownout.testing  # noqa: F401
from brownout.fault import undo

pytest_plugins = ["pytester"]

VICTIM = """
import subprocess, pytest
from brownout.fault import Pause, Latency, record
from brownout.fault.identity import Identity

@pytest.fixture(scope="module")
def victim():
    with subprocess.Popen(["sleep", "60"]) as it:
        yield it
        it.kill()

def stopped(victim):
    return Identity.of(victim.pid).state() == "T"
"""


def run(pytester: pytest.Pytester, code: str) -> pytest.RunResult:
    """Within this process, which is faster: what it needs is imported above, so that it stays."""
    pytester.makeini("[pytest]\n")
    pytester.makepyfile(code)
    return pytester.runpytest_inprocess("-q")


def test_what_a_test_made_is_undone_at_its_end(pytester: pytest.Pytester) -> None:
    code = """
def test_it_is_made_and_forgotten(faults, victim):
    faults.process(victim).make(Pause(), seconds=50)
    assert stopped(victim)

def test_it_is_gone(victim):
    assert not stopped(victim)
    assert record.read(record.folder()).records == ()

def test_it_is_made_and_the_test_fails(faults, victim):
    faults.process(victim.pid).make(Pause(), seconds=50)
    assert False

def test_it_is_gone_too(victim):
    assert not stopped(victim)
    assert record.read(record.folder()).records == ()
"""
    run(pytester, VICTIM + code).assert_outcomes(passed=3, failed=1)


def test_a_proxy_lives_as_long_as_its_test(pytester: pytest.Pytester) -> None:
    code = """
import socket, time
at = []

def test_it_runs(faults):
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        proxy = faults.tcp(f"{host}:{port}")
        proxy.make(Latency(seconds=0.2))
        at.append(proxy.listen.rpartition(":"))
        began = time.monotonic()
        with socket.create_connection((at[0][0], int(at[0][2])), 5) as client:
            client.sendall(b"x")
            peer = server.accept()[0]
            assert peer.recv(1) == b"x"
            peer.close()
        assert time.monotonic() - began > 0.19
    assert record.read(record.folder()).records

def test_it_has_ended():
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((at[0][0], int(at[0][2])), 5)
    assert record.read(record.folder()).records == ()
"""
    run(pytester, VICTIM + code).assert_outcomes(passed=2)


def test_a_fault_that_is_not_undone_fails_its_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undo.until_gone, "__kwdefaults__", {"seconds": 0.05})
    code = """
from brownout.fault.made import Made

def test_it_sticks(faults):
    Made(place="p", mechanism="m", fault=Pause(), apply=list, gone=lambda: bool(over)).make()

over = []

@pytest.fixture(autouse=True, scope="session")
def _in_the_end():
    yield
    from brownout.fault.made import in_force
    over.append(1)
    for made in in_force():
        made.undo()
"""
    outcome = run(pytester, VICTIM + code)
    outcome.assert_outcomes(passed=1, errors=1)
    outcome.stdout.fnmatch_lines(["*UndoFailed: Pause() at p is not undone*"])


def test_a_copy_and_a_pool_end_with_their_test(pytester: pytest.Pytester) -> None:
    code = """
import os, sqlite3
import httpx
from brownout.errors import ConfigurationError
from brownout.fault import HoldConnections, PauseReplay
left = []

def test_it_is_made(faults, tmp_path):
    sqlite3.connect(tmp_path / "a.db").close()
    copy = faults.replica(tmp_path / "a.db", target="shop")
    left.append(copy.path)
    copy.make(PauseReplay())
    with pytest.raises(ConfigurationError, match="'mysql' is"):
        faults.replica("mysql")
    client = httpx.Client()
    left.append(client)
    faults.pool(client).make(HoldConnections(count=2))
    assert len(record.read(record.folder()).records) == 3

def test_it_is_gone():
    path, client = left
    client.close()
    assert not path.exists()
    assert record.read(record.folder()).records == ()
"""
    run(pytester, VICTIM + code).assert_outcomes(passed=2)


def test_states(pytester: pytest.Pytester) -> None:
    code = """
import pytest
from brownout import Guard, State
from brownout.testing import FakeClock

@pytest.fixture(autouse=True)
def clock():
    with FakeClock() as clock:
        yield clock

def test_named(states, clock):
    guard = Guard("db")
    assert states.named("db") is None
    with pytest.raises(LookupError, match="'cache'; there are: db"):
        states.named("cache")
    with pytest.raises(TimeoutError, match="db is without evidence and not CRASHED after 0.05 s"):
        states.until("db", State.CRASHED, seconds=0.05)
    def refuse():
        raise ConnectionRefusedError
    for _ in range(60):
        with pytest.raises(Exception):
            guard.call(refuse)
        clock.advance(0.1)
    assert states.until("db", State.DEGRADED).target == "db"
    assert states.named("db") is State.DEGRADED
"""
    run(pytester, code).assert_outcomes(passed=1)


def test_unused_it_imports_nothing_of_faults(pytester: pytest.Pytester) -> None:
    code = """
import sys

def test_it():
    assert "brownout.pytest_plugin" in sys.modules
    assert [name for name in sys.modules if name.startswith("brownout.fault")] == []
"""
    pytester.makepyfile(code)
    pytester.runpytest_subprocess("-q").assert_outcomes(passed=1)
    shown = pytester.runpytest_subprocess("--fixtures", "-q")
    shown.stdout.fnmatch_lines_random(["faults -- *", "states -- *"])


@pytest.mark.parametrize(("value", "code"), [("1", 1), ("", 0), ("0", 0)])
def test_no_skip(pytester: pytest.Pytester, value: str, code: int) -> None:
    """BROWNOUT_NO_SKIP=1, as our own conftest has it."""
    from pathlib import Path

    pytester.makeconftest((Path(__file__).parents[2] / "conftest.py").read_text())
    pytester.makepyfile("import pytest\ndef test_a(): pytest.skip('none here')\ndef test_b(): pass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BROWNOUT_NO_SKIP", value)
        outcome = pytester.runpytest_inprocess("-q")
    assert outcome.ret == code
    if code:
        outcome.stdout.fnmatch_lines(["*BROWNOUT_NO_SKIP=1*", "*test_a*"])
