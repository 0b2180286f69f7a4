"""A copy of a SQLite database: refreshed, held back, and its age against the truth."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from brownout.errors import ConfigurationError
from brownout.fault import DelayReplay, FreezeReceiver, PauseReplay, SqliteCopy
from tests.seen import within

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from brownout.fault import Fault

READ = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT v FROM t').fetchone()[0])"


@pytest.fixture(params=["delete", "wal"])
def original(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "shop.db", isolation_level=None)) as database:
        database.execute(f"PRAGMA journal_mode={request.param}")
        database.execute("CREATE TABLE t (v int)")
        database.execute("INSERT INTO t VALUES (0)")
        yield database


@pytest.fixture
def copy(original: sqlite3.Connection, tmp_path: Path) -> Iterator[SqliteCopy]:
    with SqliteCopy(tmp_path / "shop.db", refresh_seconds=0.02) as copy:
        yield copy


def value(copy: SqliteCopy) -> int:
    """What a process of its own reads."""
    command = [sys.executable, "-S", "-c", READ, str(copy.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return int(done.stdout)


def test_it_is_refreshed(original: sqlite3.Connection, copy: SqliteCopy) -> None:
    assert value(copy) == 0
    for new in (1, 2):
        original.execute(f"UPDATE t SET v = {new}")
        copy.fence(seconds=10)
        assert value(copy) == new
    assert copy.seconds_behind() == 0
    assert copy.failed is None


@pytest.mark.parametrize("fault", [PauseReplay(), DelayReplay(seconds=30)], ids=lambda f: f.kind)
def test_it_holds_what_it_held(
    original: sqlite3.Connection, copy: SqliteCopy, fault: Fault
) -> None:
    with copy.make(fault):
        earliest = time.monotonic()
        original.execute("UPDATE t SET v = 1")
        copy.position()
        latest = time.monotonic()
        time.sleep(0.3)
        before = time.monotonic()
        behind = copy.seconds_behind()
        assert before - latest <= behind <= time.monotonic() - earliest
        assert value(copy) == 0
        with pytest.raises(TimeoutError, match="behind"):
            copy.fence(seconds=0.05)
    copy.fence(seconds=10)
    assert value(copy) == 1
    assert copy.seconds_behind() == 0


def test_it_is_late_by_what_was_asked(original: sqlite3.Connection, copy: SqliteCopy) -> None:
    with copy.make(DelayReplay(seconds=0.3)):
        earliest = time.monotonic()
        original.execute("UPDATE t SET v = 1")
        copy.fence(seconds=10)
        assert time.monotonic() - earliest >= 0.29
        assert value(copy) == 1


def test_the_undo_waits_for_no_schedule(original: sqlite3.Connection, tmp_path: Path) -> None:
    with SqliteCopy(tmp_path / "shop.db", refresh_seconds=3600) as slow:
        with slow.make(PauseReplay()):
            original.execute("UPDATE t SET v = 1")
        assert value(slow) == 1


def test_it_ends_with_its_file(original: sqlite3.Connection, tmp_path: Path) -> None:
    with SqliteCopy(tmp_path / "shop.db") as copy:
        made = copy.make(PauseReplay())
        folder = copy.path.parent
        assert folder.exists()
    assert not folder.exists()
    assert not made.active
    assert within(lambda: not copy._thread.is_alive())


def test_what_is_refused(copy: SqliteCopy, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="those are PauseReplay and DelayReplay"):
        copy.make(FreezeReceiver())
    with pytest.raises(ConfigurationError, match="is no file"):
        SqliteCopy(tmp_path / "none.db")
    with pytest.raises(ConfigurationError, match="refresh_seconds=0"):
        SqliteCopy(tmp_path / "shop.db", refresh_seconds=0)
