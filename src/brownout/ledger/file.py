"""The SQLite file of a ledger: made for this user only, with the tables of this version."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import unquote

from brownout.errors import ConfigurationError, LedgerUnavailable, WrongSchema
from brownout.ledger.sql import ABOUT, SCHEMA, tables

if TYPE_CHECKING:
    import sqlite3


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
