"""The journal's file: what is written in it, who holds it, and what trouble with it does to calls."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from brownout import ConfigurationError, Phase
from brownout._core.journal import Entry
from brownout.errors import BrownoutError
from brownout.ledger import journal as journals
from brownout.ledger.holder import gone, me
from brownout.ledger.journal import Journal, opened, path_of
from brownout.ledger.journal_file import Begin, JournalFile, Lease, Settle, Unknown
from tests.seen import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY, OTHER = "019ebd66-1ffd-7e2a-8a59-000000000001", "019ebd66-1ffd-7e2a-8a59-000000000002"


def entry(
    key: str = KEY, call: int = 1, *, target: str = "pay", phase: Phase = Phase.SENDING
) -> Entry:
    return Entry(key, target, "charge", phase, time.time(), call)


@pytest.fixture
def opens(tmp_path: Path) -> Iterator[Callable[[], Journal]]:
    made: list[Journal] = []

    def make() -> Journal:
        """Another journal on the same file: as another process has it, but for who holds what."""
        made.append(Journal(str(tmp_path / "unknown.db")))
        return made[-1]

    yield make
    for journal in made:
        journal.end()


def keys(journal: Journal, target: str | None = None) -> list[str]:
    return [one.key for one in journal.unsettled(target)]


def test_a_call_stands_in_it_until_it_is_certain(opens: Callable[[], Journal]) -> None:
    journal = opens()
    assert journal.begin(entry(), 10.0).result(5)
    (one,) = journal.unsettled()
    assert (one.key, one.target, one.operation, one.phase) == (KEY, "pay", "charge", Phase.SENDING)
    assert one.held
    journal.unknown(entry(phase=Phase.SENT))
    (one,) = journal.unsettled()
    assert (one.phase, one.held) == (Phase.SENT, False)
    journal.settle(KEY, "pay")
    assert journal.unsettled() == []


def test_another_journal_on_the_file_sees_it(opens: Callable[[], Journal]) -> None:
    assert opens().begin(entry(), 10.0).result(5)
    assert keys(opens()) == [KEY]
    assert keys(opens(), "other") == []


def test_a_call_that_failed_strikes_out_itself_alone(opens: Callable[[], Journal]) -> None:
    """An earlier call with that key is still unknown: that this one was refused says nothing of it."""
    journal = opens()
    journal.begin(entry(call=1), 10.0)
    journal.unknown(entry(call=1, phase=Phase.SENT))
    journal.begin(entry(call=2), 10.0)
    journal.settle(KEY, "pay", 2)
    (one,) = journal.unsettled()
    assert (one.phase, one.held) == (Phase.SENT, False)
    journal.begin(entry(call=3), 10.0)
    journal.settle(KEY, "pay")  # done is done for all of them
    assert journal.unsettled() == []


def test_the_file_is_for_this_user_only(opens: Callable[[], Journal], tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert opens().begin(entry(), 10.0).result(5)
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert (tmp_path / "unknown.db-wal").exists()


def test_the_file_holds_no_bodies(opens: Callable[[], Journal], tmp_path: Path) -> None:
    assert opens().begin(entry(), 10.0).result(5)
    with sqlite3.connect(tmp_path / "unknown.db") as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(unknowns)")]
    connection.close()
    assert columns == [
        "target", "key", "call", "operation", "phase", "since", "holder", "held_until",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------- leases


def test_one_process_at_a_time_settles_a_key(tmp_path: Path) -> None:
    file = JournalFile(str(tmp_path / "unknown.db"))
    mine, theirs = me(), "elsewhere/7/"
    assert file.apply([Begin(entry(), 60.0)], theirs) == [True]
    assert file.apply([Lease(KEY, "pay", 60.0)], mine) == [False]
    assert file.apply([Unknown(entry(phase=Phase.SENT))], theirs) == [True]
    assert file.apply([Lease(KEY, "pay", 60.0)], mine) == [True]
    assert file.apply([Lease(KEY, "pay", 60.0)], theirs) == [False]
    assert file.apply([Lease(KEY, "pay", 60.0)], mine) == [True]  # again
    assert file.apply([Unknown(entry(call=0))], theirs) == [True]  # which is not theirs to free
    assert file.apply([Lease(KEY, "pay", 60.0)], theirs) == [False]
    assert file.apply([Unknown(entry(call=0))], mine) == [True]
    assert file.apply([Lease(KEY, "pay", 60.0)], theirs) == [True]
    assert file.apply([Settle(KEY, "pay", 0), Lease(KEY, "pay", 60.0)], theirs) == [True, True]
    file.close()


def test_a_lease_ends_with_its_time_and_one_from_the_future_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = JournalFile(str(tmp_path / "unknown.db"))
    for seconds in (-1.0, 1e9):
        file.apply([Begin(entry(), 60.0), Lease(KEY, "pay", seconds)], "elsewhere/7/")
        assert file.apply([Lease(KEY, "pay", 60.0)], me()) == [True]
        file.apply([Settle(KEY, "pay", 0)], me())
    file.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are told by /proc")
def test_what_a_dead_process_held_is_free_at_once(tmp_path: Path) -> None:
    code = "from brownout.ledger.holder import me; print(me(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        holder = child.stdout.readline().strip()
        file = JournalFile(str(tmp_path / "unknown.db"))
        file.apply([Begin(entry(), 600.0)], holder)
        assert not gone(holder)
        assert file.apply([Lease(KEY, "pay", 60.0)], me()) == [False]
        child.kill()
        until(lambda: gone(holder))  # also before anybody has waited for it
        assert file.apply([Lease(KEY, "pay", 60.0)], me()) == [True]
        file.close()
    assert gone(holder)


@pytest.mark.parametrize("holder", ["", "x", "x/1/2", "//", "boot.1/abc/2"])
def test_of_what_it_can_not_tell_it_does_not_say_that_it_is_gone(holder: str) -> None:
    assert not gone(holder)
    assert not gone(me())


# ------------------------------------------------------------------------------------------ trouble


def test_trouble_delays_and_fails_nothing_is_told_once_and_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "later"
    journal = Journal(str(folder / "unknown.db"))
    with caplog.at_level(logging.WARNING, "brownout"):
        assert journal.begin(entry(), 10.0).result(5) is False
        assert "make its folder" in journal.trouble
        began = time.monotonic()
        for n in range(100):
            assert journal.begin(entry(call=n + 2), 10.0).done()
        assert journal.lease(KEY, "pay", 1.0).result(0) is True
        assert time.monotonic() - began < 0.2
        until(lambda: caplog.records)
        assert len(caplog.records) == 1
        with pytest.raises(BrownoutError, match="can't be read"):
            journal.unsettled()
        folder.mkdir()
        until(lambda: not journal.trouble)
        until(lambda: len(caplog.records) == 2)
    assert keys(journal) == [KEY]  # what was told meanwhile is written
    assert "can be written again" in caplog.text
    journal.end()


def test_a_handler_of_the_log_may_use_the_journal(tmp_path: Path) -> None:
    """No lock is held while the log is told."""
    journal, told = Journal(str(tmp_path / "nowhere" / "unknown.db")), threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            journal.begin(entry(call=7), 10.0)
            told.set()

    handler = Handler()
    journals.log.addHandler(handler)
    try:
        assert journal.begin(entry(), 10.0).result(5) is False
        assert told.wait(5)
    finally:
        journals.log.removeHandler(handler)
        journal.end()


def test_what_can_not_wait_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MOST_WAITING", 5)
    journal = Journal(str(tmp_path / "nowhere" / "unknown.db"))
    assert journal.begin(entry(), 10.0).result(5) is False
    for n in range(10):
        journal.begin(entry(call=n + 2), 10.0)
    assert journal.lost == 6
    journal.end()


def test_a_write_that_hangs_holds_up_the_first_call_only(
    opens: Callable[[], Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, go_on = opens(), threading.Event()
    monkeypatch.setattr(journals, "SLOW_SECONDS", 0.05)
    apply = JournalFile.apply

    def hangs(self: JournalFile, ops: object, who: str) -> list[bool]:
        go_on.wait(20)
        return apply(self, ops, who)  # type: ignore[arg-type]

    monkeypatch.setattr(JournalFile, "apply", hangs)
    first = journal.begin(entry(), 10.0)
    with pytest.raises(TimeoutError):
        first.result(0.1)
    second = journal.begin(entry(OTHER), 10.0)
    assert second.result(0) is False
    assert "hangs" in journal.trouble
    go_on.set()
    until(lambda: not journal.trouble)
    assert keys(journal) == [KEY, OTHER]


def test_a_full_journal_forgets_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    from brownout._file import Trouble

    file = JournalFile(str(tmp_path / "unknown.db"), most_bytes=64 * 1024)
    many = [Begin(entry(f"{n:036}", n + 1), 1.0) for n in range(100)]
    written = 0
    with pytest.raises(Trouble, match="full"):  # noqa: PT012
        for _ in range(100):
            file.apply(
                [op._replace(entry=op.entry._replace(call=written + 1)) for op in many], me()
            )
            written += 100
    assert len(file.unsettled(None)) == 100
    file.close()


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"SQLite format 3\0" + bytes(84), "not a journal"), (b"# notes", "not a journal")],
    ids=["another database", "a text"],
)
def test_another_file_is_left_alone(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "unknown.db"
    path.write_bytes(content)
    journal = Journal(str(path))
    assert journal.begin(entry(), 1.0).result(5) is False
    assert says in journal.trouble
    assert path.read_bytes() == content
    journal.end()


def test_a_journal_of_a_later_version_is_left_alone(
    opens: Callable[[], Journal], tmp_path: Path
) -> None:
    assert opens().begin(entry(), 1.0).result(5)
    with sqlite3.connect(tmp_path / "unknown.db") as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    journal = opens()
    assert journal.begin(entry(OTHER), 1.0).result(5) is False
    assert "schema 2, this brownout writes 1" in journal.trouble


def test_a_file_that_was_deleted_is_made_anew(opens: Callable[[], Journal], tmp_path: Path) -> None:
    journal = opens()
    assert journal.begin(entry(), 1.0).result(5)
    for path in tmp_path.iterdir():
        path.unlink()
    assert journal.begin(entry(OTHER), 1.0).result(5)
    assert keys(opens()) == [OTHER]


def test_a_locked_file_is_waited_for(opens: Callable[[], Journal], tmp_path: Path) -> None:
    journal = opens()
    assert journal.begin(entry(), 1.0).result(5)
    other = sqlite3.connect(tmp_path / "unknown.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    written = journal.begin(entry(OTHER), 1.0)
    with pytest.raises(TimeoutError):
        written.result(0.4)
    assert journal.trouble == ""
    other.execute("COMMIT")
    other.close()
    assert written.result(5) is True


@pytest.mark.parametrize(
    "url", ["", "unknown.db", "/tmp/unknown.db", "sqlite://unknown.db", "sqlite:///", "postgresql:///x",
            "sqlite:///x?mode=ro", "sqlite:///a\0b", "postgresql://user:secret@host/x"], ids=repr,
)  # fmt: skip
def test_what_is_no_journal_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///unknown\.db") as refused:
        path_of(url)
    assert "secret" not in str(refused.value)


def test_a_url_names_a_path_and_one_journal(tmp_path: Path) -> None:
    assert path_of("sqlite:////var/lib/a%20b.db") == "/var/lib/a b.db"
    assert path_of("sqlite:///a.db") == os.path.abspath("a.db")  # noqa: PTH100
    url = f"sqlite:///{tmp_path / 'a.db'}"
    assert opened(url) is opened(url)


FORKS = """
import os, sys, time
from brownout import Phase
from brownout._core.journal import Entry
from brownout.ledger.journal import opened
journal = opened("sqlite:///" + sys.argv[1])
def entry(key):
    return Entry(key, "pay", "charge", Phase.SENDING, time.time(), 1)
assert journal.begin(entry("before"), 10.0).result(5)
children = []
for n in range(4):
    child = os.fork()
    if child == 0:
        assert journal.begin(entry(f"child {n}"), 10.0).result(5)
        held = {one.key: one.held for one in journal.unsettled()}
        assert held["before"], "the parent lives"
        assert not journal.lease("before", "pay", 1.0).result(5)
        os._exit(0)
    children.append(child)
    assert journal.begin(entry(f"parent {n}"), 10.0).result(5)
ends = [os.waitpid(child, 0)[1] for child in children]
assert ends == [0] * 4, ends
print(sorted(one.key for one in journal.unsettled()))
"""


def test_a_forked_child_writes_on_its_own(tmp_path: Path) -> None:
    path = tmp_path / "unknown.db"
    done = subprocess.run(
        [sys.executable, "-c", FORKS, str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("child") == done.stdout.count("parent") == 4
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
