"""What is usual is kept in the fleet file, and believed by a successor as far as it deserves."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from brownout import Guard, _guard
from brownout._core.kept import Kept
from brownout._core.usual import OLDEST_SECONDS
from brownout._drive.clock import clock
from brownout.fleet import usual
from brownout.fleet.local import read
from brownout.fleet.sharing import Sharing
from tests.core.test_usual import learned_once

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BROWNOUT_SERVICE", "shop")
    return str(tmp_path / "fleet.db")


def told() -> dict[str, Any]:
    known = learned_once()
    assert known is not None
    return known


def called(name: str = "quotes") -> Guard:
    guard = Guard(name)
    guard.call(lambda: None, operation="read")
    return guard


def predecessor(path: str) -> None:
    """A process that had learned what is usual, and ended."""
    guard = called()
    guard._target.hear("read", Kept(told(), clock.now()), clock.now())
    sharing = Sharing(path)
    sharing.write(ended=True)
    sharing.let_go()
    _guard._registry.clear()


def rows(path: str, sql: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql, values).fetchall()


def test_a_successor_begins_with_the_usual_of_its_predecessor(path: str) -> None:
    predecessor(path)
    early = called()  # before the file has been read
    successor = Sharing(path)
    successor.learn()
    assert early._target.operations["read"].usual.learned
    _guard._registry.clear()
    successor.learn()
    late = Guard("quotes")
    successor.meet(late._target)
    late.call(lambda: None, operation="read")
    assert late._target.operations["read"].usual.learned
    assert late.verdict.number("usual_age_seconds") < 60
    successor.let_go()


def test_sharing_reads_it_by_itself(path: str) -> None:
    predecessor(path)
    sharing = Sharing(path)
    guard = called()
    sharing.start()
    sharing.stop()
    assert guard._target.operations["read"].usual.learned
    assert sharing.meet not in _guard.on_target


def test_another_program_does_not_listen(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    predecessor(path)
    monkeypatch.setenv("BROWNOUT_SERVICE", "till")
    guard, other = called(), Sharing(path)
    other.learn()
    assert not guard._target.operations["read"].usual.learned
    other.let_go()


@pytest.mark.parametrize("age", [OLDEST_SECONDS + 60, -3600.0])
def test_what_is_too_old_or_from_the_future_is_not_believed_and_dropped(
    path: str, age: float
) -> None:
    predecessor(path)
    rows(path, "UPDATE usual SET written = ?", time.time() - age)
    guard, sharing = called(), Sharing(path)
    sharing.learn()
    assert not guard._target.operations["read"].usual.learned
    if age > 0:
        sharing.write()
        assert rows(path, "SELECT count(*) FROM usual") == [(0,)]
    sharing.let_go()


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{",
        "null",
        "x" * 10_000,
        "[" * 5000,
        json.dumps({"version": 99}),
        b"\xff\xfe",
        '{"version": NaN}',
    ],
)
def test_a_row_that_makes_no_sense_is_ignored_and_said(
    path: str, body: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    predecessor(path)
    rows(path, "UPDATE usual SET body = ?", body)
    guard, sharing = called(), Sharing(path)
    sharing.learn()
    assert not guard._target.operations["read"].usual.learned
    assert "1 rows of what is usual make no sense" in caplog.text
    assert read(path).malformed == 1
    sharing.let_go()


def test_what_was_relearned_is_void_for_a_successor(path: str) -> None:
    predecessor(path)
    guard, sharing = called(), Sharing(path)
    sharing.learn()
    guard.relearn()
    sharing.write(ended=True)
    assert rows(path, "SELECT count(*) FROM usual") == [(0,)]
    sharing.let_go()


def test_a_file_of_an_older_version_has_none_and_gets_its_table(path: str) -> None:
    predecessor(path)
    rows(path, "DROP TABLE usual")
    assert read(path).malformed == 0
    predecessor(path)
    assert rows(path, "SELECT count(*) FROM usual") == [(1,)]


def test_the_table_is_bounded(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    predecessor(path)
    body = rows(path, "SELECT body FROM usual")[0][0]
    for number in range(20):
        row = ("till", f"t{number}", "read", time.time() - 100 + number, body)
        rows(path, "INSERT INTO usual VALUES (?, ?, ?, ?, ?)", *row)
    monkeypatch.setattr(usual, "MOST_ROWS", 5)
    sharing = Sharing(path)
    sharing.write()
    kept = {target for (target,) in rows(path, "SELECT target FROM usual")}
    assert kept == {"quotes", "t16", "t17", "t18", "t19"}
    sharing.let_go()


def test_what_is_too_long_is_not_kept() -> None:
    assert usual.write(["x" * usual.MOST_BODY_BYTES]) is None
