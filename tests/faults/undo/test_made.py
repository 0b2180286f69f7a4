"""A fault in force: on record before it is made, undone however its block ends, and seen to be gone."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import threading
import time
from math import inf
from typing import TYPE_CHECKING, Any

import pytest

from brownout.errors import ConfigurationError, FaultRefused, UndoFailed
from brownout.fault import Fault, Latency, making, undo, watchdog
from brownout.fault import made as made_module
from brownout.fault import record as records
from brownout.fault.identity import Identity
from brownout.fault.made import Made, Step
from tests.faults.undo.maker import Halt, halt
from tests.seen import until

if TYPE_CHECKING:
    from pathlib import Path


def on_record() -> list[records.Record]:
    return list(records.read(records.folder()).records)


def inside(**changes: Any) -> Made:
    about: dict[str, Any] = {"place": "here", "mechanism": "test", "fault": Halt(), "apply": list}
    return Made(**{**about, **changes})


def test_it_is_on_record_before_it_is_made_and_until_it_is_gone(process: Identity) -> None:
    seen: list[records.Record] = []
    made = inside(apply=lambda: seen.extend(on_record()), target="db", place="p")
    with made as it:
        assert it.active
        assert 0 < it.seconds_left <= 60
    assert [(one.place, one.target, one.owner, one.id) for one in seen] == [
        ("p", "db", Identity.mine(), made.id)
    ]
    assert on_record() == []
    assert not made.active


def test_a_process_is_stopped_and_goes_on(process: Identity) -> None:
    with halt(process):
        until(lambda: process.state() == "T")
        assert watchdog.runs(records.folder())
    assert process.state() != "T"


def test_undo_is_done_once_and_as_often_as_one_likes() -> None:
    done: list[int] = []
    made = inside(undo=lambda: done.append(1)).make()
    for _ in range(3):
        made.undo()
    assert done == [1]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_it_is_undone_however_its_block_ends(process: Identity, error: BaseException) -> None:
    with pytest.raises(type(error)), halt(process):
        raise error
    assert process.state() != "T"
    assert on_record() == []


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_what_was_half_made_is_undone(process: Identity, error: BaseException) -> None:
    made = halt(process)
    apply = made._apply

    def half() -> None:
        apply()
        raise error

    made._apply = half
    with pytest.raises(type(error)):
        made.make()
    assert process.state() != "T"
    assert on_record() == []


def test_without_a_watchdog_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(folder: str, *, wait: bool = True) -> None:
        raise FaultRefused("no watchdog")

    monkeypatch.setattr(watchdog, "ensure", none)
    made: list[int] = []
    with pytest.raises(FaultRefused, match="no watchdog"):
        inside(apply=lambda: made.append(1)).make()
    assert made == []
    assert on_record() == []


def test_what_can_not_be_undone_is_told_and_stays_on_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(undo.until_gone, "__kwdefaults__", {"seconds": 0.05})
    left = [1]
    made = inside(gone=lambda: not left).make()
    with pytest.raises(UndoFailed, match=f"still there.*brownout fault clear {made.id}") as failed:
        made.undo()
    assert (failed.value.id, failed.value.place) == (made.id, "here")
    (kept,) = on_record()
    assert "still there" in kept.failed
    assert made.active
    left.clear()
    made.undo()
    assert on_record() == []


def test_it_ends_by_itself_and_the_block_goes_on() -> None:
    done: list[int] = []
    with inside(seconds=0.05, undo=lambda: done.append(1)) as made:
        until(lambda: not made.active)
        assert made.seconds_left == 0
    assert done == [1]


def test_ends_of_many_are_kept_by_one_thread() -> None:
    before = threading.active_count()
    many = [inside(seconds=0.3 + n / 1000).make() for n in range(50)]
    assert threading.active_count() <= before + 1
    until(lambda: not any(each.active for each in many))


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), 1e9, inf])
def test_every_fault_has_an_end(process: Identity, seconds: float) -> None:
    for made in (halt(process, seconds), inside(seconds=seconds)):
        with pytest.raises(ConfigurationError, match="every fault has an end"):
            made.make()
    assert on_record() == []


def test_another_fault_in_its_place_is_on_record(process: Identity) -> None:
    with inside(seconds=30) as made:
        made.change(Latency(seconds=0.7))
        assert made.fault == Latency(seconds=0.7)
        assert [(one.fault, one.kind) for one in on_record()] == [(str(made.fault), "latency")]
        assert made.seconds_left <= 30
        with pytest.raises(ConfigurationError, match="every fault has an end"):
            made.change(Latency(seconds=0.8), seconds=0)
        assert made.fault == Latency(seconds=0.7)
        made.change(Latency(seconds=0.7), seconds=40)
        assert 30 < made.seconds_left <= 40
        made.change(Latency(seconds=0.7), seconds=0.05)
        until(lambda: not made.active)
    made.change(Latency(seconds=0.9))
    assert on_record() == []


class Inside:
    def make(self, fault: Fault, *, seconds: float = 60.0, name: str | None = None) -> Made:
        return inside(seconds=seconds).make()


def test_a_loop_goes_on_while_a_fault_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while its watchdog starts, and while it is undone."""
    began, goes_on = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> None:
        began.set()
        assert goes_on.wait(5), "the loop stood still"

    async def go_on() -> None:
        await asyncio.to_thread(began.wait, 5)
        goes_on.set()

    async def main() -> None:
        other = asyncio.create_task(go_on())
        async with making(Inside(), Latency(seconds=1), seconds=9) as made:
            assert made.active
            assert made.seconds_left <= 9
        assert not made.active
        await other

    monkeypatch.setattr(watchdog, "ensure", slow)
    asyncio.run(main())
    assert on_record() == []


def test_who_is_cancelled_while_a_fault_is_made_leaves_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, goes_on = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> None:
        began.set()
        assert goes_on.wait(5)

    async def make() -> None:
        async with making(Inside(), Latency(seconds=1)):
            raise AssertionError("it was cancelled before")

    async def main() -> None:
        task = asyncio.create_task(make())
        await asyncio.to_thread(began.wait, 5)
        task.cancel()
        await asyncio.sleep(0)
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr(watchdog, "ensure", slow)
    asyncio.run(main())
    assert on_record() == []


def test_it_is_made_once() -> None:
    made = inside().make()
    made.undo()
    with pytest.raises(FaultRefused, match="made already"):
        made.make()
    with made:
        assert not made.active


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12: a fork beside threads
def test_a_child_of_a_fork_undoes_nothing(process: Identity) -> None:
    with halt(process) as made:
        child = os.fork()
        if child == 0:
            made.undo()
            made_module._KEEPER._leave()
            os._exit(0)
        os.waitpid(child, 0)
        assert len(on_record()) == 1
        until(lambda: process.state() == "T")


def test_async_the_loop_goes_on_while_it_is_undone() -> None:
    beats: list[float] = []
    gone = threading.Event()
    threading.Timer(0.2, gone.set).start()

    async def beat() -> None:
        while True:
            beats.append(time.monotonic())
            await asyncio.sleep(0.01)

    async def main() -> None:
        async with inside(gone=gone.is_set):
            beating = asyncio.ensure_future(beat())
            await asyncio.sleep(0)
        assert gone.is_set()
        beating.cancel()

    asyncio.run(main())
    assert len(beats) > 3


def test_async_a_cancel_while_it_is_undone_waits_for_that() -> None:
    gone = threading.Event()

    async def block() -> None:
        async with inside(gone=gone.is_set):
            pass

    async def main() -> None:
        task = asyncio.ensure_future(block())
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done()
        gone.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert on_record() == []


def test_at_exit_all_is_undone(process: Identity) -> None:
    code = """
import sys
from brownout.fault.identity import Identity
from tests.faults.undo.maker import halt
halt(Identity(int(sys.argv[1]), int(sys.argv[2]))).make()
"""
    import sys

    command = [sys.executable, "-c", code, str(process.pid), str(process.start)]
    subprocess.run(command, check=True, timeout=30)
    assert process.state() != "T"
    assert on_record() == []


def test_steps_that_are_known_late_are_on_record_before_they_are_needed(process: Identity) -> None:
    made = halt(process)
    further = made.steps
    made.steps = ()
    apply = made._apply

    def late() -> None:
        made.add(*further)
        assert [one.steps for one in on_record()] == [further]
        apply()

    made._apply = late
    with made:
        until(lambda: process.state() == "T")
    assert process.state() != "T"


def test_a_fault_that_others_have_cleared_leaves_the_next_one_alone(process: Identity) -> None:
    with halt(process) as first:
        assert watchdog.settle(records.folder(), first.id) == ""
        second = halt(process).make()
        until(lambda: process.state() == "T")
    assert process.state() == "T"
    second.undo()
    assert process.state() != "T"


def test_a_fault_is_undone_though_its_record_is_lost(process: Identity) -> None:
    with halt(process) as made:
        records.remove(records.folder(), made.id)
    assert process.state() != "T"


def test_a_place_that_names_its_target_has_it_on_record(process: Identity) -> None:
    from brownout.fault import Latency, Pause, Process
    from brownout.fault.tcp import running

    with (
        Process(process.pid, target="db").make(Pause()),
        running("127.0.0.1:1", name="cache") as it,
    ):
        it.make(Latency(seconds=1))
        assert [(one.target, one.kind) for one in on_record()] == [
            ("db", "pause"),
            ("cache", "latency"),
        ]
    assert on_record() == []


def test_the_file_of_a_socket_is_left_to_its_living_owner(tmp_path: Path) -> None:
    """A listener that refuses on purpose looks like a dead one."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        made = inside(undo_steps=[Step("socket", path=str(path))]).make()
        assert on_record()[0].inside
        made.undo()
        assert path.exists()
    assert on_record() == []
