"""What is usual, kept in the fleet file: a process that starts begins with what its predecessor had learned.

One row for each operation that a program (by its name) calls, written now and then and at the end. A row
that is malformed, of another version, older than a day or from the future is not believed; it is
counted, and the log says so once. The table is bounded: what was written longest ago goes first.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.kept import checked
from brownout._core.usual import OLDEST_SECONDS
from brownout.fleet import wire

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

MOST_ROWS = 4096
MOST_BODY_BYTES = 8192
TABLE = """
CREATE TABLE IF NOT EXISTS usual (
    name TEXT NOT NULL, target TEXT NOT NULL, operation TEXT NOT NULL, written REAL NOT NULL,
    body TEXT NOT NULL, PRIMARY KEY (name, target, operation))"""


class Told(NamedTuple):
    """What a program knew to be usual of an operation (see Usual.told), at the wall instant `at`."""

    target: str
    operation: str
    at: float
    usual: dict[str, object]


def write(usual: object) -> str | None:
    """What is usual as JSON; None if that is too long."""
    body = json.dumps(usual, separators=(",", ":"), allow_nan=False)
    return body if len(body) <= MOST_BODY_BYTES else None


def put(
    connection: sqlite3.Connection,
    name: str,
    now: float,
    rows: Iterable[tuple[str, str, str | None]],
) -> None:
    """Write (target, operation, JSON); where there is no JSON, what was kept is void."""
    kept = list(rows)
    connection.executemany(
        "DELETE FROM usual WHERE name = ? AND target = ? AND operation = ?",
        [(name, target, operation) for target, operation, body in kept if body is None],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO usual VALUES (?, ?, ?, ?, ?)",
        [(name, target, operation, now, body) for target, operation, body in kept if body],
    )


def forget(connection: sqlite3.Connection, now: float) -> None:
    """Drop what nobody would believe any more, and what is too much."""
    connection.execute("DELETE FROM usual WHERE abs(written - ?) > ?", (now, OLDEST_SECONDS))
    connection.execute(
        "DELETE FROM usual WHERE rowid IN"
        " (SELECT rowid FROM usual ORDER BY written DESC LIMIT -1 OFFSET ?)",
        (MOST_ROWS,),
    )


def rows(connection: sqlite3.Connection, name: str | None = None) -> tuple[list[Told], int]:
    """What programs of that name (None: all) knew to be usual, and how many rows made no sense."""
    there = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'usual'"
    if not connection.execute(there).fetchone()[0]:
        return [], 0  # written by an older version
    found: list[Told] = []
    malformed = 0
    asked = connection.execute(
        "SELECT target, operation, written, CASE WHEN length(body) <= ? THEN body END FROM usual"
        " WHERE name = ? OR ? IS NULL ORDER BY written DESC LIMIT ?",
        (MOST_BODY_BYTES, name, name, MOST_ROWS),
    )
    for target, operation, written, body in asked:
        try:
            found.append(_row(target, operation, written, body))
        except (ValueError, RecursionError):
            malformed += 1
    return found, malformed


def _row(target: object, operation: object, written: object, body: object) -> Told:
    if not isinstance(body, str):
        raise ValueError("not a text, or too long a one")  # noqa: TRY004 - one error for all
    told: dict[str, object] = json.loads(body)
    checked(told)
    whose = wire.text(target, wire.WRITTEN_CHARACTERS)
    return Told(whose, wire.text(operation), wire.number(written), told)
