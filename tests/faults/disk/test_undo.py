"""Whoever dies, nothing is left of it: no mount, no process, no folder, no hung reader."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from brownout.fault import Disk, Hang, record, undo
from brownout.fault.disk import mount
from brownout.fault.identity import Identity
from brownout.fault.record import Step
from tests.faults.disk.conftest import READ, Outsider
from tests.seen import within

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAKER = """
import sys, time
from brownout.fault import Disk, Hang
disk = Disk(sys.argv[1]).start()
disk.make(Hang())
step = next(step for step in disk.shadow.steps if step.verb == "terminate")
print(step.details["pid"], flush=True)
time.sleep(60)
"""


class Maker:
    """A process that shadows a folder and makes a fault there; and its server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", MAKER, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.server = Identity.of(int(self.process.stdout.readline()))

    def gone(self) -> bool:
        """Nothing is left, as far as an outsider can see."""
        mine = [each for each in records() if each.place == str(self.folder)]
        return not mine and not os.path.ismount(self.folder) and not self.server.alive()

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


def records() -> tuple[record.Record, ...]:
    return record.read(record.folder()).records


@pytest.fixture
def maker(folder: Path) -> Iterator[Maker]:
    maker = Maker(folder)
    yield maker
    maker.end()
    assert within(maker.gone)
    assert len((folder / "blocks").read_bytes()) == 409_600


@pytest.fixture
def hung(maker: Maker) -> Iterator[Outsider]:
    reader = Outsider(READ, maker.folder / "blocks", 0, 4096)
    assert reader.hear() == "open"
    assert reader.says_nothing(0.2)
    yield reader
    reader.end()


def clear(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "brownout", "fault", "clear", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def test_the_maker_is_killed(maker: Maker, hung: Outsider) -> None:
    maker.process.kill()
    assert within(maker.gone, 10)
    assert hung.hear()


def test_the_maker_and_the_server_are_killed(maker: Maker, hung: Outsider) -> None:
    """Then the watchdog does it."""
    maker.server.signal(signal.SIGKILL)
    maker.process.kill()
    assert within(maker.gone, 10)
    assert hung.hear().split()[1:] == ["ConnectionAbortedError", "103"]


def test_the_maker_is_killed_and_its_server_stands_still(maker: Maker, hung: Outsider) -> None:
    maker.server.signal(signal.SIGSTOP)
    maker.process.kill()
    assert within(maker.gone, 15)
    assert hung.hear()


def test_a_hung_reader_is_freed_though_its_server_stands_still(
    maker: Maker, hung: Outsider
) -> None:
    """It is the kernel that aborts the connection, not the end of the server."""
    maker.server.signal(signal.SIGSTOP)
    found = next(each for each in mount.ours() if each.path == str(maker.folder))
    undo.take([Step("unmount", source=found.source)])
    assert hung.hear().split()[1:] == ["ConnectionAbortedError", "103"]
    assert maker.server.state() == "T"
    maker.server.signal(signal.SIGCONT)
    maker.end()


def test_the_server_is_killed(maker: Maker, hung: Outsider) -> None:
    """The folder is dead, and its maker does not know: `brownout fault clear` ends it."""
    maker.server.signal(signal.SIGKILL)
    assert hung.hear().split()[1:] == ["ConnectionAbortedError", "103"]
    with pytest.raises(OSError, match=r"not connected|abort"):
        os.listdir(maker.folder)
    told = clear("--all")
    assert told.returncode == 0, told
    assert maker.gone()
    assert os.listdir(maker.folder) == ["blocks"]


def test_one_fault_is_cleared_by_another_process(maker: Maker, hung: Outsider) -> None:
    fault = next(each for each in records() if each.kind == "hang")
    told = clear(fault.id)
    assert told.returncode == 0, told
    assert hung.hear().split()[1] == "4096"
    assert os.path.ismount(maker.folder)
    assert len((maker.folder / "blocks").read_bytes()) == 409_600


def test_the_server_leaves_when_it_is_told_to(maker: Maker, hung: Outsider) -> None:
    maker.server.signal(signal.SIGTERM)
    assert hung.hear().split()[1] == "4096"
    assert within(lambda: not os.path.ismount(maker.folder) and not maker.server.alive())


def test_a_disk_whose_server_was_killed_is_undone(folder: Path) -> None:
    with Disk(folder) as disk:
        made = disk.make(Hang())
        assert disk.shadow
        step = next(step for step in disk.shadow.steps if step.verb == "terminate")
        os.kill(step.details["pid"], signal.SIGKILL)
        made.undo()
        assert not made.active
    assert os.listdir(folder) == ["blocks"]


def test_files_that_are_open_and_hung_do_not_hold_it(folder: Path) -> None:
    readers: list[Outsider] = []
    with Disk(folder) as disk:
        stays = os.open(folder / "blocks", os.O_RDONLY)
        with disk.make(Hang()):
            readers.append(Outsider(READ, folder / "blocks", 0, 4096))
            assert readers[0].hear() == "open"
            assert readers[0].says_nothing(0.2)
            disk.stop()
    assert readers[0].hear().split()[1] == "4096"
    readers[0].end()
    assert not os.path.ismount(folder)
    with pytest.raises(OSError, match=r"not connected|abort"):
        os.pread(stays, 10, 0)
    os.close(stays)


def test_what_was_written_to_a_map_is_there_afterwards(folder: Path) -> None:
    import mmap

    with (
        Disk(folder) as disk,
        open(disk.path / "blocks", "r+b") as file,
        mmap.mmap(file.fileno(), 0) as mapped,
    ):
        mapped[0:4] = b"new!"
    assert (folder / "blocks").read_bytes()[:8] == b"new!0000"


def test_the_verb(folder: Path) -> None:
    with Disk(folder) as disk:
        assert disk.shadow
        step = disk.shadow.steps[0]
        assert step.verb == "unmount"
        for _ in range(2):
            undo.take([step])
            assert undo.gone([step])
        assert not os.path.ismount(folder)
    with pytest.raises(ValueError, match="left alone"):
        undo.take([Step("unmount", source="/dev/sda1")])


def test_no_server_keeps_the_device_for_its_children(folder: Path) -> None:
    with Disk(folder) as disk:
        assert disk.shadow
        step = next(step for step in disk.shadow.steps if step.verb == "terminate")
        pid = step.details["pid"]
        found = [
            fd
            for fd in os.listdir(f"/proc/{pid}/fd")
            if os.readlink(f"/proc/{pid}/fd/{fd}") == "/dev/fuse"
        ]
        assert len(found) == 1
        with open(f"/proc/{pid}/fdinfo/{found[0]}") as about:
            flags = int(next(line for line in about if line.startswith("flags")).split()[1], 8)
        assert flags & os.O_CLOEXEC
    assert mount.ours() == []
