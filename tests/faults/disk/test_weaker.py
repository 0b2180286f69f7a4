"""Without a mount: this process' own file calls suffer, and it says that this is weaker."""

from __future__ import annotations

import builtins
import io
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from brownout.errors import FaultRefused
from brownout.fault import Disk, Error, Full, Hang, Old, record
from brownout.fault.disk import place
from tests.faults.disk.conftest import BLOCK, Outsider
from tests.faults.disk.test_effects import block, write
from tests.seen import within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REAL = builtins.open, io.open, os.open, os.read, os.pread, os.write, os.fsync, os.close


@pytest.fixture
def weak(tmp_path: Path) -> Iterator[Disk]:
    (tmp_path / "blocks").write_bytes(b"".join(b"%04d" % n * (BLOCK // 4) for n in range(100)))
    with Disk(tmp_path, mechanism="calls") as disk:
        yield disk
    assert (
        *(builtins.open, io.open, os.open, os.read, os.pread, os.write, os.fsync, os.close),
    ) == REAL


def test_it_says_that_it_is_weaker(weak: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weak.weaker == "it was asked for"
    assert "weaker" in repr(weak)
    with weak.make(Error()):
        found = record.read(record.folder()).records
        assert {each.mechanism for each in found} == {"calls (weaker)"}
    monkeypatch.setattr(place, "unfit", lambda: "/dev/fuse: No such file")
    assert Disk(weak.path).weaker == "/dev/fuse: No such file"
    with pytest.raises(FaultRefused, match="no file system can be mounted here: /dev/fuse"):
        Disk(weak.path, mechanism="fuse")


def test_every_way_to_read_fails(weak: Disk) -> None:
    path = weak.path / "blocks"
    with open(path) as file, weak.make(Error(match="blocks")):
        ways: list[Callable[[], object]] = [
            path.read_bytes,
            path.read_text,
            file.readline,
            lambda: os.read(file.fileno(), 10),
            lambda: os.pread(file.fileno(), 10, 0),
        ]
        for read in ways:
            with pytest.raises(OSError, match=r"\[Errno 5\].*blocks"):
                read()


def test_files_are_as_they_were(weak: Disk) -> None:
    path = weak.path / "file"
    path.write_text("äöü\n2\n")
    assert path.read_text() == "äöü\n2\n"
    with open(path, "r+b") as file:
        assert file.readline() == "äöü\n".encode()
        file.write(b"3")
        file.seek(0, os.SEEK_END)
        file.write(b"4")
    with open(path, "a", buffering=1) as text:
        text.write("end\n")
        assert path.read_bytes() == "äöü\n3\n4end\n".encode()
    with open(path, "rb", buffering=0) as raw:
        assert raw.read(2) == "ä".encode()
        assert len(raw.read()) == 12


def test_it_hangs_and_is_freed(weak: Disk) -> None:
    with weak.make(Hang(seconds=0.2, bytes_to=BLOCK)) as made:
        began = time.monotonic()
        assert block(weak, 3) == "0003"
        assert block(weak, 0) == "EIO"
        assert time.monotonic() - began >= 0.2
        assert [each.what for each in made.log] == ["hung read blocks"]
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(block(weak, 0)))
    with weak.make(Hang()) as made:
        thread.start()
        assert within(lambda: len(made.log) == 1)
        assert seen == []
    thread.join(10)
    assert seen == ["0000"]


def test_it_is_full_old_and_repaired(weak: Disk) -> None:
    with weak.make(Full()):
        write(weak, 0, b"w")
        with pytest.raises(OSError, match=r"\[Errno 28\]"):
            write(weak, 100, b"w")
    with weak.make(Old()):
        write(weak, 7, b"new ")
        assert block(weak, 7) == "0007"
    assert block(weak, 7) == "new "
    with weak.make(Error(repaired_by_write=True)):
        assert block(weak, 2) == "EIO"
        write(weak, 2, b"w")
        assert block(weak, 2) == "wwww"


def test_others_do_not_suffer(weak: Disk) -> None:
    with weak.make(Error()):
        reader = Outsider("import sys; print(len(open(sys.argv[1]).read()))", weak.path / "blocks")
        assert reader.hear() == "409600"
        reader.end()
