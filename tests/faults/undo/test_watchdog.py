"""The watchdog undoes what a dead maker has left and what is at its end; without one, `settle` does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from brownout.fault import record as records
from brownout.fault import watchdog
from brownout.fault.identity import Identity
from brownout.fault.record import Record, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAKER = str(Path(__file__).with_name("maker.py"))
ROOT = str(Path(__file__).parents[3])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A state folder with a watchdog of its own, which ends with it."""
    path = tmp_path / "faults"
    monkeypatch.setenv("BROWNOUT_FAULTS", str(path))
    yield str(path)
    it = the_watchdog(str(path))
    shutil.rmtree(path, ignore_errors=True)
    if it:
        until(lambda: not it.alive())


def the_watchdog(folder: str) -> Identity | None:
    lock = Path(folder, watchdog.LOCK)
    with suppress(OSError, ValueError):
        while watchdog.runs(folder):
            if text := lock.read_text():  # it takes the lock first, then it says who it is
                return Identity.of(int(text))
    return None


def until(seen: Callable[[], object], seconds: float = 20.0) -> float:
    began = time.monotonic()
    while not seen():
        assert time.monotonic() < began + seconds, "not seen in time"
        time.sleep(0.01)
    return time.monotonic() - began


@contextmanager
def a_maker(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], Identity, str]]:
    """A maker in a process group of its own, what it has stopped, and the record's id."""
    environment = {**os.environ, "PYTHONPATH": ROOT}
    maker = subprocess.Popen(
        [sys.executable, MAKER, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    stopped: Identity | None = None
    try:
        pid, start = _line(maker.stdout).split()
        stopped = Identity(int(pid), int(start))
        yield maker, stopped, _line(maker.stdout)
    finally:
        maker.kill()
        maker.communicate()
        if stopped:
            stopped.signal(signal.SIGKILL)


def _line(out: IO[str] | None) -> str:
    assert out is not None
    return out.readline().strip()


def test_a_fault_is_undone_when_its_maker_was_killed(folder: str) -> None:
    with a_maker() as (maker, stopped, _):
        until(lambda: stopped.state() == "T")
        maker.kill()
        maker.wait()
        assert until(lambda: stopped.state() != "T") < 2
        until(lambda: not records.read(folder).records)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_it_survives_what_ends_the_process_group_of_its_maker(
    folder: str, number: signal.Signals
) -> None:
    with a_maker() as (maker, stopped, _):
        it = the_watchdog(folder)
        assert it
        until(lambda: stopped.state() == "T")
        os.killpg(maker.pid, number)
        maker.wait()
        assert until(lambda: stopped.state() != "T") < 2
        assert it.alive()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_it_survives_the_signals_themselves_while_there_is_work(
    folder: str, number: signal.Signals
) -> None:
    with a_maker() as (maker, stopped, _):
        it = the_watchdog(folder)
        assert it
        it.signal(number)
        until(lambda: stopped.state() == "T")
        maker.kill()
        until(lambda: stopped.state() != "T")
        assert it.alive() or not records.read(folder).records


def test_a_maker_replaces_a_watchdog_that_was_killed(folder: str) -> None:
    with a_maker() as (maker, stopped, _):
        it = the_watchdog(folder)
        assert it
        it.signal(signal.SIGKILL)
        until(lambda: the_watchdog(folder) not in (None, it))
        maker.kill()
        until(lambda: stopped.state() != "T")


@pytest.mark.parametrize("by", ["hand", "the next watchdog"])
def test_what_both_dead_have_left_is_settled(folder: str, by: str) -> None:
    with a_maker() as (maker, stopped, id_):
        it = the_watchdog(folder)
        assert it
        until(lambda: stopped.state() == "T")
        os.killpg(maker.pid, signal.SIGSTOP)  # so that it can't start another one
        it.signal(signal.SIGKILL)
        maker.kill()
        maker.wait()
        assert stopped.state() == "T"
        if by == "hand":
            assert watchdog.settle(folder, id_) == ""
            assert stopped.state() != "T"
        else:
            until(lambda: not it.alive())  # and has let go of its lock
            watchdog.ensure(folder)
            until(lambda: stopped.state() != "T")
        until(lambda: records.read(folder).records == ())


def test_a_fault_is_undone_at_its_end_though_its_maker_sleeps(folder: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        of = Identity.of(process.pid)
        process.send_signal(signal.SIGSTOP)
        put(folder, of, end=records.now() + 0.2)
        watchdog.ensure(folder)
        until(lambda: of.state() != "T")
        until(lambda: not records.read(folder).records)
        process.kill()


def put(folder: str, of: Identity, **changes: Any) -> Record:
    about: dict[str, Any] = {
        "id": records.new_id(),
        "mechanism": "process",
        "kind": "halt",
        "fault": "Halt()",
        "place": "p",
        "owner": Identity.mine(),
        "began": time.time(),
        "end": records.now() + 60,
        "steps": (Step("signal", pid=of.pid, start=of.start, signal="CONT"),),
    }
    record = Record(**{**about, **changes})
    records.release(records.write(folder, record))
    return record


def test_an_undo_that_fails_is_told_and_tried_again(folder: str, tmp_path: Path) -> None:
    path = tmp_path / "brownout-x"
    (path / "a").mkdir(parents=True)
    mine = Identity.mine()
    steps = (Step("unlink", path=str(path)),)  # a folder: it can't be unlinked
    put(folder, mine, steps=steps, owner=mine._replace(start=0))
    watchdog.ensure(folder)
    until(lambda: any(one.failed for one in records.read(folder).records))
    (kept,) = records.read(folder).records
    assert "IsADirectoryError" in kept.failed
    assert "unlink" in kept.failed
    shutil.rmtree(path)
    until(lambda: not records.read(folder).records)


def test_a_record_of_an_earlier_boot_touches_no_process(folder: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        of = Identity.of(process.pid)
        process.send_signal(signal.SIGSTOP)
        until(lambda: of.state() == "T")
        ours = put(folder, of, home="another-boot pid:[1]")
        assert ours.orphan
        assert watchdog.settle(folder, ours.id) == ""
        assert of.state() == "T"
        process.kill()


def test_what_only_its_maker_can_undo_is_blamed_on_it(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = put(folder, Identity.mine(), steps=(), end=records.now() - 5)
    dog = watchdog.Watchdog(folder)
    assert dog.round() == 1
    until(lambda: records.read(folder).records[0].failed)
    assert f"process {os.getpid()}" in records.read(folder).records[0].failed
    records.remove(folder, ours.id)


@pytest.fixture
def handlers() -> Iterator[None]:
    """`main` is called in this process, and changes what signals do."""
    before = {number: signal.getsignal(number) for number in (1, 2, 13, 15)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_there_is_one_for_a_folder_and_it_ends(folder: str, handlers: None) -> None:
    code = (
        "import sys; from brownout.fault import watchdog; watchdog.LINGER_SECONDS = 1.0;"
        " watchdog.main(sys.argv[1:])"
    )
    with subprocess.Popen([sys.executable, "-c", code, folder]) as it:
        until(lambda: the_watchdog(folder) == Identity.of(it.pid))
        assert watchdog.main([folder]) == 0  # another one leaves at once
        assert it.wait(20) == 0
    assert not watchdog.runs(folder)


def test_a_maker_that_races_with_its_end_is_not_left_alone(folder: str, handlers: None) -> None:
    """A record is written between the last scan and the giving up of the lock."""
    raced: list[Record] = []

    class Racing(watchdog.Watchdog):
        def run(self) -> None:
            if raced:
                super().run()
                return
            raced.append(put(folder, Identity.mine(), owner=Identity(1, 1)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watchdog, "Watchdog", Racing)
        patch.setattr(watchdog, "LINGER_SECONDS", 0.0)
        assert watchdog.main([folder]) == 0
    assert raced
    assert records.read(folder).records == ()


def test_it_inherits_nothing_and_is_small(folder: str) -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    try:
        watchdog.ensure(folder)
        it = the_watchdog(folder)
        assert it
        open_files = [os.readlink(path) for path in Path(f"/proc/{it.pid}/fd").iterdir()]
        assert not [name for name in open_files if "pipe" in name or "socket" in name]
        status = Path(f"/proc/{it.pid}/status").read_text()
        kilobytes = int(status.partition("VmRSS:")[2].split()[0])
        assert kilobytes < 40_000
        assert os.getsid(it.pid) != os.getsid(0)
    finally:
        os.close(read_end)
        os.close(write_end)
