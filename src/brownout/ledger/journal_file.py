"""The journal's file: one SQLite table of unknown outcomes, which many processes of one user share.

It holds no bodies. A call that is begun is on the disk (synchronous = FULL) before its future says so; what
only strikes entries out may be lost with the machine's power, and is then asked for once more.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.journal import Entry
from brownout._core.outcome import Phase
from brownout._file import Trouble, claim
from brownout.ledger.holder import gone

if TYPE_CHECKING:
    from collections.abc import Iterable

APPLICATION = 0x62726A6C  # "brjl"
SCHEMA = 1
BUSY_SECONDS = 0.2
MOST_BYTES = 64 * 1024 * 1024
MOST_LISTED = 100_000
HELD_MOST_SECONDS = (
    2 * 3600.0
)  # no hold is longer: one that is was written by a clock that was wrong

_TABLE = """
CREATE TABLE unknowns (
    target TEXT NOT NULL, key TEXT NOT NULL, call INTEGER NOT NULL, operation TEXT NOT NULL,
    phase INTEGER NOT NULL, since REAL NOT NULL, holder TEXT NOT NULL, held_until REAL NOT NULL,
    PRIMARY KEY (target, key, call)) WITHOUT ROWID
"""
_BEGIN = """
INSERT INTO unknowns VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET phase = max(phase, excluded.phase), since = excluded.since,
    holder = excluded.holder, held_until = excluded.held_until
"""
_FREE = """
UPDATE unknowns SET phase = max(phase, ?), since = max(since, ?), holder = '', held_until = 0
WHERE target = ? AND key = ? AND holder = ?
"""
_LIST = """
SELECT key, target, max(operation), max(phase), max(since), holder, max(held_until)
FROM unknowns WHERE ? IS NULL OR target = ? GROUP BY target, key, holder ORDER BY min(since) LIMIT ?
"""


class Begin(NamedTuple):
    """A call is about to be sent."""

    entry: Entry
    seconds: float


class Unknown(NamedTuple):
    """It stays unknown, and is nobody's now."""

    entry: Entry


class Settle(NamedTuple):
    """It is certain."""

    key: str
    target: str
    call: int


class Lease(NamedTuple):
    """Somebody wants to settle it."""

    key: str
    target: str
    seconds: float


Op = Begin | Unknown | Settle | Lease


class JournalFile:
    """A connection to the file, made when it is first needed, and again when the file has gone.

    For one thread at a time, under the lock of `journal`. Raises Trouble, and nothing else.
    """

    def __init__(self, path: str, *, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self._most_bytes = most_bytes
        self._connection: sqlite3.Connection | None = None
        self._which = (0, 0)

    def close(self) -> None:
        """Let go of the file; the next use opens it anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def apply(self, ops: Iterable[Op], me: str) -> list[bool]:
        """Do these in one transaction, all or none: what each of them is answered with."""
        ops = list(ops)
        begins = any(isinstance(op, Begin) for op in ops)
        try:
            connection = self._open()
            connection.execute(f"PRAGMA synchronous = {'FULL' if begins else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                now = time.time()
                done = [_apply(connection, op, me, now) for op in ops]
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError, Trouble) as error:
            raise self._trouble(error) from error
        return done

    def unsettled(self, target: str | None) -> list[Entry]:
        """An entry a key, the oldest first."""
        try:
            rows = self._open().execute(_LIST, (target, target, MOST_LISTED)).fetchall()
        except (sqlite3.Error, OSError, Trouble) as error:
            raise self._trouble(error) from error
        now, found = time.time(), dict[tuple[str, str], Entry]()
        for key, at, operation, phase, since, holder, until in rows:
            held = _holds(str(holder), float(until), now)
            entry = Entry(str(key), str(at), str(operation), Phase(phase), float(since), 0, held)
            other = found.get((entry.target, entry.key), entry)
            found[entry.target, entry.key] = entry._replace(
                phase=max(entry.phase, other.phase),
                since=max(entry.since, other.since),
                held=entry.held or other.held,
            )
        return list(found.values())

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            with suppress(OSError):
                found = os.lstat(self.path)
                if (found.st_dev, found.st_ino) == self._which:
                    return self._connection
            self.close()  # deleted or replaced: what is written there, nobody reads
        self._which = claim(self.path, APPLICATION, "a journal")
        connection = self._connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA trusted_schema = OFF")
        if _version(connection) == 0:
            _create(connection)
        version = _version(connection)
        if version != SCHEMA:
            raise Trouble(
                f"it has schema {version}, this brownout writes {SCHEMA};"
                " use one version in all processes, or another path"
            )
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute(f"PRAGMA journal_size_limit = {1024 * 1024}").fetchall()
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {self._most_bytes // page_bytes}").fetchall()
        return connection

    def _trouble(self, error: Exception) -> Trouble:
        if isinstance(error, Trouble):
            self.close()
            return error
        if isinstance(error, OSError):
            self.close()
            what = error.strerror or type(error).__name__
            return Trouble(f"{what}; make its folder, writable for this user, or give another path")
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return Trouble(
                "it is locked by another process; see which: fuser or lsof on it", passing=True
            )
        self.close()
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return Trouble(
                f"it is corrupt; move it away (mv {self.path} {self.path}.bad), a new one is made then"
            )
        if code == sqlite3.SQLITE_FULL:
            mebibytes = self._most_bytes / 1024 / 1024
            return Trouble(
                f"it or its disk is full (it may have {mebibytes:g} MiB); resolve what is in it, make room"
            )
        return Trouble(
            f"{error}; make it and its folder writable for this user, or give another path"
        )


def _apply(connection: sqlite3.Connection, op: Op, me: str, now: float) -> bool:
    match op:
        case Begin(entry, seconds):
            row = (entry.target, entry.key, entry.call, entry.operation, entry.phase, entry.since)
            connection.execute(_BEGIN, (*row, me, now + seconds))
        case Unknown(entry) if entry.call:
            row = (entry.target, entry.key, entry.call, entry.operation, entry.phase, entry.since)
            connection.execute(_BEGIN, (*row, "", 0.0))
        case Unknown(entry):
            connection.execute(_FREE, (entry.phase, entry.since, entry.target, entry.key, me))
        case Settle(key, target, call):
            connection.execute(
                "DELETE FROM unknowns WHERE target = ? AND key = ? AND ? IN (0, call)",
                (target, key, call),
            )
        case Lease():
            return _lease(connection, op, me, now)
    return True


def _lease(connection: sqlite3.Connection, op: Lease, me: str, now: float) -> bool:
    rows = connection.execute(
        "SELECT holder, held_until FROM unknowns WHERE target = ? AND key = ?", (op.target, op.key)
    ).fetchall()
    if any(holder != me and _holds(str(holder), float(until), now) for holder, until in rows):
        return False
    connection.execute(
        "UPDATE unknowns SET holder = ?, held_until = ? WHERE target = ? AND key = ?",
        (me, now + op.seconds, op.target, op.key),
    )
    return True


def _holds(holder: str, until: float, now: float) -> bool:
    return bool(holder) and now < until < now + HELD_MOST_SECONDS and not gone(holder)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _create(connection: sqlite3.Connection) -> None:
    """Make the table, unless another process has just done so; before WAL, so that the header shows it."""
    connection.execute("BEGIN EXCLUSIVE")
    try:
        if _version(connection) == 0:
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
