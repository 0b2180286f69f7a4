"""Drivers of PostgreSQL: where a transaction was lost, what its exception says, and what was committed."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest
import sqlalchemy as sa
from psycopg_pool import ConnectionPool
from sqlalchemy.ext.asyncio import create_async_engine

from brownout import Certainty, OutcomeClass, Shown
from brownout.ext import asyncpg as ext_asyncpg
from brownout.ext import psycopg as ext_psycopg
from brownout.ext import sqlalchemy as ext_sqlalchemy
from brownout.fault import Cut, Drop
from tests.ext.clients.conftest import free_port
from tests.ext.clients.matrix import Trial, check, proxied, together, tried, until

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 2.0  # for the guard; the driver's own is half of it
STATEMENT = "(?s).*mark-"
COMMIT = "(?s).*COMMIT"
_values = count()


class Work(NamedTuple):
    """What one call is to do: at a port, each text in order, in one transaction or each alone."""

    port: int
    texts: tuple[str, ...]
    alone: bool = False
    user: str = "postgres"
    connect_seconds: int = 8
    seconds: float = 8.0


def psycopg_sync(work: Work) -> None:
    connection = ext_psycopg.Connection.connect(
        host="127.0.0.1", port=work.port, user=work.user, dbname="postgres", autocommit=work.alone,
        connect_timeout=work.connect_seconds, sslmode="disable", gssencmode="disable",
    )  # fmt: skip
    with closing(connection), connection:  # its own block leaves it open where the COMMIT fails
        for text in work.texts:
            connection.execute(text)


async def psycopg_async(work: Work) -> None:
    connection = await ext_psycopg.AsyncConnection.connect(
        host="127.0.0.1", port=work.port, user=work.user, dbname="postgres", autocommit=work.alone,
        connect_timeout=work.connect_seconds, sslmode="disable", gssencmode="disable",
    )  # fmt: skip
    try:
        async with connection:
            for text in work.texts:
                await connection.execute(text)
    finally:
        await connection.close()


async def with_asyncpg(work: Work) -> None:
    connection = await ext_asyncpg.connect(
        host="127.0.0.1", port=work.port, user=work.user, database="postgres", ssl=False,
        timeout=work.connect_seconds, command_timeout=work.seconds,
    )  # fmt: skip
    try:
        if work.alone:
            for text in work.texts:
                await connection.execute(text)
        else:
            async with connection.transaction():
                for text in work.texts:
                    await connection.execute(text)
    finally:
        connection.terminate()


def sqlalchemy_psycopg(work: Work) -> None:
    url = f"postgresql+psycopg://{work.user}@127.0.0.1:{work.port}/postgres?sslmode=disable&gssencmode=disable&connect_timeout={work.connect_seconds}"
    more: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"} if work.alone else {}
    engine = ext_sqlalchemy.watch(sa.create_engine(url, **more))
    try:
        with engine.connect() as connection:
            for text in work.texts:
                connection.exec_driver_sql(text)
            connection.commit()
    finally:
        engine.dispose()


async def sqlalchemy_asyncpg(work: Work) -> None:
    url = f"postgresql+asyncpg://{work.user}@127.0.0.1:{work.port}/postgres"
    given = {"ssl": False, "timeout": work.connect_seconds, "command_timeout": work.seconds}
    more: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"} if work.alone else {}
    engine = ext_sqlalchemy.watch(create_async_engine(url, connect_args=given, **more))
    try:
        async with engine.connect() as connection:
            for text in work.texts:
                await connection.exec_driver_sql(text)
            await connection.commit()
    finally:
        with suppress(Exception):
            await asyncio.wait_for(engine.dispose(), 1)


CLIENTS: dict[str, Callable[[Work], Any]] = {
    "psycopg": psycopg_sync,
    "psycopg, async": psycopg_async,
    "asyncpg": with_asyncpg,
    "SQLAlchemy, psycopg": sqlalchemy_psycopg,
    "SQLAlchemy, asyncpg": sqlalchemy_asyncpg,
}


@pytest.fixture(scope="module")
def truth(database: str) -> Iterator[psycopg.Connection[Any]]:
    host, _, port = database.partition(":")
    with psycopg.connect(host=host, port=int(port), user="postgres", autocommit=True) as connection:
        connection.execute("create table t (v text unique deferrable initially immediate)")
        connection.execute("insert into t values ('taken')")
        connection.execute("create role full_up login connection limit 0")
        yield connection


class Stage:
    """A trial's own value, and its proxy before the server."""

    def __init__(self, database: str, truth: psycopg.Connection[Any]) -> None:
        self.database = database
        self.port = int(database.rpartition(":")[2])
        self._truth = truth

    def committed(self, value: str) -> int:
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", autocommit=True
        ) as one:
            row = one.execute("select count(*) from t where v like %s", (value + "%",)).fetchone()
        assert row is not None
        return int(row[0])

    def kill(self, value: str) -> None:
        """End the session whose last statement says so."""
        like = "select pid from pg_stat_activity where application_name = %s"
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", autocommit=True
        ) as one:
            until(lambda: bool(one.execute(like, (value,)).fetchall()))
            waits = like + " and wait_event in ('SyncRep', 'PgSleep')"
            assert until(lambda: bool(one.execute(waits, (value,)).fetchall()))
            one.execute(f"select pg_terminate_backend(pid) from ({like}) as x", (value,))


Play = Callable[["Stage", str, Callable[[Work], Any]], Trial]


def calling(write: Callable[[Work], Any], *works: Work) -> Callable[[], Any]:
    """All the work as one guarded function of the client's own colour."""
    if inspect.iscoroutinefunction(write):

        async def call() -> None:
            for work in works:
                await write(work)

        return call

    def call_sync() -> None:
        for work in works:
            write(work)

    return call_sync


def insert(value: str) -> str:
    return f"insert into t values ('mark-{value}')"


def under(
    fault: Any, *, alone: bool = False, connect: int = 8, seconds: float | None = None
) -> Play:
    """One insert through a proxy that makes the fault."""

    def play(stage: Stage, value: str, write: Any) -> Trial:
        with proxied(stage.database, fault) as port:
            own = 8.0 if seconds is None else seconds / 2
            work = Work(port, (insert(value),), alone, "postgres", connect, own)
            return tried(calling(write, work), seconds)

    return play


def telling(
    *texts: str, alone: bool = False, user: str = "postgres", port: int | None = None
) -> Play:
    """Texts without a fault of the wire."""

    def play(stage: Stage, value: str, write: Any) -> Trial:
        given = tuple(text.replace("$v", value) for text in texts)
        work = Work(port or stage.port, given, alone, user)
        return tried(calling(write, work))

    return play


def killed(*texts: str) -> Play:
    def play(stage: Stage, value: str, write: Any) -> Trial:
        name = f"set application_name = '{value}'"
        work = Work(stage.port, (name, *(text.replace("$v", value) for text in texts)))
        thread = threading.Thread(target=stage.kill, args=(value,))
        thread.start()
        try:
            return tried(calling(write, work))
        finally:
            thread.join()

    return play


def twice(fault: Any, *, first: Any = None) -> Play:
    """A transaction, and another one that does not come through, in one call."""

    def play(stage: Stage, value: str, write: Any) -> Trial:
        with proxied(stage.database, fault) as through:
            works = (Work(stage.port, (insert(value),)), Work(through, (insert(value + "x"),)))
            return tried(calling(write, *works))

    return play


def again(stage: Stage, value: str, write: Any) -> Trial:
    """The function itself tries again, and is refused: the first COMMIT's reply was lost."""
    with proxied(stage.database, cut("reply", COMMIT)) as port:
        works = Work(port, (insert(value),)), Work(DEAD, ("select 1",))
        if inspect.iscoroutinefunction(write):

            async def call() -> None:
                with suppress(Exception):
                    await write(works[0])
                await write(works[1])

            return tried(call)

        def call_sync() -> None:
            with suppress(Exception):
                write(works[0])
            write(works[1])

        return tried(call_sync)


def cut(at: Any, match: str, how: Any = "reset") -> Cut:
    return Cut(at=at, how=how, per="request", match=match)


def silent(match: str) -> Drop:
    return Drop(stream="downstream", per="request", match=match)


DEAD = free_port()
FAULTS: dict[str, Play] = {
    "refused": telling(insert("$v"), port=DEAD),
    "no answer to connect": under(Drop(), connect=2),
    "too many connections (53300)": telling(insert("$v"), user="full_up"),
    "statement in a transaction: request lost": under(cut("request", STATEMENT)),
    "statement in a transaction: reply lost": under(cut("reply", STATEMENT, "close")),
    "COMMIT: request lost": under(cut("request", COMMIT)),
    "COMMIT: reply lost": under(cut("reply", COMMIT)),
    "COMMIT: reply lost, closed": under(cut("reply", COMMIT, "close")),
    "autocommit: request lost": under(cut("request", STATEMENT), alone=True),
    "autocommit: reply lost": under(cut("reply", STATEMENT), alone=True),
    "silence in a transaction": under(silent(STATEMENT), seconds=SECONDS),
    "silence after COMMIT": under(silent(COMMIT), seconds=SECONDS),
    "unique violation (23505)": telling(insert("$v"), "insert into t values ('taken')"),
    "unique violation at COMMIT": telling(
        "set constraints all deferred", insert("$v"), "insert into t values ('taken')"
    ),
    "autocommit: unique violation": telling("insert into t values ('taken')", alone=True),
    "COMMIT inside a text that fails after it": telling(insert("$v") + "; commit; select 1/0"),
    "autocommit: DO that commits, then fails": telling(
        f"do $$ begin {insert('$v')}; commit; perform 1/0; end $$", alone=True
    ),
    "serialization failure (40001)": telling(
        insert("$v"), "do $$ begin raise exception 'x' using errcode = '40001'; end $$"
    ),
    "completion unknown (40003)": telling(
        insert("$v"), "do $$ begin raise exception 'x' using errcode = '40003'; end $$"
    ),
    "statement time-out (57014)": telling(
        insert("$v"), "set local statement_timeout = 50", "select pg_sleep(2)"
    ),
    "session killed in a transaction (57P01)": killed(insert("$v"), "select pg_sleep(5)"),
    "session killed while COMMIT waits (57P01)": killed(
        "set synchronous_commit = on", insert("$v")
    ),
    "a second transaction lost, the first done": twice(cut("request", STATEMENT)),
    "tried again by the function, and refused": again,
}
NO_TIMER = (
    "psycopg",
    "SQLAlchemy, psycopg",
)  # a thread is not interrupted, and libpq has no time-out


def test_matrix(database: str, truth: psycopg.Connection[Any]) -> None:
    stage = Stage(database, truth)
    cells = [
        (fault, client)
        for fault in FAULTS
        for client in CLIENTS
        if not (fault.startswith("silence") and client in NO_TIMER)
    ]

    def trial(fault: str, client: str) -> tuple[Trial, int]:
        value = f"v{next(_values)}-"
        found = FAULTS[fault](stage, value, CLIENTS[client])
        return found, stage.committed(f"mark-{value}")

    order = list(cells)
    cells.sort(key=lambda cell: not cell[0].startswith("silence"))  # they take longest
    results = together([partial(trial, *cell) for cell in cells])
    by_cell = dict(zip(cells, results, strict=True))
    found = {cell: by_cell[cell] for cell in order}
    check("PostgreSQL", found)


# --------------------------------------------------------------------- what the wire has no part in


def shown_by(classify: Any, call: Callable[[], Any]) -> Shown:
    with pytest.raises(Exception) as caught:
        call()
    shown = classify(caught.value)
    assert isinstance(shown, Shown)
    return shown


def test_an_empty_pool_is_no_evidence_against_the_database(database: str) -> None:
    host, _, port = database.partition(":")
    dsn = f"host={host} port={port} user=postgres dbname=postgres"
    with (
        ConnectionPool(
            dsn, connection_class=ext_psycopg.Connection, min_size=1, max_size=1, open=True
        ) as pool,
        pool.connection(),
    ):
        empty = shown_by(ext_psycopg.classify, lambda: pool.getconn(timeout=0.05))
    assert empty == Shown.of(OutcomeClass.LOCAL)
    engine = sa.create_engine(
        f"postgresql+psycopg://postgres@{database}/postgres",
        pool_size=1,
        max_overflow=0,
        pool_timeout=0.05,
    )
    with engine.connect():
        empty = shown_by(ext_sqlalchemy.classify, engine.connect)
    engine.dispose()
    assert empty == Shown.of(OutcomeClass.LOCAL)


async def asyncpg_pool_empty(database: str) -> Shown | None:
    host, _, port = database.partition(":")
    given = {"host": host, "port": int(port), "user": "postgres", "database": "postgres"}
    pool = ext_asyncpg.create_pool(min_size=1, max_size=1, ssl=False, **given)
    async with pool, pool.acquire() as connection:
        assert isinstance(connection._con, ext_asyncpg.Connection)
        try:
            await pool.acquire(timeout=0.05)
        except TimeoutError as error:
            return ext_asyncpg.classify(error)
    return None


def test_an_empty_pool_of_asyncpg_is_no_evidence_either(database: str) -> None:
    assert asyncio.run(asyncpg_pool_empty(database)) == Shown.of(OutcomeClass.LOCAL)


def test_a_connection_that_is_not_watched_tells_only_what_the_server_said(database: str) -> None:
    host, _, port = database.partition(":")
    with psycopg.connect(host=host, port=int(port), user="postgres", autocommit=True) as plain:
        answered = shown_by(ext_psycopg.classify, lambda: plain.execute("select 1/0"))
        assert answered == Shown.of(OutcomeClass.SUCCESS)
        pid = plain.info.backend_pid
        with psycopg.connect(host=host, port=int(port), user="postgres", autocommit=True) as other:
            other.execute("select pg_terminate_backend(%s)", (pid,))
        killed = shown_by(ext_psycopg.classify, lambda: plain.execute("select 1"))
        assert killed.certainty is Certainty.UNKNOWN
        assert shown_by(ext_psycopg.classify, lambda: plain.execute("select 1")).certainty is (
            Certainty.UNKNOWN
        )


def test_what_is_no_error_of_the_driver_is_not_its_to_judge() -> None:
    for classify in (ext_psycopg.classify, ext_asyncpg.classify, ext_sqlalchemy.classify):
        assert classify(ValueError("x")) is None


def test_an_engine_is_watched_once_and_nothing_else_is(database: str) -> None:
    engine = sa.create_engine(f"postgresql+psycopg://postgres@{database}/postgres")
    assert ext_sqlalchemy.watch(ext_sqlalchemy.watch(engine)) is engine
    with pytest.raises(TypeError, match="Engine"):
        ext_sqlalchemy.watch("postgresql://")
    engine.dispose()


def test_a_read_alone_leaves_a_later_failure_certain(database: str) -> None:
    """And a write alone does not."""
    host, _, port = database.partition(":")
    with ext_psycopg.Connection.connect(
        host=host, port=int(port), user="postgres", autocommit=True
    ) as connection:

        def call(first: str) -> None:
            connection.execute(first)
            connection.execute("select 1/0")

        read = tried(lambda: call("select count(*) from t"))
        written = tried(lambda: call("insert into t values ('alone')"))
    assert (read.verdict, written.verdict) == ("failed", "unknown")
