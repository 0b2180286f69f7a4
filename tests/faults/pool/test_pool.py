"""A pool of each library is used up: its user waits and fails as the docs say, and then is served again.

The rows of `## Pool` in docs/reference/faults.md are played here.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx
import psycopg_pool
import pytest
import sqlalchemy

from brownout.errors import ConfigurationError, FaultRefused
from brownout.fault import HoldConnections, Pause, Pool
from brownout.fault import record as records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

PAGE = Path(__file__).parents[3] / "docs/reference/faults.md"
ROW = re.compile(r"^\| `([\w.]+)` \| [^|]* \| `([\w.]+)(?:: ([^`]*))?`[^|]*\|", re.MULTILINE)
ROOM = 3
ALL = HoldConnections(count=ROOM)
USED_UP = (
    TimeoutError,
    httpx.PoolTimeout,
    psycopg_pool.PoolTimeout,
    sqlalchemy.exc.TimeoutError,
)


def rows() -> dict[str, tuple[str, str]]:
    section = PAGE.read_text("utf-8").partition("\n## Pool")[2].partition("\n## ")[0]
    return {name: (error, text) for name, error, text in ROW.findall(section)}


def told(error: BaseException) -> str:
    kind = type(error)
    return (
        kind.__qualname__ if kind.__module__ == "builtins" else f"{_module(kind)}.{kind.__name__}"
    )


def _module(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def as_told(library: str, error: BaseException) -> None:
    name, text = rows()[library]
    assert told(error) == name
    assert text in str(error)


# ------------------------------------------------------------------------------- with threads


@contextmanager
def sqlalchemy_engine(database: str, web: str) -> Iterator[tuple[Any, Callable[[], object]]]:
    host = re.findall("host=([^ ]+)", database)[0]
    engine = sqlalchemy.create_engine(
        f"postgresql+psycopg://postgres@/postgres?host={host}",
        pool_size=ROOM,
        max_overflow=0,
        pool_timeout=0.2,
    )

    def use() -> object:
        with engine.connect() as connection:
            return connection.execute(sqlalchemy.text("SELECT 1")).scalar()

    yield engine, use
    engine.dispose()


@contextmanager
def psycopg_connection_pool(database: str, web: str) -> Iterator[tuple[Any, Callable[[], object]]]:
    with psycopg_pool.ConnectionPool(
        database, min_size=1, max_size=ROOM, timeout=0.2, open=True
    ) as pool:

        def use() -> object:
            with pool.connection() as connection:
                return connection.execute("SELECT 1").fetchone()

        yield pool, use


@contextmanager
def httpx_client(database: str, web: str) -> Iterator[tuple[Any, Callable[[], object]]]:
    limits = httpx.Limits(max_connections=ROOM)
    timeout = httpx.Timeout(5, pool=0.2)
    with httpx.Client(limits=limits, timeout=timeout, trust_env=False) as client:
        yield client, lambda: client.get(web).raise_for_status()


THREADS = {
    "sqlalchemy.Engine": sqlalchemy_engine,
    "psycopg_pool.ConnectionPool": psycopg_connection_pool,
    "httpx.Client": httpx_client,
}


@pytest.fixture(params=THREADS)
def used(
    request: pytest.FixtureRequest, database: str, web: str
) -> Iterator[tuple[str, Any, Callable[[], object]]]:
    """The library's name, a pool of it, and a use of it that needs one connection."""
    with THREADS[request.param](database, web) as (pool, use):
        use()
        yield request.param, pool, use


def test_who_asks_is_refused_and_then_is_served(
    used: tuple[str, Any, Callable[[], object]],
) -> None:
    library, pool, use = used
    with Pool(pool, target="database").make(ALL) as made:
        (record,) = records.read(made.folder).records[-1:]
        assert (record.kind, record.target, record.inside) == ("hold_connections", "database", True)
        began = time.monotonic()
        with pytest.raises(USED_UP) as caught:
            use()
        assert time.monotonic() - began >= 0.19
        as_told(library, caught.value)
    for _ in range(2 * ROOM):
        assert use()


def test_what_is_left_serves(used: tuple[str, Any, Callable[[], object]]) -> None:
    _, pool, use = used
    with Pool(pool).make(HoldConnections(count=ROOM - 1)):
        assert use()
        with pytest.raises(USED_UP), Pool(pool).make(HoldConnections(count=1)):
            use()
        assert use()


def test_it_waits_as_long_as_it_may_and_is_served_at_the_undo(database: str) -> None:
    with psycopg_pool.ConnectionPool(database, min_size=1, max_size=1, open=True) as pool:
        got: list[object] = []

        def ask() -> None:
            with pool.connection(timeout=30) as connection:
                got.append(connection.execute("SELECT 1").fetchone())

        made = Pool(pool).make(HoldConnections(count=1))
        waiting = threading.Thread(target=ask)
        waiting.start()
        time.sleep(0.2)
        assert not got
        made.undo()
        waiting.join(10)
        assert got == [(1,)]


def test_more_than_it_has_is_refused_and_nothing_kept(
    used: tuple[str, Any, Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, pool, use = used
    monkeypatch.setattr("brownout.fault.pool.place.TAKE_SECONDS", 0.5)
    monkeypatch.setattr("brownout.fault.pool.slots.TAKE_SECONDS", 0.5)
    with pytest.raises(
        FaultRefused, match=f"gave {ROOM} of 9 connections.*it has fewer, or they are"
    ):
        Pool(pool).make(HoldConnections(count=9))
    assert use()
    with Pool(pool).make(ALL):
        pass
    assert use()


def test_it_ends_after_its_time(used: tuple[str, Any, Callable[[], object]]) -> None:
    _, pool, use = used
    made = Pool(pool).make(ALL, seconds=0.3)
    end = time.monotonic() + 10
    while made.active:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert use()


def test_a_pool_that_is_closed_holds_nothing(database: str) -> None:
    with psycopg_pool.ConnectionPool(database, min_size=1, max_size=2, open=True) as pool:
        made = Pool(pool).make(HoldConnections(count=2))
        pool.close()
        made.undo()
        assert not made.active


# ---------------------------------------------------------------------------------- with asyncio


@asynccontextmanager
async def asyncpg_pool(database: str, web: str) -> AsyncIterator[tuple[Any, Callable[[], Any]]]:
    host = re.findall("host=([^ ]+)", database)[0]
    async with asyncpg.create_pool(
        host=host, user="postgres", database="postgres", min_size=1, max_size=ROOM
    ) as pool:

        async def use() -> object:
            async with pool.acquire(timeout=0.2) as connection:
                return await connection.fetchval("SELECT 1")

        yield pool, use


@asynccontextmanager
async def psycopg_async_pool(
    database: str, web: str
) -> AsyncIterator[tuple[Any, Callable[[], Any]]]:
    async with psycopg_pool.AsyncConnectionPool(
        database, min_size=1, max_size=ROOM, timeout=0.2, open=False
    ) as pool:

        async def use() -> object:
            async with pool.connection() as connection:
                return await (await connection.execute("SELECT 1")).fetchone()

        yield pool, use


@asynccontextmanager
async def httpx_async_client(
    database: str, web: str
) -> AsyncIterator[tuple[Any, Callable[[], Any]]]:
    limits = httpx.Limits(max_connections=ROOM)
    timeout = httpx.Timeout(5, pool=0.2)
    async with httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False) as client:

        async def use() -> object:
            return (await client.get(web)).raise_for_status()

        yield client, use


LOOPS = {
    "asyncpg.Pool": asyncpg_pool,
    "psycopg_pool.AsyncConnectionPool": psycopg_async_pool,
    "httpx.AsyncClient": httpx_async_client,
}


@pytest.mark.parametrize("library", LOOPS)
def test_on_a_loop(library: str, database: str, web: str) -> None:
    async def main() -> None:
        async with LOOPS[library](database, web) as (pool, use):
            await use()
            fault = Pool(pool).make(ALL)
            with pytest.raises(FaultRefused, match="Enter it by `async with`"):
                fault.make()
            async with fault as made:
                with pytest.raises(USED_UP) as caught:
                    await use()
                as_told(library, caught.value)
                with pytest.raises(FaultRefused, match="Enter it by `async with`"):
                    made.undo()
            for _ in range(2 * ROOM):
                assert await use()

    asyncio.run(main())


@pytest.mark.parametrize("library", LOOPS)
def test_on_a_loop_it_ends_after_its_time(library: str, database: str, web: str) -> None:
    async def main() -> None:
        async with LOOPS[library](database, web) as (pool, use):
            made = await Pool(pool).make(ALL, seconds=0.3).__aenter__()
            while made.active:  # noqa: ASYNC110  a thread undoes it
                await asyncio.sleep(0.02)
            assert await use()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_off_its_loop() -> None:
    client = httpx.AsyncClient()
    with pytest.raises(ConfigurationError, match="make the fault on the loop that uses it"):
        Pool(client).make(ALL)
    asyncio.run(client.aclose())


# ------------------------------------------------------------------------------------ what is none


def test_an_unknown_pool() -> None:
    with pytest.raises(
        ConfigurationError, match=r"dict: no pool that is known; those are sqlalchemy\.Engine"
    ):
        Pool({}).make(ALL)


def test_a_pool_without_a_limit(tmp_path: Path) -> None:
    engine = sqlalchemy.create_engine(
        f"sqlite:///{tmp_path / 'a.db'}", poolclass=sqlalchemy.pool.NullPool
    )
    with pytest.raises(ConfigurationError, match="NullPool has no limit"):
        Pool(engine).make(ALL)
    engine.dispose()


def test_another_kind() -> None:
    with pytest.raises(ConfigurationError, match="the one fault of a pool is HoldConnections"):
        Pool({}).make(Pause())


@pytest.mark.parametrize("count", [0, -1, 10_001])
def test_a_count(count: int) -> None:
    with pytest.raises(ConfigurationError, match=f"count={count} is from 1 to 10000"):
        HoldConnections(count=count)


def test_every_row_is_played() -> None:
    assert set(rows()) == {*THREADS, *LOOPS}
