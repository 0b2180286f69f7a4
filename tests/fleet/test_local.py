import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from brownout import BrownoutError, ConfigurationError, State
from brownout.fleet import local, wire
from brownout.fleet.file import File
from brownout.fleet.fork import IN_USE
from brownout.fleet.local import changes, read
from tests.fleet.sample import NOW, observer, only, told, verdict


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "fleet.db")


@pytest.fixture
def file(path: str) -> Iterator[File]:
    with closing(File(path)) as file:
        yield file


def write(
    file: File, *changed: wire.Told, state: State = State.HEALTHY, name: str = "load"
) -> None:
    body = wire.write([verdict(state)], lambda instant: instant)
    file.write(observer(name), [("quotes", body)], changed, prune=False)


def raw(path: str, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement, values)


def test_two_observers_stand_side_by_side(path: str, file: File) -> None:
    write(file)
    write(file, state=State.DEGRADED, name="shop")
    found = read(path, now=NOW)
    assert [one.name for one in found.observers] == ["load", "shop"]
    row = only(found.rows)
    assert (row.state, row.seen_by, row.observers) == (State.DEGRADED, 1, 2)
    assert row.observer == observer("shop")
    assert found.malformed == 0


def test_later_they_are_stale(path: str, file: File) -> None:
    write(file, state=State.CRASHED)
    assert only(read(path, now=NOW + 5).rows).state is State.CRASHED
    assert only(read(path, now=NOW + 5.1).rows).state is None


def test_changes_are_told_after_an_id(path: str, file: File) -> None:
    write(file, told("a"), told("b", after=None))
    assert read(path).changes == ()
    found, last = changes(path, 0)
    assert [(one.target, one.before, one.after) for one in found] == [
        ("a", State.HEALTHY, State.DEGRADED),
        ("b", State.HEALTHY, None),
    ]
    assert (found[0].at, found[0].monotonic, found[0].contradiction) == (NOW, 55.5, True)
    assert (found[0].observer, found[0].name) == ("host/load", "load")
    assert changes(path, last) == ((), last)
    assert changes(path) == ((), last)
    write(file, told("c"))
    assert [one.target for one in changes(path, last)[0]] == ["c"]
    assert [one.target for one in read(path, after=last).changes] == ["c"]


def test_many_changes_come_in_parts(path: str, file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "MOST_CHANGES", 3)
    write(file, *(told(str(n)) for n in range(5)))
    first, last = changes(path, 0)
    rest, _ = changes(path, last)
    assert [one.target for one in first + rest] == ["0", "1", "2", "3", "4"]


def test_in_a_file_made_anew_changes_begin_at_the_first(path: str, file: File) -> None:
    write(file, told())
    assert len(changes(path, 1000)[0]) == 1


def test_a_reader_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"no fleet file at .*: start a process that shares"
    ):
        read(tmp_path / "fleet.db")
    with pytest.raises(ConfigurationError, match="no fleet file at"):
        read(tmp_path / "no" / "folder" / "fleet.db")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_fleet_file_is_told_and_left_alone(path: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a regular file"):
        read(tmp_path)
    Path(path).touch()
    with pytest.raises(ConfigurationError, match="no fleet file yet: it is empty"):
        read(path)
    Path(path).write_text("my diary\n" * 100)
    with pytest.raises(ConfigurationError, match="not even a database"):
        read(path)
    Path(path).unlink()
    raw(path, "CREATE TABLE mine (x)")
    with pytest.raises(ConfigurationError, match="a database of something else"):
        read(path)
    Path(path + ".link").symlink_to(path)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        read(path + ".link")


def test_another_schema_is_told(path: str, file: File) -> None:
    write(file)
    raw(path, "PRAGMA user_version = 2")
    with pytest.raises(
        ConfigurationError, match=r"another version of brownout \(schema 2, this one reads 1\)"
    ):
        read(path)


def test_a_corrupt_file_is_an_error_and_no_crash(path: str, file: File) -> None:
    write(file)
    file.close()
    content = bytearray(Path(path).read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    Path(path).write_bytes(content)
    with pytest.raises(BrownoutError, match="if it is corrupt, move it away"):
        read(path)


def test_a_writer_with_the_lock_does_not_hold_up_a_reader(path: str, file: File) -> None:
    write(file)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert len(read(path).observers) == 1


def test_a_file_locked_for_good_is_an_error_in_the_end(
    path: str, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "WAIT_SECONDS", 0.01)
    write(file)
    file.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("DELETE FROM changes")
        with pytest.raises(BrownoutError, match="locked by another process"):
            read(path)


def test_a_read_only_folder_without_writers_can_be_read(
    path: str, file: File, tmp_path: Path
) -> None:
    write(file)
    file.close()
    tmp_path.chmod(0o500)
    real = os.access
    try:
        with pytest.MonkeyPatch.context() as patch:  # root may write anywhere
            patch.setattr(os, "access", lambda name, mode: mode != os.W_OK and real(name, mode))
            assert len(read(path).observers) == 1
    finally:
        tmp_path.chmod(0o700)
    assert [one.name for one in tmp_path.iterdir()] == ["fleet.db"]


EVIDENCE = "INSERT OR REPLACE INTO evidence VALUES (?, ?, ?, ?)"


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        (EVIDENCE, ("host/load", "evil", NOW, "{")),
        (EVIDENCE, ("host/load", "evil", NOW, b"\xff\x00")),
        (EVIDENCE, ("host/load", "evil", NOW, 7)),
        (EVIDENCE, ("host/load", "evil", NOW, '{"operations": [' + "[" * 60_000)),
        (EVIDENCE, ("host/load", "evil", NOW, " " * 2_000_000 + "{}")),
        (EVIDENCE, ("host/load", "e" * 1000, NOW, "{}")),
        (EVIDENCE, ("nobody", "evil", NOW, "{}")),
        ("INSERT INTO observers VALUES ('x', 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x')", ()),
        ("INSERT INTO observers VALUES (x'ff', 'x', 'x', 'x', 1, 1, 1, 1, 1, 1)", ()),
        ("INSERT INTO changes VALUES (9, 'x', 'x', 'x', 'x', 1, NULL, NULL, 'x', 1)", ()),
        ("INSERT INTO changes VALUES (9, 'x', 'x', 'x', 1, 1, 'GREEN', NULL, 'x', 1)", ()),
        ("INSERT INTO changes VALUES (9, 'x', 'x', x'00', 1, 1, NULL, NULL, 'x', 1)", ()),
        ("INSERT INTO changes VALUES (9, 'x', 'x', 'x', 9e999, 1, NULL, NULL, 'x', 1)", ()),
    ],
)
def test_a_malformed_row_is_skipped_and_counted(
    path: str, file: File, statement: str, values: tuple[object, ...]
) -> None:
    write(file, told())
    raw(path, statement, *values)
    found = read(path, after=0, now=NOW)
    assert found.malformed == 1
    assert [row.target for row in found.rows] == ["quotes"]
    assert [one.name for one in found.observers] == ["load"]
    assert len(found.changes) == 1


def test_text_that_is_no_utf8_is_read_with_marks(path: str, file: File) -> None:
    write(file)
    raw(path, "UPDATE observers SET name = CAST(x'ff41' AS TEXT)")
    assert read(path, now=NOW).observers[0].name == "\N{REPLACEMENT CHARACTER}A"


def test_hostile_text_is_cleaned_before_anybody_sees_it(path: str, file: File) -> None:
    write(file, told())
    raw(path, "UPDATE observers SET name = ?, zone = ?", "\x1b[2Jroot\n", "\u202ezone" * 50)
    raw(path, "UPDATE changes SET because = ?, target = ?", "\x1b]0;x\x07all\nwell", "a\rb")
    found = read(path, after=0, now=NOW)
    assert found.observers[0].name == "root "
    assert len(found.observers[0].zone) <= 100
    assert (found.changes[0].because, found.changes[0].target) == ("all well", "a b")
    assert found.malformed == 0


def test_a_file_that_takes_for_ever_is_given_up(
    path: str, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "WAIT_SECONDS", 0.05)
    write(file)
    raw(path, "DROP TABLE observers")
    raw(
        path,
        "CREATE VIEW observers AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n)"
        " SELECT id, 1 AS written FROM n",
    )
    with pytest.raises(BrownoutError, match="could not be read within"):
        read(path)


def test_a_write_of_this_process_that_hangs_does_not_hang_the_reader(
    path: str, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "WAIT_SECONDS", 0.01)
    write(file)
    with IN_USE, pytest.raises(BrownoutError, match="in use by this process, whose write hangs"):
        read(path)
    assert len(read(path).observers) == 1


def test_a_relative_path_is_read(path: str, file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file)
    monkeypatch.chdir(Path(path).parent)
    assert len(read("fleet.db").observers) == 1
    strange = Path(path).with_name("a?b#c%20d.db")
    file.close()
    Path(path).rename(strange)
    assert len(read(strange).observers) == 1
