import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from brownout._file import Trouble
from brownout.fleet import wire
from brownout.fleet.file import APPLICATION, File
from brownout.fleet.local import read
from brownout.fleet.wire import Told
from tests.fleet.sample import NOW, observer, told, verdict

BODY = wire.write([verdict()], lambda instant: instant)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "fleet.db")


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def write(
    file: File,
    changes: tuple[Told, ...] = (),
    *,
    now: float = NOW,
    name: str = "load",
    prune: bool = True,
) -> None:
    file.write(observer(name, written=now), [("quotes", BODY)], changes, prune=prune)


def writing(path: str, most_bytes: int = 2**26) -> closing[File]:
    return closing(File(path, most_bytes=most_bytes))


def modes(path: str) -> dict[str, int]:
    found = Path(path).parent.iterdir()
    return {one.name: stat.S_IMODE(one.stat().st_mode) for one in found}


@pytest.mark.parametrize("mask", [0, 0o777, 0o022])
def test_only_its_user_may_read_it_whatever_the_umask(path: str, mask: int, umask: None) -> None:
    os.umask(mask)
    with writing(path) as file:
        write(file)
        assert modes(path) == dict.fromkeys(["fleet.db", "fleet.db-wal", "fleet.db-shm"], 0o600)


def test_a_fleet_file_that_others_could_read_is_closed_to_them(path: str) -> None:
    with writing(path) as file:
        write(file)
    Path(path).chmod(0o644)
    with writing(path) as file:
        write(file)
    assert set(modes(path).values()) == {0o600}


@pytest.mark.parametrize("side", ["", "-wal", "-shm", "-journal"])
def test_a_symlink_is_refused_and_not_followed(path: str, side: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    Path(path + side).symlink_to(victim)
    with writing(path) as file, pytest.raises(Trouble, match="is a symlink; remove it"):
        write(file)
    assert victim.read_bytes() == b""
    assert not victim.with_name("victim-wal").exists()


def test_what_is_no_regular_file_is_refused(path: str) -> None:
    os.mkfifo(path)
    with writing(path) as file, pytest.raises(Trouble, match="not a regular file"):
        write(file)


def test_somebody_elses_file_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with writing(path) as file:
        write(file)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with (
        writing(path) as file,
        pytest.raises(Trouble, match=r"belongs to user \d+, not to this one"),
    ):
        write(file)


def test_a_text_and_another_database_are_left_alone(path: str) -> None:
    Path(path).write_text("my diary\n")
    with writing(path) as file, pytest.raises(Trouble, match="not a fleet file"):
        write(file)
    assert Path(path).read_text() == "my diary\n"
    Path(path).unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (x)")
    before = Path(path).read_bytes()
    with writing(path) as file, pytest.raises(Trouble, match="not a fleet file"):
        write(file)
    assert Path(path).read_bytes() == before


def test_another_schema_is_left_alone(path: str) -> None:
    with writing(path) as file:
        write(file)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 9")
    with writing(path) as file, pytest.raises(Trouble, match=r"schema 9, this brownout writes 1"):
        write(file)


def spoil(path: str) -> bytes:
    """Make a fleet file corrupt: good header, nonsense after it."""
    with writing(path) as file:
        write(file)
    content = bytearray(Path(path).read_bytes())
    content[100:] = b"\xa5" * (len(content) - 100)
    Path(path).write_bytes(content)
    return bytes(content)


def test_a_corrupt_file_is_told_and_kept(path: str) -> None:
    content = spoil(path)
    with (
        writing(path) as file,
        pytest.raises(Trouble, match=r"corrupt; move it away \(mv .*\.bad\)"),
    ):
        write(file)
    assert Path(path).read_bytes()[100:] == content[100:]


def test_after_it_was_moved_away_the_same_writer_makes_a_new_one(path: str) -> None:
    spoil(path)
    with writing(path) as file:
        with pytest.raises(Trouble, match="corrupt"):
            write(file)
        Path(path).rename(path + ".bad")
        write(file)
        assert read(path, now=NOW).rows[0].target == "quotes"


def test_a_file_that_was_deleted_is_made_anew(path: str) -> None:
    with writing(path) as file:
        write(file)
        for side in ("", "-wal", "-shm"):
            Path(path + side).unlink()
        write(file)
        assert read(path, now=NOW).observers == (observer(),)


def test_a_folder_that_is_missing_or_read_only_is_told() -> None:
    # Not in tmp_path: only its user may enter that, and root may write anywhere.
    with tempfile.TemporaryDirectory() as folder:
        with (
            writing(f"{folder}/missing/fleet.db") as file,
            pytest.raises(Trouble, match="No such file"),
        ):
            write(file)
        Path(folder).chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            path = f"{folder}/fleet.db"
            with (
                writing(path) as file,
                pytest.raises(Trouble, match="Permission denied; make its folder"),
            ):
                write(file)
        finally:
            if root:
                os.seteuid(0)
            Path(folder).chmod(0o700)


def test_a_locked_file_is_trouble_that_passes(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brownout.fleet.file.BUSY_SECONDS", 0.01)
    with writing(path) as file:
        write(file)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(Trouble, match="locked by another process") as caught:
                write(file)
            assert caught.value.passing
        write(file, now=NOW + 1)
    assert read(path, now=NOW).observers[0].written == NOW + 1


def test_a_write_is_all_or_nothing(path: str) -> None:
    with writing(path) as file:
        write(file)
        with pytest.raises(ZeroDivisionError):
            file.write(
                observer("other"), ((str(n), str(1 // n)) for n in (1, 0)), (told(),), prune=False
            )
        found = read(path, after=0, now=NOW)
    assert [one.name for one in found.observers] == ["load"]
    assert found.changes == ()


def test_old_observers_and_changes_are_forgotten(path: str) -> None:
    with writing(path) as file:
        write(file, (told(), told(at=NOW + 80_000)))
        write(file, now=NOW + 599, name="other")
        assert len(read(path, now=NOW).observers) == 2
        write(file, now=NOW + 86_401, name="third")
        found = read(path, after=0, now=NOW + 86_401)
    assert [one.name for one in found.observers] == ["third"]
    assert [change.at for change in found.changes] == [NOW + 80_000]
    assert len(found.rows[0].fresh) == 1


def test_what_comes_from_the_future_is_forgotten_too(path: str) -> None:
    with writing(path) as file:
        write(file, (told(at=NOW + 90_000),), now=NOW + 90_000)
        write(file, name="other")
        found = read(path, after=0, now=NOW)
    assert [one.name for one in found.observers] == ["other"]
    assert found.changes == ()


def test_a_full_file_loses_its_oldest_changes_and_stays_small(path: str) -> None:
    most = 40 * 4096
    with writing(path, most) as file:
        for n in range(60):
            write(file, tuple(told(at=NOW + n) for _ in range(40)))
        last = read(path, after=0, now=NOW).changes
    assert Path(path).stat().st_size <= most
    assert last[-1].at == NOW + 59
    assert last[0].at > NOW


def test_a_file_too_small_for_the_evidence_is_told_as_full(path: str) -> None:
    big = [(f"target-{n}", BODY + " " * 3000) for n in range(100)]
    with writing(path, 16 * 4096) as file:
        with pytest.raises(Trouble, match=r"full \(it may have 0.0625 MiB\)"):
            file.write(observer(), big, (), prune=True)
        write(file)  # less fits again
        assert [row.target for row in read(path, now=NOW).rows] == ["quotes"]


def test_the_header_says_whose_file_it_is(path: str) -> None:
    with writing(path) as file:
        write(file)
    assert int.from_bytes(Path(path).read_bytes()[68:72], "big") == APPLICATION
