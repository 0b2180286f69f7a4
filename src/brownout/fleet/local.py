"""Read the fleet file: what the processes of this machine see of their targets.

A reader opens the file read-only, never makes it, never waits for a writer longer than a bound, and
trusts nothing in it: what does not fit is skipped and counted in `Fleet.malformed`.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import quote

from brownout._core.view import Observer, Row, Seen, rows
from brownout.errors import BrownoutError, ConfigurationError
from brownout.fleet import usual, wire
from brownout.fleet.file import APPLICATION, SCHEMA
from brownout.fleet.fork import IN_USE

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout._core.state import State

__all__ = ["Fleet", "ObservedChange", "changes", "read"]

WAIT_SECONDS = 1.0  # for a writer's lock, and for the whole of one question
MOST_OBSERVERS = 1000
MOST_EVIDENCE = 10_000
MOST_CHANGES = 1000  # in one answer; the next one goes on from there

T = TypeVar("T")


class ObservedChange(NamedTuple):
    """An observer has judged a target anew: from `before` to `after` (None: no evidence).

    `at` is the instant in wall seconds, `monotonic` in that machine's monotonic ones. `id` grows from
    change to change; `contradiction`: the target's health check said ok while callers suffered.
    """

    id: int
    observer: str
    name: str
    target: str
    at: float
    monotonic: float
    before: State | None
    after: State | None
    because: str
    contradiction: bool


class Fleet(NamedTuple):
    """What the file held at the wall instant `at`.

    `observers` are all that it knows, stale ones too, by name; `rows` one for each target, the worst
    first. `changes` are those after the id that was asked for, oldest first, and `last_change` is the
    id to ask from next. `malformed` counts what was skipped because nobody of ours can have written it.
    """

    path: str
    at: float
    observers: tuple[Observer, ...]
    rows: tuple[Row, ...]
    changes: tuple[ObservedChange, ...]
    last_change: int
    malformed: int


def read(
    path: str | os.PathLike[str], *, after: int | None = None, now: float | None = None
) -> Fleet:
    """Everything that the fleet file at `path` holds, and the changes after the id `after` (None: none).

    `now` is the wall instant against which ages are counted (default: the clock's). Raises
    ConfigurationError if there is no such file or it is no fleet file of this version, BrownoutError if
    it is corrupt, or locked for longer than a second.
    """
    name = os.fspath(path)
    return _ask(name, lambda connection: _read(connection, name, after, now))


def changes(
    path: str | os.PathLike[str], after: int | None = None
) -> tuple[tuple[ObservedChange, ...], int]:
    """The changes after the id `after` (None: none yet), oldest first, and the id to ask from next.

    It costs less than `read`. If the file was made anew and `after` is not in it yet, it begins at its
    first change. Raises what `read` raises.
    """
    found, last, _ = _ask(os.fspath(path), lambda connection: _changes(connection, after))
    return found, last


def _ask(path: str, question: Callable[[sqlite3.Connection], T]) -> T:
    where = wire.clean(path, 500)
    _look(path, where)
    if not IN_USE.acquire(timeout=2 * WAIT_SECONDS):
        raise BrownoutError(
            f"{where} is in use by this process, whose write hangs: is its disk ill?"
        )
    try:
        with closing(_connect(path)) as connection:
            _check(connection, where)
            return question(connection)
    except sqlite3.Error as error:
        raise _explained(error, where) from error
    finally:
        IN_USE.release()


def _look(path: str, where: str) -> None:
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(
            f"no fleet file at {where}: start a process that shares into it (brownout.share(path), or"
            " BROWNOUT_FLEET=path), or give another path"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{where} can't be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(
            f"{where} is no fleet file: it is not a regular file, but a folder or a link"
        )
    if not os.access(path, os.R_OK):
        raise ConfigurationError(
            f"{where} can't be read: it belongs to user {found.st_uid}, who alone may"
        )
    if not found.st_size:
        raise ConfigurationError(
            f"{where} is no fleet file yet: it is empty; nobody has written into it"
        )


def _connect(path: str) -> sqlite3.Connection:
    """Open it for reading only. Where nobody writes (no -wal), a read-only folder is no obstacle."""
    address = f"file:{quote(os.path.abspath(path))}?mode=ro"  # noqa: PTH100 - bytes as SQLite takes them
    if not os.path.exists(path + "-wal") and not os.access(os.path.dirname(path) or ".", os.W_OK):  # noqa: PTH110, PTH120
        address += "&immutable=1"
    connection = sqlite3.connect(address, uri=True, timeout=WAIT_SECONDS, isolation_level=None)
    connection.text_factory = _lenient
    end = time.monotonic() + 2 * WAIT_SECONDS  # the file may hold views that count to a billion
    connection.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    return connection


def _lenient(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _check(connection: sqlite3.Connection, where: str) -> None:
    for setting in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON"):
        connection.execute(f"PRAGMA {setting}").fetchall()
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version")
    )
    if application != APPLICATION:
        raise ConfigurationError(
            f"{where} is no fleet file: it is a database of something else; give another path"
        )
    if version != SCHEMA:
        raise ConfigurationError(
            f"{where} was written by another version of brownout (schema {version}, this one reads"
            f" {SCHEMA}): use one version for all"
        )
    connection.execute("BEGIN")  # one view of everything


def _explained(error: sqlite3.Error, where: str) -> BrownoutError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return ConfigurationError(
            f"{where} is no fleet file: it is not even a database; give another path"
        )
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return BrownoutError(f"{where} is locked by another process; see which: fuser {where}")
    if code == sqlite3.SQLITE_INTERRUPT:
        return BrownoutError(
            f"{where} could not be read within {2 * WAIT_SECONDS:g} s: it is too big, or corrupt"
        )
    return BrownoutError(
        f"{where} can't be read: {wire.clean(str(error))}; if it is corrupt, move it away"
    )


def _read(connection: sqlite3.Connection, path: str, after: int | None, now: float | None) -> Fleet:
    observers, bad_observers = _observers(connection)
    seen, bad_evidence = _evidence(connection, observers)
    told, last, bad_changes = _changes(connection, after)
    _, bad_usual = usual.rows(connection)
    wall = time.time() if now is None else now
    return Fleet(
        path=path,
        at=wall,
        observers=tuple(
            sorted(observers.values(), key=lambda one: (one.name, one.started, one.id))
        ),
        rows=rows(seen, wall),
        changes=told,
        last_change=last,
        malformed=bad_observers + bad_evidence + bad_changes + bad_usual,
    )


def _observers(connection: sqlite3.Connection) -> tuple[dict[object, Observer], int]:
    found: dict[object, Observer] = {}
    malformed = 0
    for row in connection.execute(
        "SELECT * FROM observers ORDER BY written DESC LIMIT ?", (MOST_OBSERVERS,)
    ):
        try:
            found[row[0]] = wire.observer(row)
        except ValueError:
            malformed += 1
    return found, malformed


def _evidence(
    connection: sqlite3.Connection, observers: dict[object, Observer]
) -> tuple[list[Seen], int]:
    asked = connection.execute(
        "SELECT observer, target, CASE WHEN length(body) <= ? THEN body END FROM evidence LIMIT ?",
        (wire.MOST_BODY_BYTES, MOST_EVIDENCE),
    )
    seen: list[Seen] = []
    malformed = 0
    for who, target, body in asked:
        try:
            seen.append(wire.read(observers[who], target, body))
        except (ValueError, KeyError):
            malformed += 1
    return seen, malformed


def _changes(
    connection: sqlite3.Connection, after: int | None
) -> tuple[tuple[ObservedChange, ...], int, int]:
    newest = connection.execute("SELECT max(id) FROM changes").fetchone()[0]
    newest = newest if isinstance(newest, int) else 0
    if after is None:
        return (), newest, 0
    found: list[ObservedChange] = []
    malformed, last = 0, 0 if after > newest else after
    asked = connection.execute(
        "SELECT * FROM changes WHERE id > ? ORDER BY id LIMIT ?", (last, MOST_CHANGES)
    )
    for row in asked:
        last = row[0]
        try:
            found.append(_change(row))
        except ValueError:
            malformed += 1
    return tuple(found), last, malformed


def _change(row: tuple[object, ...]) -> ObservedChange:
    id_, observer, name, target, at, monotonic, before, after, because, contradiction = row
    return ObservedChange(
        id=int(wire.number(id_)),
        observer=wire.text(observer, 2 * wire.NAME_CHARACTERS),
        name=wire.text(name),
        target=wire.text(target),
        at=wire.number(at),
        monotonic=wire.number(monotonic),
        before=wire.state(before),
        after=wire.state(after),
        because=wire.text(because, wire.SENTENCE_CHARACTERS),
        contradiction=wire.number(contradiction) != 0,
    )
