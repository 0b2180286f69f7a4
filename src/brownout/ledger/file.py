"""The SQLite file of a ledger: made for this user only, with the tables of this version."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from contextlib import suppress
from urllib.parse import unquote

from brownout.errors import ConfigurationError, LedgerUnavailable, WrongSchema
from brownout.ledger.sql import ABOUT, SCHEMA, tables

BUSY_SECONDS = 5.0  # how long a writer waits for another one


def make(path: str) -> None:
    """Make the file for this user only, if there is none; else see that it is one."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise LedgerUnavailable(f"{path} is not a regular file; give another path")
    finally:
        os.close(descriptor)


def _version(connection: sqlite3.Connection) -> int | None:
    names = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'brownout_ledger_about'"
    ).fetchall()
    return int(connection.execute(ABOUT).fetchone()[0]) if names else None


def check(connection: sqlite3.Connection, path: str) -> None:
    """Raise WrongSchema for a file without the ledger's tables, or with another version's."""
    version = _version(connection)
    if version is None:
        raise WrongSchema(f"{path} has no ledger's tables; call Ledger.create() once")
    if version != SCHEMA:
        todo = (
            "upgrade brownout here" if version > SCHEMA else "call Ledger.create(), which migrates"
        )
        raise WrongSchema(
            f"the ledger {path} has schema {version}, this brownout works with {SCHEMA}; {todo}"
        )


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Make the tables, unless they are there. A file of the ledger's own is for this user only."""
    connection.execute("BEGIN EXCLUSIVE")
    try:
        if _version(connection) is None:
            for text in tables(blob="BLOB", whole="INTEGER", tail=" WITHOUT ROWID"):
                connection.execute(text)
        others = connection.execute(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'brownout_ledger%'"
        ).fetchall()
        check(connection, path)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    if not others:  # a business's own file has the mode that the business gave it
        for name in (path, f"{path}-wal", f"{path}-shm"):
            with suppress(FileNotFoundError):
                os.chmod(name, 0o600)  # noqa: PTH101


def path_of(url: str) -> str:
    """The path in sqlite:///path: relative with three slashes, absolute with four."""
    start = "sqlite:///"
    if not url.startswith(start) or len(url) == len(start):
        raise ConfigurationError(
            "a SQLite ledger is named sqlite:///relative/path or sqlite:////absolute/path"
        )
    return unquote(url[len(start) :])


class Link:
    """One connection to the file, for whoever has its `lock`; opened anew when the file was replaced.

    A `reader` never waits for a writer.
    """

    def __init__(self, path: str, *, reader: bool) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.lost = False  # in a child of a fork that caught it at work
        self._reader = reader
        self._connection: sqlite3.Connection | None = None
        self._which = (0, 0)

    def __del__(self) -> None:
        self.close()

    def open(self, *, create: bool = False) -> sqlite3.Connection:
        """The connection. Raises WrongSchema, LedgerUnavailable, sqlite3.Error and OSError."""
        if self.lost:
            raise LedgerUnavailable(
                f"the ledger {self.path} was at work while this process was forked;"
                " fork earlier, or make a new Ledger here"
            )
        if self._connection is not None:
            with suppress(OSError):
                found = os.stat(self.path)  # noqa: PTH116 - each use asks; a Path costs as much again
                if (found.st_dev, found.st_ino) == self._which:
                    return self._connection
            self.close()  # deleted or replaced: what is written there, nobody reads
        if create:
            make(self.path)
        elif not os.path.exists(self.path):  # noqa: PTH110
            raise WrongSchema(f"there is no ledger at {self.path}; call Ledger.create() once")
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            if not create:
                check(connection, self.path)
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {16 * 1024 * 1024}").fetchall()
            connection.execute(f"PRAGMA query_only = {int(self._reader)}")
        except BaseException:
            connection.close()
            raise
        found = os.stat(self.path)  # noqa: PTH116
        self._connection, self._which = connection, (found.st_dev, found.st_ino)
        return connection

    def roll_back(self) -> None:
        """End a transaction that has failed."""
        with suppress(sqlite3.Error):
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Let go of the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()
