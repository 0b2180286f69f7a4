"""The fleet file as its writers hold it: one SQLite database that the processes of one user share.

It holds what every observer sees of every target now, and each change of a state. The file is made
with mode 0600 whatever the umask; SQLite gives its -wal and -shm the same. A symlink, somebody else's
file and a database that is not ours are refused; nothing here deletes a file. Every failure is a
`Trouble`, which says what to do.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from brownout._file import Trouble, claim
from brownout.fleet import usual as kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from brownout._core.view import Observer
    from brownout.fleet.wire import Told

APPLICATION = 0x62726F77  # "brow": a fleet file says so in its header
SCHEMA = 1
BUSY_SECONDS = 0.2  # how long the writer's thread waits for another writer; a write takes 1 ms
MOST_BYTES = 64 * 1024 * 1024
FORGET_OBSERVER_SECONDS = 600.0
FORGET_CHANGE_SECONDS = 86_400.0

_TABLES = """
CREATE TABLE observers (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, zone TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
    started REAL NOT NULL, written REAL NOT NULL, ended REAL,
    lost INTEGER NOT NULL, left_out INTEGER NOT NULL);
CREATE TABLE evidence (
    observer TEXT NOT NULL, target TEXT NOT NULL, written REAL NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (observer, target));
CREATE TABLE changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, observer TEXT NOT NULL, name TEXT NOT NULL, target TEXT NOT NULL,
    at REAL NOT NULL, monotonic REAL NOT NULL, before TEXT, after TEXT, because TEXT NOT NULL,
    contradiction INTEGER NOT NULL);
CREATE INDEX changes_at ON changes (at);
"""
_OBSERVER = "INSERT OR REPLACE INTO observers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_EVIDENCE = "INSERT OR REPLACE INTO evidence VALUES (?, ?, ?, ?)"
_CHANGE = "INSERT INTO changes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class File:
    """A connection to the fleet file, made when it is first needed, and again when the file has gone.

    For one thread at a time. Raises Trouble from `write`, and nothing else.
    """

    def __init__(self, path: str, *, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self._most_bytes = most_bytes
        self._connection: sqlite3.Connection | None = None
        self._which = (0, 0)

    def write(
        self,
        observer: Observer,
        evidence: Iterable[tuple[str, str]],
        changes: Iterable[Told],
        *,
        prune: bool,
        usual: Iterable[tuple[str, str, str | None]] = (),
    ) -> None:
        """Write an observer, what it sees (pairs of target and JSON) and its changes, in one transaction.

        `usual` is what it knows to be usual: target, operation and JSON (None: what was kept is void).
        """

        def write(connection: sqlite3.Connection) -> None:
            self._write(connection, observer, evidence, changes, prune)
            kept.put(connection, observer.name, observer.written, usual)

        self._do(write)
        if prune and self._connection is not None:
            with suppress(sqlite3.Error):  # what is written is written; room is made the next time
                self._connection.execute("PRAGMA incremental_vacuum(1000)").fetchall()

    def usual(self, name: str) -> tuple[list[kept.Told], int]:
        """What programs of that name knew to be usual, and how many rows made no sense. Raises Trouble."""
        found: list[tuple[list[kept.Told], int]] = []
        self._do(lambda connection: found.append(kept.rows(connection, name)))
        return found[0]

    def _do(self, work: Callable[[sqlite3.Connection], None]) -> None:
        try:
            connection = self._open()
            _in_one(connection, lambda: work(connection))
        except Trouble:
            self.close()
            raise
        except sqlite3.Error as error:
            self.close()
            raise self._trouble(error) from error
        except OSError as error:
            self.close()
            what = error.strerror or type(error).__name__
            raise Trouble(
                f"{what}; make its folder, writable for this user, or give another path"
            ) from error

    def _write(
        self,
        connection: sqlite3.Connection,
        observer: Observer,
        evidence: Iterable[tuple[str, str]],
        changes: Iterable[Told],
        prune: bool,  # noqa: FBT001
    ) -> None:
        if prune:
            _forget(connection, observer.written)
            kept.forget(connection, observer.written)
            self._make_room(connection)
        _put(connection, observer, evidence, changes)

    def close(self) -> None:
        """Let go of the file; the next write opens it anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            with suppress(OSError):
                found = os.lstat(self.path)
                if (found.st_dev, found.st_ino) == self._which:
                    return self._connection
            self.close()  # deleted or replaced: what is written there, nobody reads
        self._which = claim(self.path, APPLICATION, "a fleet file")
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._connection = connection
        found = os.lstat(self.path)
        if (found.st_dev, found.st_ino) != self._which:
            raise Trouble("it was replaced while it was opened; who else writes into its folder?")
        self._prepare(connection)
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA synchronous = NORMAL")
        if _version(connection) == 0:
            _create(connection)
        version = _version(connection)
        if version != SCHEMA:
            raise Trouble(
                f"it has schema {version}, this brownout writes {SCHEMA};"
                " use one version in all processes, or another path"
            )
        connection.execute(
            kept.TABLE
        )  # files of an older version have none, and lose nothing by it
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA wal_autocheckpoint = 250")  # pages: 1 MiB
        connection.execute(f"PRAGMA journal_size_limit = {1024 * 1024}").fetchall()
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {self._most_bytes // page_bytes}").fetchall()

    def _make_room(self, connection: sqlite3.Connection) -> None:
        """Above three quarters of the size, drop the oldest quarter of the changes."""
        pages, most, free = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "max_page_count", "freelist_count")
        )
        if pages - free > most * 3 // 4:
            connection.execute(
                "DELETE FROM changes WHERE id <= (SELECT min(id) + (max(id) - min(id)) / 4 FROM changes)"
            )

    def _trouble(self, error: sqlite3.Error) -> Trouble:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return Trouble(
                "it is locked by another process; see which: fuser or lsof on it", passing=True
            )
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return Trouble(
                f"it is corrupt; move it away (mv {self.path} {self.path}.bad), a new one is made then"
            )
        if code == sqlite3.SQLITE_FULL:
            mebibytes = self._most_bytes / 1024 / 1024
            return Trouble(
                f"it or its disk is full (it may have {mebibytes:g} MiB); make room, or share fewer targets"
            )
        return Trouble(
            f"{error}; make it and its folder writable for this user, or give another path"
        )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _create(connection: sqlite3.Connection) -> None:
    """Make the tables, unless another process has just done so; before WAL, so that the header shows it."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL").fetchall()

    def create() -> None:
        if _version(connection) == 0:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")

    _in_one(connection, create, how="EXCLUSIVE")


def _in_one(
    connection: sqlite3.Connection, work: Callable[[], None], *, how: str = "IMMEDIATE"
) -> None:
    """Do the work in one transaction, all of it or nothing."""
    connection.execute(f"BEGIN {how}")
    try:
        work()
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _forget(connection: sqlite3.Connection, now: float) -> None:
    """Drop what is too old; a time from the future is as old as it is far away."""
    connection.execute(
        "DELETE FROM observers WHERE abs(written - ?) > ?", (now, FORGET_OBSERVER_SECONDS)
    )
    connection.execute("DELETE FROM evidence WHERE observer NOT IN (SELECT id FROM observers)")
    connection.execute("DELETE FROM changes WHERE abs(at - ?) > ?", (now, FORGET_CHANGE_SECONDS))


def _put(
    connection: sqlite3.Connection,
    observer: Observer,
    evidence: Iterable[tuple[str, str]],
    changes: Iterable[Told],
) -> None:
    me, now = observer.id, observer.written
    connection.execute(_OBSERVER, observer)
    connection.executemany(_EVIDENCE, [(me, target, now, body) for target, body in evidence])
    connection.execute("DELETE FROM evidence WHERE observer = ? AND written <> ?", (me, now))
    with closing(connection.cursor()) as cursor:
        cursor.executemany(_CHANGE, [(me, observer.name, *change) for change in changes])
