import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import brownout
from brownout import Change, ConfigurationError, Guard, State, _guard, _watch
from brownout._core.view import Observer
from brownout._drive.clock import clock
from brownout._file import Trouble
from brownout.fleet import sharing
from brownout.fleet.file import File
from brownout.fleet.local import read
from brownout.fleet.sharing import Sharing
from brownout.fleet.wire import Told
from tests.fleet.sample import verdict
from tests.seen import until

LIMIT = 10.0  # seconds that a test waits at most for another thread


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fleet.db"


def calls(guard: Guard, count: int = 30) -> None:
    for _ in range(count):
        guard.call(lambda: None, operation="read")


def change(target: str = "quotes") -> Change:
    return Change(target, State.HEALTHY, State.DEGRADED, verdict(State.DEGRADED), clock.now() - 2.0)


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "brownout-fleet"]


class Scripted(File):
    """A file whose writes do what they are told to."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__("nowhere")
        self.act = act
        self.told: list[list[Told]] = []

    def write(
        self,
        observer: Observer,
        evidence: Iterable[tuple[str, str]],
        changes: Iterable[Told],
        *,
        prune: bool,
        usual: Iterable[tuple[str, str, str | None]] = (),
    ) -> None:
        self.act()
        self.told.append(list(changes))


# ------------------------------------------------------------------------------------- to share


def test_what_this_process_sees_is_in_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWNOUT_SERVICE", "shop")
    monkeypatch.setenv("BROWNOUT_ZONE", "zone-a")
    brownout.share(path)
    guard = Guard("quotes", health=lambda: True)
    calls(guard)
    until(lambda: path.exists() and path.stat().st_size and read(path).rows)
    until(lambda: read(path).rows[0].state is State.HEALTHY)
    found = read(path, after=0)
    (observer,) = found.observers
    assert observer[1:5] == ("shop", "zone-a", os.uname().nodename[:100], os.getpid())
    row = found.rows[0]
    assert (row.target, row.verdict and row.verdict.operation) == ("quotes", "read")
    assert row.verdict
    assert row.verdict.number("calls") == 30
    until(lambda: read(path, after=0).changes)
    assert read(path, after=0).changes[0].after is State.HEALTHY


def test_sharing_starts_the_judge(path: Path) -> None:
    brownout.share(path)
    assert _watch._judging.thread
    assert _watch._judging.thread.is_alive()


def test_to_share_twice_is_to_share_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brownout.share(path)
    monkeypatch.chdir(path.parent)
    brownout.share("fleet.db")
    assert len(writers()) == 1
    with pytest.raises(ConfigurationError, match=r"shares into .*fleet.db already; one is enough"):
        brownout.share(path.with_name("other.db"))


def test_a_process_says_its_zone(path: Path) -> None:
    brownout.share(path, zone="zone-b")
    brownout.share(path, zone="zone-b")
    with pytest.raises(ConfigurationError, match="as one of zone 'zone-b' already"):
        brownout.share(path, zone="zone-c")
    sharing.stop()  # it writes a last time
    assert [one.zone for one in read(path).observers] == ["zone-b"]


@pytest.mark.parametrize("wrong", ["", " zone-a", "a|b", "a, b", "x" * 64, "a\nb", "\x1b[31m", 7])
def test_what_is_no_zone_is_refused(path: Path, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"zone=.* give 1 to 63 printable characters"):
        brownout.share(path, zone=wrong)
    assert writers() == []


def test_a_zone_of_the_environment_that_is_none_is_told_and_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BROWNOUT_ZONE", "zone-a")
    assert sharing.observer(wall=1.0).zone == "zone-a"
    monkeypatch.setenv("BROWNOUT_ZONE", "a | b")
    assert sharing.observer(wall=1.0).zone == ""
    assert "BROWNOUT_ZONE: give 1 to 63" in caplog.text


@pytest.mark.parametrize("wrong", ["", "redis://cache/3", "a\0b", b"fleet.db"])
def test_what_is_no_path_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="give the path of a file, such as"):
        brownout.share(wrong)
    assert not writers()


def test_the_end_is_written(path: Path) -> None:
    brownout.share(path)
    Guard("quotes")
    _watch.stop()
    assert not writers()
    assert not path.with_name("fleet.db-wal").exists()
    found = read(path)
    assert found.observers[0].ended is not None
    assert [row.target for row in found.rows] == ["quotes"]


def test_the_environment_starts_it_with_the_first_guard(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWNOUT_FLEET", str(path))
    assert not writers()
    Guard("quotes")
    Guard("other")
    assert len(writers()) == 1
    _watch.stop()
    assert [row.target for row in read(path).rows] == ["other", "quotes"]


def test_a_wrong_environment_is_told_once_and_fails_no_guard(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BROWNOUT_FLEET", "nats://bus")
    Guard("quotes")
    Guard("other")
    (told,) = caplog.messages
    assert told.startswith("BROWNOUT_FLEET: share('nats://bus'): give the path of a file, such as")
    assert told.endswith("; nothing is shared")


def test_importing_starts_nothing(path: Path) -> None:
    code = "import brownout, threading; print(threading.active_count())"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "BROWNOUT_FLEET": str(path)},
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert told.stdout == b"1\n"
    assert not path.exists()


def test_names_that_are_no_text_do_not_stop_it(path: Path) -> None:
    _guard._target("\ud800\x1b[31m" + "x" * 1000)
    Guard("quotes")
    sharing = Sharing(str(path))
    sharing.write()
    sharing.let_go()
    assert [row.target[:3] for row in read(path).rows] == ["quo", "xxx"]
    assert not sharing.trouble


def test_too_many_targets_are_left_out_visibly(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "MOST_TARGETS", 3)
    for n in range(5):
        Guard(f"target-{n}")
    ill = Guard("zz", breaker=None)
    until(lambda: not ill.outcome(lambda: 1 / 0).succeeded and ill.at_least(State.DEGRADED))
    one = Sharing(str(path))
    one.write()
    one.let_go()
    found = read(path)
    assert [row.target for row in found.rows] == ["zz", "target-0", "target-1"]
    assert found.observers[0].left_out == 3


# ------------------------------------------------------------------------------------- trouble


def test_a_part_that_was_dropped_is_gone_from_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_guard, "MOST_TARGETS", 3)
    writer, guard = Sharing(str(path)), Guard("shop")
    with closing(writer._file()):
        for part in "abcd":
            calls(guard.per(part))
            writer.write()
        assert sorted(row.target for row in read(path).rows) == ["shop", "shop/c", "shop/d"]


def test_trouble_is_told_once_and_again_after_it_had_worked(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "brownout")
    broken = True

    def act() -> None:
        if broken:
            raise Trouble("it is full")

    one = Sharing("fleet.db", open_file=lambda _: Scripted(act))
    for broken in (True, True, False, False, True, True):  # noqa: B007 - act reads it
        one.write()
    told = [record.message.partition(":")[0] for record in caplog.records]
    cannot, can = (
        "the fleet file fleet.db can't be written",
        "the fleet file fleet.db can be written again",
    )
    assert told == [cannot, can, cannot]
    assert one.trouble == "it is full"


def test_a_lock_is_trouble_only_when_it_lasts(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    clock.now = lambda: now

    def act() -> None:
        raise Trouble("it is locked", passing=True)

    one = Sharing("fleet.db", open_file=lambda _: Scripted(act))
    for now in (100.0, 101.0, 102.9):  # noqa: B007 - the clock reads it
        one.write()
    assert caplog.records == []
    now = 103.0
    one.write()
    assert len(caplog.records) == 1


def test_changes_wait_for_the_file_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "MOST_CHANGES", 3)
    broken = True

    def act() -> None:
        if broken:
            raise Trouble("it is full")

    file = Scripted(act)
    one = Sharing("fleet.db", open_file=lambda _: file)
    for n in range(5):
        one.hear(change(str(n)))
        one.write()
    broken = False
    one.write()
    one.write()
    assert [[told.target for told in changes] for changes in file.told] == [["0", "1", "2"], []]
    assert one._lost == 2


def test_a_change_has_its_own_instant(path: Path) -> None:
    one = Sharing(str(path))
    heard = change()
    one.hear(heard)
    one.write()
    one.let_go()
    found = read(path, after=0)
    (told,) = found.changes
    assert told.monotonic == heard.at
    assert 1.9 < found.at - told.at < 2 + LIMIT
    assert (told.before, told.after) == (State.HEALTHY, State.DEGRADED)


def test_a_change_wakes_the_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "WRITE_SECONDS", 3600.0)
    file = Scripted(lambda: None)
    one = Sharing("fleet.db", open_file=lambda _: file)
    one.start()
    one.hear(change())
    until(lambda: file.told)
    one.stop()
    assert len(file.told[0]) == 1


def test_a_fault_of_ours_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sharing, "WRITE_SECONDS", 0.1)
    left = [1, 2]

    def act() -> None:
        if left:
            left.pop()
            raise ZeroDivisionError

    file = Scripted(act)
    one = Sharing("fleet.db", open_file=lambda _: file)
    one.start()
    until(lambda: file.told)
    one.stop()
    assert [record.message for record in caplog.records if record.exc_info] == [
        "sharing into fleet.db: a fault in brownout"
    ]


# ------------------------------------------------------------------- calls are not concerned by it


def test_calls_go_on_while_a_write_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer stands in its write all the while: whatever a call needs, it is not that."""
    monkeypatch.setattr(sharing, "END_SECONDS", 0.01)
    entered, leave = threading.Event(), threading.Event()

    def act() -> None:
        entered.set()
        leave.wait(LIMIT)

    one = Sharing("fleet.db", open_file=lambda _: Scripted(act))
    one.start()
    guard = Guard("quotes")
    calls(guard)
    assert entered.wait(LIMIT)
    calls(guard, 1000)
    assert guard.state is State.HEALTHY
    assert [one.target for one in brownout.states()] == ["quotes"]
    one.hear(change())
    one.stop()  # nor does it hold up the end
    assert not leave.is_set()
    leave.set()
    one._thread.join(LIMIT)


def test_calls_go_on_while_the_file_is_locked(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import sqlite3

    caplog.set_level(logging.WARNING, "brownout")
    guard = Guard("quotes")
    with closing(File(str(path))) as file:
        file.write(sharing.observer(wall=1.0), (), (), prune=False)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        brownout.share(path)
        calls(guard, 1000)
        until(lambda: sharing._current[0]._troubled_at is not None)
        calls(guard, 1000)
        until(lambda: guard.verdict.number("calls") == 2000)
        assert guard.verdict.number("failed") == 0
    until(lambda: read(path).rows)
    assert caplog.records == []


@pytest.mark.parametrize("where", ["missing/fleet.db", "", "text"])
def test_a_file_that_cannot_be_written_fails_no_call(
    tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "text").write_text("my diary")
    brownout.share(tmp_path / where)
    guard = Guard("quotes")
    calls(guard)
    until(lambda: caplog.records)
    calls(guard)
    until(lambda: guard.state is State.HEALTHY)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Calls go on" in caplog.records[0].message
    assert (tmp_path / "text").read_text() == "my diary"
