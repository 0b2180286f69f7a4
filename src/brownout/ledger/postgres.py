"""A ledger in PostgreSQL, by psycopg 3: processes everywhere share it, and so may the business's tables.

Each operation is one statement, or one and a look; none needs a transaction of its own. The server's
clock is the only one. A connection that has broken is replaced once: an operation that is sent again
knows its own row by its fence. A promoted standby may have forgotten rows; its timeline tells.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from brownout.errors import ConfigurationError, LedgerError, LedgerUnavailable, WrongSchema
from brownout.ledger.connections import percent
from brownout.ledger.sql import ABOUT, SCHEMA, Statements, tables

try:
    import psycopg
except ImportError as missing:
    raise ConfigurationError(
        "a ledger in PostgreSQL needs psycopg 3: pip install 'psycopg[binary]'"
    ) from missing

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from brownout._core.ledger import Row, Seen

T = TypeVar("T")

MOST_CONNECTIONS = 10
WAIT_SECONDS = 5.0  # for a connection, for connecting, and for a lock
ANSWER_SECONDS = 15.0  # a server that says nothing for so long is not there
CLOCK = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
_TIMELINE = "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
STATEMENTS = Statements(CLOCK, _TIMELINE)
_GREET: Any = f"""SELECT version, epoch, {_TIMELINE},
  set_config('lock_timeout', '{WAIT_SECONDS * 1000:.0f}', false),
  CASE WHEN current_setting('synchronous_commit') = 'off'
    THEN set_config('synchronous_commit', 'on', false) END FROM brownout_ledger_about"""
_LOCK_WAIT = "SELECT set_config('lock_timeout', :wait, false)"
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(7093842213)"
_IDLE = psycopg.pq.TransactionStatus.IDLE


class _Locked(Exception):
    """A transaction that holds the key has not ended in time."""


class _Broken(Exception):
    """The connection is of no use any more."""


class _Connection(psycopg.Connection[Any]):
    """One that gives up on a server that says nothing."""

    def __del__(self, *_: Any) -> None:
        """Nothing to warn of: libpq's own connection is closed, in the process that has made it."""

    def wait(self, gen: Any, *args: Any, **named: Any) -> Any:
        return super().wait(_until(gen, monotonic() + ANSWER_SECONDS), *args, **named)


class _AsyncConnection(psycopg.AsyncConnection[Any]):
    """One that may be let go of with its loop."""

    def __del__(self, *_: Any) -> None:
        """As above."""


def _until(gen: Any, end: float) -> Generator[Any, Any, Any]:
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and monotonic() > end:
                raise psycopg.OperationalError(f"the server said nothing for {ANSWER_SECONDS:g} s")
            wanted = gen.send(ready)
    except StopIteration as ended:
        return ended.value


class _Pool:
    """Connections that nobody uses now, and how many more there may be: of threads, or of one loop."""

    def __init__(self, free: Any) -> None:
        self.free = free  # a semaphore
        self.idle: list[Any] = []
        self.waits: dict[Any, float] = weakref.WeakKeyDictionary()  # type: ignore[assignment]


class PostgresStore(Statements):
    """Rows in the PostgreSQL database that `url` names.

    `now`, for tests, is a clock in place of the server's, in seconds since 1970.
    """

    atomic = True

    def __init__(self, url: str, *, now: Callable[[], float] | None = None) -> None:
        super().__init__(CLOCK if now is None else "CAST(:now AS bigint)")
        self.url = url
        self._now = now
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._threads = _Pool(threading.BoundedSemaphore(MOST_CONNECTIONS))
        self._loops: weakref.WeakKeyDictionary[Any, _Pool] = weakref.WeakKeyDictionary()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            self._begin()  # libpq closes nothing that is the parent's

    # ------------------------------------------------------------------------------- operations

    def put(
        self, row: Row, born: int, *, lease: int, age: int, lost: bool, wait: float
    ) -> Generator[Any, Any, Seen]:
        """Put a row where there is none; wait for a transaction that has put one."""
        yield _LOCK_WAIT, {"wait": f"{max(1, int(min(wait, ANSWER_SECONDS / 2) * 1000))}"}
        try:
            return (yield from super().put(row, born, lease=lease, age=age, lost=lost, wait=wait))
        except _Locked:
            seen = yield from self.get(row.scope, row.key)
            return seen._replace(waited=seen.row is None)

    def _steps(self, pool: _Pool, op: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        """What both runners do: `(None, None)` asks for a new connection, else for a statement."""
        connection: Any = None
        again = True
        try:
            what = next(op)
            while True:
                text, asked = what
                try:
                    if connection is None:
                        connection = pool.idle.pop() if pool.idle else (yield None, None)
                    if text is _LOCK_WAIT and pool.waits.get(connection) == asked["wait"]:
                        told: Any = []
                    else:
                        told = yield connection, (text, self._timed(asked))
                    if text is _LOCK_WAIT:
                        pool.waits[connection] = asked["wait"]
                except _Broken as error:
                    self._drop(connection)
                    connection = None
                    if not again:
                        raise self._unavailable(error.__cause__ or error) from error.__cause__
                    again = False
                    pool.idle.clear()  # they broke together
                except Exception as error:
                    what = op.throw(error)
                else:
                    what = op.send(told)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            if connection is not None:
                if connection.closed or connection.info.transaction_status != _IDLE:
                    self._drop(connection)
                else:
                    pool.idle.append(connection)

    def _timed(self, asked: dict[str, Any]) -> dict[str, Any]:
        return asked if self._now is None else {**asked, "now": int(self._now() * 1000)}

    @staticmethod
    def _drop(connection: Any) -> None:
        if connection is not None:
            connection.pgconn.finish()

    def _unavailable(self, error: BaseException) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"the ledger in PostgreSQL can't be used: {_said(error)}; see that the server runs, can be"
            " reached, and may be written"
        )

    # ------------------------------------------------------------------------------- by threads

    def run(self, op: Generator[Any, Any, T]) -> T:
        """Carry an operation out."""
        self._check_process()
        pool = self._threads
        if not pool.free.acquire(timeout=WAIT_SECONDS):
            raise self._full()
        steps = self._steps(pool, op)
        try:
            wanted = next(steps)
            while True:
                try:
                    with self._meant(wanted[0]):
                        told = self._do(wanted)
                except Exception as error:
                    wanted = steps.throw(error)
                else:
                    wanted = steps.send(told)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            steps.close()
            pool.free.release()

    def _do(self, wanted: Any) -> Any:
        connection, statement = wanted
        if connection is not None:
            return _fetched(connection.execute(_percent(statement[0]), statement[1]))
        made = _Connection.connect(self.url, autocommit=True, connect_timeout=int(WAIT_SECONDS))
        try:
            late = self._greeted(made.execute(_GREET).fetchone())
            if late is not None:
                made.execute(_percent(self.epoch_text), self._timed(late))
        except BaseException:
            self._drop(made)
            raise
        return made

    # ------------------------------------------------------------------------------- by asyncio

    async def arun(self, op: Generator[Any, Any, T]) -> T:
        """Carry an operation out."""
        self._check_process()
        loop = asyncio.get_running_loop()
        pool = self._loops.get(loop)
        if pool is None:
            pool = self._loops[loop] = _Pool(asyncio.Semaphore(MOST_CONNECTIONS))
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await pool.free.acquire()
        except TimeoutError:
            raise self._full() from None
        steps = self._steps(pool, op)
        try:
            wanted = next(steps)
            while True:
                try:
                    with self._meant(wanted[0]):
                        async with asyncio.timeout(ANSWER_SECONDS):
                            told = await self._ado(wanted)
                except Exception as error:
                    wanted = steps.throw(error)
                else:
                    wanted = steps.send(told)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            steps.close()
            pool.free.release()

    async def _ado(self, wanted: Any) -> Any:
        connection, statement = wanted
        if connection is not None:
            cursor = await connection.execute(_percent(statement[0]), statement[1])
            return await cursor.fetchall() if cursor.description else []
        made = await _AsyncConnection.connect(
            self.url, autocommit=True, connect_timeout=int(WAIT_SECONDS)
        )
        try:
            greeting = await made.execute(_GREET)
            late = self._greeted(await greeting.fetchone())
            if late is not None:
                await made.execute(_percent(self.epoch_text), self._timed(late))
        except BaseException:
            self._drop(made)
            raise
        return made

    # ---------------------------------------------------------------------------------- meaning

    def _greeted(self, row: Any) -> dict[str, Any] | None:
        """What must be said to a server of another timeline than the last one. Raises WrongSchema."""
        if row is None:
            raise WrongSchema(
                "the ledger's tables in PostgreSQL are empty; call Ledger.create() once"
            )
        _check(row[0])
        return {"epoch": row[2]} if row[1] != row[2] else None

    @contextmanager
    def _meant(self, connection: Any) -> Generator[None]:
        """Raise what a failure means."""
        try:
            yield
        except LedgerError:
            raise
        except psycopg.errors.LockNotAvailable as error:
            raise _Locked from error
        except psycopg.errors.UndefinedTable as error:
            raise WrongSchema(
                "the ledger's tables are not in this PostgreSQL database; call Ledger.create() once"
            ) from error
        except (psycopg.Error, OSError, TimeoutError) as error:
            if connection is not None and connection.closed:
                raise _Broken from error
            raise self._unavailable(error) from error

    def _full(self) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"all {MOST_CONNECTIONS} connections to the ledger were busy for {WAIT_SECONDS:g} s;"
            " let fewer callers in at once"
        )

    def create(self) -> None:
        """Make the tables, unless they are there."""
        with (
            self._meant(None),
            psycopg.connect(self.url, connect_timeout=int(WAIT_SECONDS)) as connection,
        ):
            connection.execute(_ONE_AT_A_TIME)
            found = connection.execute("SELECT to_regclass('brownout_ledger_about')").fetchone()
            if found is None or found[0] is None:
                for text in tables(blob="bytea", whole="bigint", tail=" WITH (fillfactor = 70)"):
                    connection.execute(_percent(text))
            version = connection.execute(_percent(ABOUT)).fetchone()
            _check(version[0] if version else 0)

    def close(self) -> None:
        """Let go of the connections that nobody uses now."""
        self._check_process()
        for pool in (self._threads, *self._loops.values()):
            while pool.idle:
                self._drop(pool.idle.pop())


def _check(version: int) -> None:
    if version != SCHEMA:
        todo = (
            "upgrade brownout here" if version > SCHEMA else "call Ledger.create(), which migrates"
        )
        raise WrongSchema(
            f"the ledger in PostgreSQL has schema {version}, this brownout works with {SCHEMA}; {todo}"
        )


def _fetched(cursor: Any) -> list[Any]:
    return cursor.fetchall() if cursor.description else []


def _said(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


_texts: dict[str, Any] = {}


def _percent(text: str) -> Any:
    """The statement as psycopg wants it; there are few of them."""
    found = _texts.get(text)
    if found is None:
        found = _texts[text] = percent(text)
    return found
