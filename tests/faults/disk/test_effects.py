"""What an outsider, a process of its own, sees of each fault of a disk."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import statistics
import time
from math import inf
from typing import TYPE_CHECKING

import pytest

from brownout.errors import ConfigurationError, FaultRefused
from brownout.fault import Amount, Cut, Disk, Error, Full, Hang, Latency, Old, Schedule
from tests.faults.disk.conftest import BLOCK, READ, Outsider
from tests.seen import within

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., Outsider]


def block(disk: Disk, number: int) -> str:
    """What is read of a block: its number, or the error's name."""
    fd = os.open(disk.path / "blocks", os.O_RDONLY)
    try:
        return os.pread(fd, BLOCK, number * BLOCK)[:4].decode()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    finally:
        os.close(fd)


def write(disk: Disk, number: int, data: bytes, name: str = "blocks") -> None:
    fd = os.open(disk.path / name, os.O_WRONLY | os.O_CREAT)
    try:
        os.pwrite(fd, data * BLOCK, number * BLOCK)
    finally:
        os.close(fd)


# ------------------------------------------------------------------------------------ it hangs


def test_a_read_hangs_so_long_and_fails(disk: Disk, outsider: Start) -> None:
    with disk.make(Hang(seconds=0.5, bytes_from=8 * BLOCK, bytes_to=9 * BLOCK)) as made:
        bad = outsider(READ, disk.path / "blocks", 8 * BLOCK, BLOCK)
        assert bad.hear() == "open"
        seconds, said = bad.hear().split(maxsplit=1)
        assert said == "OSError 5"
        assert 0.5 <= float(seconds) < 5
        told = [(each.what, each.amount, each.offset) for each in made.log]
        assert told == [("hung read blocks", 0.5, 8 * BLOCK)]


def test_all_else_goes_on_while_a_read_hangs(disk: Disk, outsider: Start) -> None:
    with disk.make(Hang(bytes_from=8 * BLOCK, bytes_to=9 * BLOCK)):
        bad = outsider(READ, disk.path / "blocks", 8 * BLOCK, BLOCK)
        assert bad.hear() == "open"
        assert bad.says_nothing(0.1)
        assert [block(disk, number) for number in (7, 9)] == ["0007", "0009"]
        write(disk, 8, b"w")
        write(disk, 20, b"w")
        with open(disk.path / "blocks", "r+b") as file:
            os.fsync(file.fileno())
        assert os.listdir(disk.path) == ["blocks"]
        assert bad.says_nothing(0)
    assert block(disk, 8) == "wwww"


def test_a_mapped_page_that_fails_is_a_bus_error(disk: Disk, outsider: Start) -> None:
    assert disk.serving
    if not disk.serving.mmap:
        pytest.skip("this kernel maps no file of such a mount (it takes Linux 6.6)")
    code = """
import mmap, sys
file = open(sys.argv[1], "rb")
mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print(mapped[7 << 20], flush=True)
mapped[0]
"""
    (disk.path / "large").write_bytes(b"x" * (8 << 20))
    with disk.make(Hang(seconds=0.2, bytes_to=BLOCK)):
        mapper = outsider(code, disk.path / "large")
        assert mapper.hear() == "120"  # far away: the kernel reads what is near with it
        assert mapper.process.wait(20) == -signal.SIGBUS


def test_what_hangs_is_done_rightly_when_it_is_undone(disk: Disk, outsider: Start) -> None:
    with disk.make(Hang()):
        bad = outsider(READ, disk.path / "blocks", 0, BLOCK)
        assert bad.hear() == "open"
        assert bad.says_nothing(0.3)
    assert bad.hear().split()[1] == str(BLOCK)


def test_300_hung_reads_delay_no_good_one(disk: Disk, outsider: Start) -> None:
    code = """
import os, sys, threading
fd = os.open(sys.argv[1], os.O_RDONLY)
def read():
    try:
        os.pread(fd, 4096, 0)
    except OSError:
        pass
threading.stack_size(65536)
for _ in range(300):
    threading.Thread(target=read, daemon=True).start()
print("started", flush=True)
sys.stdin.read()
os._exit(0)
"""
    assert disk.serving
    with disk.make(Hang(bytes_to=BLOCK)):
        outsider(code, disk.path / "blocks")
        serving = disk.serving
        assert within(lambda: serving.looked()["waiting"] == 300)
        spans: list[float] = []
        for number in range(1, 100):
            began = time.monotonic()
            assert block(disk, number) == f"{number:04}"
            spans.append(time.monotonic() - began)
        assert statistics.median(spans) < 0.05
        assert serving.looked()["waiting"] == 300


SIGNALLED = """
import os, signal, sys, time
def leave(*_): raise TimeoutError
signal.signal(signal.SIGALRM, leave)
fd = os.open(sys.argv[1], os.O_RDONLY)
print("open", flush=True)
signal.setitimer(signal.ITIMER_REAL, 0.1)
began = time.monotonic()
said = ""
try:
    try:
        os.pread(fd, 4096, 0)
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise
    for _ in range(1000):
        pass  # a signal that came while nothing could be done
except TimeoutError:
    said = "TimeoutError"
print(said, "early" if time.monotonic() - began < float(sys.argv[2]) else "late", flush=True)
"""


@pytest.mark.parametrize(("killable", "seconds"), [(True, 20), (False, 0.5)])
def test_a_signal_ends_what_is_killable(
    disk: Disk, outsider: Start, killable: bool, seconds: float
) -> None:
    with disk.make(Hang(seconds=seconds, killable=killable)):
        asleep = outsider(SIGNALLED, disk.path / "blocks", seconds)
        assert asleep.hear() == "open"
        assert asleep.hear() == ("TimeoutError early" if killable else "TimeoutError late")


@pytest.mark.parametrize("killable", [True, False])
def test_sigkill_waits_for_what_is_not_killable(
    disk: Disk, outsider: Start, killable: bool
) -> None:
    assert disk.serving
    with disk.make(Hang(killable=killable)):
        bad = outsider(READ, disk.path / "blocks", 0, BLOCK)
        serving = disk.serving
        assert within(lambda: serving.looked()["waiting"] == 1)
        bad.process.send_signal(signal.SIGKILL)
        if killable:
            assert bad.process.wait(10) == -signal.SIGKILL
        else:
            time.sleep(0.3)
            assert bad.process.poll() is None
    assert bad.process.wait(10) == -signal.SIGKILL


def test_writes_and_fsyncs_hang_too(disk: Disk) -> None:
    with (
        disk.make(Hang(seconds=0.2, operations=("fsync",), errno="ENODEV")) as made,
        open(disk.path / "blocks", "r+b", buffering=0) as file,
    ):
        assert file.write(b"in time") == 7
        with pytest.raises(OSError, match="No such device"):
            os.fsync(file.fileno())
        with disk.make(Hang(seconds=0.2, operations=("write",))), pytest.raises(OSError, match="5"):
            file.write(b"late")
        assert [each.what for each in made.log] == ["hung fsync blocks"]


# --------------------------------------------------------------------------------- whom it hits


def test_bad_blocks_stay_bad_for_the_same_seed(folder: object, disk: Disk) -> None:
    def bad() -> list[int]:
        return [number for number in range(100) if block(disk, number) == "EIO"]

    with disk.make(Error(share=0.3)):
        first = bad()
        assert 10 < len(first) < 55
        assert bad() == first
    with disk.make(Error(share=0.3)):
        assert bad() == first
    with disk.make(Error(share=0.3), name="another"):
        assert bad() != first
    with disk.make(Error(nth=10)):
        assert bad() == list(range(9, 100, 10))
    with disk.make(Error(share=0.3, per="request")):
        assert bad() != bad()
    with disk.make(Error(first=3, per="request")):
        assert bad() == [0, 1, 2]
    assert bad() == []


def test_a_write_repairs_what_is_bad(disk: Disk) -> None:
    with disk.make(Error(bytes_from=BLOCK, bytes_to=4 * BLOCK, repaired_by_write=True)):
        assert [block(disk, n) for n in range(5)] == ["0000", "EIO", "EIO", "EIO", "0004"]
        write(disk, 2, b"w")
        assert [block(disk, n) for n in range(5)] == ["0000", "EIO", "wwww", "EIO", "0004"]
        fd = os.open(disk.path / "blocks", os.O_RDONLY)
        try:
            assert len(os.pread(fd, BLOCK, 2 * BLOCK)) == BLOCK
            with pytest.raises(OSError, match="5"):
                os.pread(fd, 2 * BLOCK, 2 * BLOCK)
        finally:
            os.close(fd)
    with disk.make(Error(bytes_from=0, bytes_to=BLOCK)):
        write(disk, 0, b"w")
        assert block(disk, 0) == "EIO"


def test_files_are_chosen_by_their_path_now(disk: Disk) -> None:
    (disk.path / "logs").mkdir()
    write(disk, 0, b"x", "logs/a")
    with disk.make(Error(match="logs/")):
        assert block(disk, 0) == "0000"
        with pytest.raises(OSError, match="5"):
            (disk.path / "logs" / "a").read_bytes()
        os.rename(disk.path / "logs", disk.path / "kept")
        assert (disk.path / "kept" / "a").read_bytes()[:1] == b"x"


def test_a_schedule_flaps(disk: Disk) -> None:
    with disk.make(Error(schedule=Schedule(start=0.2, end=0.6))):
        assert block(disk, 0) == "0000"
        assert within(lambda: block(disk, 0) == "EIO")
        assert within(lambda: block(disk, 0) == "0000")


# ---------------------------------------------------------------------- it is slow, full and old


def test_it_is_slow(disk: Disk) -> None:
    with disk.make(Latency(seconds=Amount(0.2, 0.05))), disk.make(Latency(seconds=0.1), name="2"):
        began = time.monotonic()
        assert block(disk, 3) == "0003"
        assert 0.25 <= time.monotonic() - began < 1.2


def test_it_is_full(disk: Disk) -> None:
    with disk.make(Full()):
        write(disk, 0, b"w")
        assert block(disk, 0) == "wwww"
        with pytest.raises(OSError, match=r"\[Errno 28\]"):
            write(disk, 100, b"w")
        with pytest.raises(OSError, match=r"\[Errno 28\]"):
            write(disk, 0, b"w", "new")
        with open(disk.path / "new", "wb") as file, pytest.raises(OSError, match=r"\[Errno 28\]"):
            os.posix_fallocate(file.fileno(), 0, BLOCK)
        assert (disk.path / "new").stat().st_size == 0
    write(disk, 100, b"w")
    assert block(disk, 100) == "wwww"


def test_reads_give_what_was_there(disk: Disk) -> None:
    path = disk.path / "blocks"
    before = path.read_bytes()
    with disk.make(Old()):
        for number in (3, 50, 99, 100, 110):
            write(disk, number, b"new ")
        with open(path, "r+b") as file:
            file.seek(5 * BLOCK + 100)
            file.write(b"partly")
            file.truncate(60 * BLOCK + 7)
        fd = os.open(path, os.O_RDONLY)
        try:
            for offset, size in ((0, 409_600), (5 * BLOCK + 90, 50), (3 * BLOCK - 5, 2 * BLOCK)):
                got = os.pread(fd, size, offset)
                assert got == before[offset : offset + size][: len(got)]
                assert got
        finally:
            os.close(fd)
    now = path.read_bytes()
    assert len(now) == 60 * BLOCK + 7
    assert now[5 * BLOCK + 100 :][:6] == b"partly"


# ---------------------------------------------------------------------------------- what is refused


def test_what_can_not_be_made_is_told(disk: Disk, folder: object) -> None:
    with pytest.raises(ConfigurationError, match="a disk makes Error, Full, Hang, Latency, Old"):
        disk.make(Cut())
    with pytest.raises(ConfigurationError, match="client, stream: a disk has none"):
        disk.make(Hang(client="10.0.0.1", stream="upstream"))
    for wrong in (
        lambda: Hang(errno="EOOPS"),
        lambda: Hang(operations=("seek",)),
        lambda: Error(bytes_from=2, bytes_to=2),
        lambda: Full(operations=("read",)),
        lambda: Old(repaired_by_write=True),
    ):
        with pytest.raises(ConfigurationError):
            wrong()
    with disk.make(Hang(seconds=inf)), pytest.raises(FaultRefused, match="is made there already"):
        disk.make(Hang(), name="hang")
    with pytest.raises(FaultRefused, match="shadowed already"):
        Disk(disk.path).start()
    with pytest.raises(FaultRefused, match="is there"):
        Disk("/")
    with pytest.raises(ConfigurationError, match="no folder"):
        Disk(disk.path / "blocks")
    with pytest.raises(FaultRefused, match="is not shadowed"):
        Disk().make(Hang())


# --------------------------------------------------------------------------------------- SQLite


def filled(disk: Disk, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(disk.path / "db", isolation_level=None, timeout=5)
    assert db.execute(f"pragma journal_mode={mode}").fetchone() == (mode,)
    db.execute("create table t (id integer primary key, text)")
    db.execute("begin")
    db.executemany("insert into t values (?, ?)", [(n, f"{n:05}" * 160) for n in range(2000)])
    db.execute("commit")
    db.execute("pragma wal_checkpoint(truncate)")
    db.close()
    return sqlite3.connect(disk.path / "db", isolation_level=None, timeout=5)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite_on_a_dying_disk(disk: Disk, mode: str) -> None:
    assert disk.serving
    if mode == "wal" and not disk.serving.mmap:
        pytest.skip("this kernel maps no file of such a mount (it takes Linux 6.6)")
    db = filled(disk, mode)
    db.execute("pragma cache_size=0")
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    fault = Hang(seconds=0.2, match="db$", bytes_from=1_000_000, bytes_to=1_012_288)
    with disk.make(fault):
        errors: list[str] = []
        for n in range(0, 2000, 5):
            try:
                assert db.execute("select text from t where id=?", (n,)).fetchone()
            except sqlite3.Error as error:
                errors.append(f"{type(error).__name__}: {error}")
        assert 1 <= len(errors) <= 20
        assert set(errors) <= {
            "OperationalError: disk I/O error",
            "DatabaseError: database disk image is malformed",
        }
        db.execute("insert into t values (5000, 'a write succeeds')")
    assert db.execute("select text from t where id=5000").fetchone() == ("a write succeeds",)
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    db.close()


def test_sqlite_on_a_full_disk(disk: Disk) -> None:
    db = filled(disk, "delete")
    with disk.make(Full()), pytest.raises(sqlite3.OperationalError, match="full"):
        db.execute("insert into t values (5000, 'no room')")
    db.execute("insert into t values (5000, 'room')")
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    db.close()
