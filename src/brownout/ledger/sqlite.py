"""A ledger in a SQLite file: the processes of one machine share it, and so may the business's own tables.

What only reads has a connection of its own and waits for nobody. Many callers' writes are one
transaction: whoever gets the lock carries out all that wait, and commits once. A claim is on the disk
(WAL, synchronous=FULL) before anybody hears of it.
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
from brownout.ledger.file import BUSY_SECONDS, Link, migrate
from brownout.ledger.sql import Statements

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from concurrent.futures import ThreadPoolExecutor

    from brownout._core.ledger import Row, Seen

T = TypeVar("T")

MOST_IN_ONE = 256  # operations in a transaction: others must be let in, too
FORK_WAIT_SECONDS = 1.0
MOST_READERS = 2
STATEMENTS = Statements(":now")


class _Job:
    """An operation that waits for whoever carries it out; `told` is called when that is done.

    Whoever gets `mine` decides: it is carried out, or given up at the instant `until`.
    """

    __slots__ = ("done", "error", "first", "mine", "op", "told", "until", "value")

    def __init__(
        self, op: Generator[Any, Any, Any], told: Callable[[], None] | None = None
    ) -> None:
        self.op = op
        self.told = told
        self.first: Any = None  # the statement at which it begins to write
        self.mine = threading.Lock()
        self.until = 0.0
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
        self._begin()
        _stores.add(self)

    def _begin(self, *, lost: bool = False) -> None:
        """As new: in the beginning, and in a child after a fork."""
        self._writer = Link(self.path, reader=False)
        self._reader = Link(self.path, reader=True)
        self._writer.lost = self._reader.lost = lost
        self._jobs: deque[_Job] = deque()
        self._pools: list[ThreadPoolExecutor] = []

    def put(
        self, row: Row, born: int, *, lease: int, age: int, lost: bool, wait: float
    ) -> Generator[Any, Any, Seen]:
        """Put a row where there is none; where there is one, no writer is waited for."""
        seen = yield from self.get(row.scope, row.key)
        if seen.row is not None:
            return seen._replace(mine=seen.row.fence == row.fence)
        return (yield from super().put(row, born, lease=lease, age=age, lost=lost, wait=wait))

    # ------------------------------------------------------------------------------- carrying out

    def run(self, op: Generator[Any, Any, T]) -> T:
        """Carry an operation out, together with those of other threads."""
        job = _Job(op)
        if not self._read(job):
            self._jobs.append(job)
            in_time = self._writer.lock.acquire(timeout=max(0.0, job.until - time.monotonic()))
            if not in_time and job.mine.acquire(blocking=False):
                raise self._busy(None)
            if not in_time:
                self._writer.lock.acquire()  # it is being carried out
            try:
                while not job.done:
                    self._drain()
            finally:
                self._writer.lock.release()
        if job.error is not None:
            raise job.error
        return job.value  # type: ignore[no-any-return]

    async def arun(self, op: Generator[Any, Any, T]) -> T:
        """The same, in threads of the store's own: one writes, the others read."""
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

        if not self._pools:
            self._pools = [
                ThreadPoolExecutor(most, "brownout-ledger") for most in (1, MOST_READERS)
            ]
        writing, reading = self._pools
        job = _Job(op, tell)

        def start() -> None:
            if self._read(job):
                tell()
            else:
                self._jobs.append(job)
                writing.submit(self._drain_all)

        reading.submit(start)
        await ended
        if job.error is not None:
            raise job.error
        return job.value  # type: ignore[no-any-return]

    def _read(self, job: _Job) -> bool:
        """Carry out what only reads; False: from `job.first` on it writes."""
        try:
            what = next(job.op)
            while what[0].startswith("SELECT"):
                text, parameters = what
                asked = {**parameters, "now": int(self._now() * 1000)}
                with self._reader.lock:
                    rows = self._reader.open().execute(text, asked).fetchall()
                what = job.op.send(rows)
        except StopIteration as end:
            job.value, job.done = end.value, True
        except (sqlite3.Error, OSError) as error:
            job.error, job.done = self._trouble(error), True
        except Exception as error:
            job.error, job.done = error, True
        else:
            job.first = what
            wait = what[1].get("wait", BUSY_SECONDS)
            job.until = time.monotonic() + min(wait, BUSY_SECONDS)
        return job.done

    def _drain_all(self) -> None:
        with self._writer.lock:
            while self._jobs:
                self._drain()

    def _drain(self) -> None:
        """Carry out what waits, in one transaction; under the lock."""
        jobs: list[_Job] = []
        while self._jobs and len(jobs) < MOST_IN_ONE:
            job = self._jobs.popleft()
            if job.mine.acquire(blocking=False):
                jobs.append(job)
        trouble: BaseException | None = None
        try:
            self._carry_out(jobs)
        except BaseException as error:
            trouble = self._trouble(error)
            self._writer.roll_back()
            if not isinstance(error, sqlite3.Error | OSError | WrongSchema | LedgerUnavailable):
                raise
        finally:
            for job in jobs:
                job.error = trouble or job.error
                job.done = True
                if job.told is not None:
                    job.told()

    def _carry_out(self, jobs: list[_Job]) -> None:
        connection = self._writer.open()
        jobs = self._begun(connection, jobs)
        if not jobs:
            return
        now = int(self._now() * 1000)

        def answer(what: tuple[str, dict[str, Any]]) -> list[Any]:
            text, parameters = what
            return connection.execute(text, {**parameters, "now": now}).fetchall()

        for job in jobs:
            try:
                job.value = drive(job.op, answer, job.first)
            except sqlite3.Error:
                raise
            except Exception as error:  # a refusal: what it read and wrote stays
                job.error = error
        connection.execute("COMMIT")

    def _begun(self, connection: sqlite3.Connection, jobs: list[_Job]) -> list[_Job]:
        """Begin a transaction, and tell which operations are still waited for."""
        while jobs:
            left = max(0.001, min(job.until for job in jobs) - time.monotonic())
            connection.execute(f"PRAGMA busy_timeout = {int(left * 1000)}").fetchall()
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                now = time.monotonic() + 0.001
                for job in jobs:
                    if job.until <= now:
                        job.error = self._busy(error)
                jobs = [job for job in jobs if job.until > now]
            else:
                break
        return jobs

    def _busy(self, error: BaseException | None) -> LedgerUnavailable:
        made = LedgerUnavailable(
            f"the ledger {self.path} can't be used: another writer has held it for too long;"
            " see which: fuser or lsof on it"
        )
        made.__cause__ = error
        return made

    def _trouble(self, error: BaseException) -> BaseException:
        if isinstance(error, WrongSchema | LedgerUnavailable):
            return error
        what = getattr(error, "strerror", None) or str(error)
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        todo = {
            sqlite3.SQLITE_BUSY: "another process has held it for too long",
            sqlite3.SQLITE_FULL: "make room on its disk",
            sqlite3.SQLITE_READONLY: "make it and its folder writable for this user",
            sqlite3.SQLITE_CORRUPT: "restore it from a backup; what it knew is in doubt until then",
            sqlite3.SQLITE_NOTADB: "give another path",
        }.get(code, "make it and its folder readable and writable for this user")
        made = LedgerUnavailable(f"the ledger {self.path} can't be used: {what}; {todo}")
        made.__cause__ = error
        return made

    def create(self) -> None:
        """Make the file and its tables, unless they are there."""
        with self._writer.lock:
            self._writer.close()
            try:
                migrate(self._writer.open(create=True), self.path)
            except (sqlite3.Error, OSError) as error:
                self._writer.close()
                raise self._trouble(error) from error
            except BaseException:
                self._writer.close()
                raise

    def close(self) -> None:
        """Let go of the file and of the threads."""
        for link in (self._writer, self._reader):
            with link.lock:
                link.close()
        pools, self._pools = self._pools, []
        for pool in pools:
            pool.shutdown(wait=False)


# ------------------------------------------------------------------------------------------- fork
# No connection may be open while the process forks: a child that inherits one shares SQLite's idea of
# which locks it holds.

_stores: weakref.WeakSet[SqliteStore] = weakref.WeakSet()
_held: list[tuple[SqliteStore, list[Link]]] = []


def _before_fork() -> None:
    for store in list(_stores):
        taken: list[Link] = []
        for link in (store._writer, store._reader):  # noqa: SLF001
            if link.lock.acquire(timeout=FORK_WAIT_SECONDS):
                link.close()
                taken.append(link)
        _held.append((store, taken))


def _in_parent() -> None:
    for _, links in _held:
        for link in links:
            link.lock.release()
    _held.clear()


def _in_child() -> None:
    for store, links in _held:
        store._begin(lost=len(links) < 2)  # noqa: SLF001
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
