"""A ledger in a SQLite file: the processes of one machine share it, and so may the business's own tables.

Many callers' operations are one transaction: whoever gets the lock carries out all that wait, and
commits once. A claim is on the disk (WAL, synchronous=FULL) before anybody hears of it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from brownout._core.ledger import drive
from brownout.errors import ConfigurationError, LedgerUnavailable, WrongSchema
from brownout.ledger.file import check, make, migrate
from brownout.ledger.sql import Statements

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")

BUSY_SECONDS = 5.0  # how long a writer waits for another one
MOST_IN_ONE = 256  # operations in a transaction: others must be let in, too
FORK_WAIT_SECONDS = 1.0
STATEMENTS = Statements(":now")


class _Job:
    """An operation that waits for whoever carries it out; `told` is called when that is done."""

    __slots__ = ("done", "error", "op", "told", "value")

    def __init__(self, op: Generator[Any, Any, Any], told: Callable[[], None] | None) -> None:
        self.op = op
        self.told = told
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None


class SqliteStore(Statements):
    """Rows in the SQLite file at `path`, which is made for this user only. `now` is its clock.

    Safe across `fork`: the connection is closed before, and opened anew on both sides.
    """

    atomic = True

    def __init__(self, path: str, *, now: Callable[[], float] = time.time) -> None:
        super().__init__(":now")
        if not path or "\0" in path:
            raise ConfigurationError("sqlite:///path lacks the path of a file")
        self.path = path
        self._now = now
        self._connection: sqlite3.Connection | None = None
        self._which = (0, 0)
        self._begin()
        _stores.add(self)

    def _begin(self, *, lost: bool = False) -> None:
        """As new: in the beginning, and in a child after a fork."""
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._lost = lost

    # ------------------------------------------------------------------------------- carrying out

    def run(self, op: Generator[Any, Any, T]) -> T:
        """Carry an operation out, together with those of other threads."""
        job = _Job(op, None)
        self._jobs.append(job)
        with self._lock:
            while not job.done:
                self._drain()
        if job.error is not None:
            raise job.error
        return job.value  # type: ignore[no-any-return]

    async def arun(self, op: Generator[Any, Any, T]) -> T:
        """The same, in a thread of the store's own."""
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def told() -> None:
            if not ended.done():
                ended.set_result(None)

        def tell() -> None:
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(told)

        job = _Job(op, tell)
        self._jobs.append(job)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "brownout-ledger")
        self._pool.submit(self._drain_all)
        await ended
        if job.error is not None:
            raise job.error
        return job.value  # type: ignore[no-any-return]

    def _drain_all(self) -> None:
        with self._lock:
            while self._jobs:
                self._drain()

    def _drain(self) -> None:
        """Carry out what waits, in one transaction; under the lock."""
        jobs: list[_Job] = []
        while self._jobs and len(jobs) < MOST_IN_ONE:
            jobs.append(self._jobs.popleft())
        trouble: BaseException | None = None
        try:
            self._carry_out(jobs)
        except BaseException as error:
            trouble = self._trouble(error)
            with suppress(sqlite3.Error):
                if self._connection is not None and self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error | OSError | WrongSchema | LedgerUnavailable):
                raise
        finally:
            for job in jobs:
                job.error = trouble or job.error
                job.done = True
                if job.told is not None:
                    job.told()

    def _carry_out(self, jobs: list[_Job]) -> None:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        now = int(self._now() * 1000)

        def answer(what: tuple[str, dict[str, Any]]) -> list[Any]:
            text, parameters = what
            return connection.execute(text, {**parameters, "now": now}).fetchall()

        for job in jobs:
            try:
                job.value = drive(job.op, answer)
            except sqlite3.Error:
                raise
            except Exception as error:  # a refusal: what it read and wrote stays
                job.error = error
        connection.execute("COMMIT")

    def _trouble(self, error: BaseException) -> BaseException:
        if isinstance(error, WrongSchema | LedgerUnavailable):
            return error
        what = getattr(error, "strerror", None) or str(error)
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        todo = {
            sqlite3.SQLITE_BUSY: "another process has held it for too long; see which: fuser or lsof on it",
            sqlite3.SQLITE_FULL: "make room on its disk",
            sqlite3.SQLITE_READONLY: "make it and its folder writable for this user",
            sqlite3.SQLITE_CORRUPT: "restore it from a backup; what it knew is in doubt until then",
            sqlite3.SQLITE_NOTADB: "give another path",
        }.get(code, "make it and its folder readable and writable for this user")
        made = LedgerUnavailable(f"the ledger {self.path} can't be used: {what}; {todo}")
        made.__cause__ = error
        return made

    # ----------------------------------------------------------------------------------- the file

    def _open(self, *, create: bool = False) -> sqlite3.Connection:
        if self._lost:
            raise LedgerUnavailable(
                f"the ledger {self.path} was at work while this process was forked;"
                " fork earlier, or make a new Ledger here"
            )
        if self._connection is not None:
            with suppress(OSError):
                found = os.stat(self.path)  # noqa: PTH116 - each transaction asks; a Path costs as much again
                if (found.st_dev, found.st_ino) == self._which:
                    return self._connection
            self._close()  # deleted or replaced: what is written there, nobody reads
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
        except BaseException:
            connection.close()
            raise
        found = os.stat(self.path)  # noqa: PTH116
        self._connection, self._which = connection, (found.st_dev, found.st_ino)
        return connection

    def create(self) -> None:
        """Make the file and its tables, unless they are there."""
        with self._lock:
            try:
                self._close()
                connection = self._open(create=True)
                migrate(connection, self.path)
            except (sqlite3.Error, OSError) as error:
                self._close()
                raise self._trouble(error) from error
            except BaseException:
                self._close()
                raise

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def close(self) -> None:
        """Let go of the file and of the thread."""
        with self._lock:
            self._close()
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)


# ------------------------------------------------------------------------------------------- fork
# No connection may be open while the process forks: a child that inherits one shares SQLite's idea of
# which locks it holds.

_stores: weakref.WeakSet[SqliteStore] = weakref.WeakSet()
_held: list[tuple[SqliteStore, bool]] = []


def _before_fork() -> None:
    for store in list(_stores):
        taken = store._lock.acquire(timeout=FORK_WAIT_SECONDS)  # noqa: SLF001
        if taken:
            store._close()  # noqa: SLF001
        _held.append((store, taken))


def _in_parent() -> None:
    for store, taken in _held:
        if taken:
            store._lock.release()  # noqa: SLF001
    _held.clear()


def _in_child() -> None:
    for store, taken in _held:
        store._begin(lost=not taken)  # noqa: SLF001
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
