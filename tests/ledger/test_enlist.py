"""The ledger's row in the handler's own transaction, through every kind of connection."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg_pool
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from brownout.errors import (
    AlreadyTaken,
    ConfigurationError,
    NotEnlisted,
    OtherPayload,
    StillRunning,
)
from brownout.ledger import Claim, Ledger, Reply, Standing
from tests.ledger.conftest import key, postgres_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.ledger.conftest import Now
    from tests.ledger.servers import PostgresServer

INSERT = "INSERT INTO biz VALUES ('paid')"
LOCK_SECONDS = 0.2


class Place:
    """A database with the ledger and the business in it, and the count of business rows."""

    def __init__(self, url: str, count: Callable[[], int]) -> None:
        self.url = url
        self.ledger = Ledger(url, scope="pay")
        self.ledger.create()
        self.count = count


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Place]:
    path = tmp_path / "shop.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE biz (k text)")

        def count() -> int:
            return int(connection.execute("SELECT count(*) FROM biz").fetchone()[0])

        place = Place(f"sqlite:///{path}", count)
        yield place
        place.ledger.close()


@pytest.fixture
def server(postgres: PostgresServer) -> Iterator[Place]:
    with psycopg.connect(postgres_url(postgres), autocommit=True) as connection:

        def count() -> int:
            found = connection.execute("SELECT count(*) FROM biz").fetchone()
            assert found is not None
            return int(found[0])

        place = Place(postgres.url, count)
        yield place
        place.ledger.close()


@contextlib.contextmanager
def by_sqlite(place: Place, *, isolation: Any = "DEFERRED") -> Iterator[Any]:
    path = place.url.removeprefix("sqlite:///")
    with contextlib.closing(
        sqlite3.connect(path, isolation_level=isolation, check_same_thread=False)
    ) as connection:

        def pay(fail: bool = False) -> str:
            with connection:
                place.ledger.enlist(connection)
                connection.execute(INSERT)
                if fail:
                    raise KeyError("no money")
                if isolation is None:
                    connection.execute("COMMIT")
            return "ok"

        yield pay


@contextlib.contextmanager
def by_psycopg(place: Place, *, autocommit: bool = False) -> Iterator[Any]:
    with psycopg.connect(place.url, autocommit=autocommit) as connection:

        def pay(fail: bool = False) -> str:
            with connection.transaction():
                place.ledger.enlist(connection)
                connection.execute(INSERT)
                if fail:
                    raise KeyError("no money")
            return "ok"

        yield pay


@contextlib.contextmanager
def by_pool(place: Place) -> Iterator[Any]:
    with psycopg_pool.ConnectionPool(place.url, min_size=1, open=True) as pool:

        def pay(fail: bool = False) -> str:
            with pool.connection() as connection:
                place.ledger.enlist(connection)
                connection.execute(INSERT)
                if fail:
                    raise KeyError("no money")
            return "ok"

        yield pay


def engine_url(place: Place, driver: str = "") -> str:
    if place.url.startswith("sqlite"):
        return place.url
    return f"postgresql+{driver or 'psycopg'}://postgres@/postgres?host={place.url.partition('host=')[2]}"


@contextlib.contextmanager
def by_session(place: Place) -> Iterator[Any]:
    engine = sqlalchemy.create_engine(engine_url(place))

    def pay(fail: bool = False) -> str:
        with Session(engine) as session, session.begin():
            place.ledger.enlist(session)
            session.execute(sqlalchemy.text(INSERT))
            if fail:
                raise KeyError("no money")
        return "ok"

    yield pay
    engine.dispose()


@contextlib.contextmanager
def by_engine(place: Place) -> Iterator[Any]:
    engine = sqlalchemy.create_engine(engine_url(place))

    def pay(fail: bool = False) -> str:
        with engine.begin() as connection:
            place.ledger.enlist(connection)
            connection.execute(sqlalchemy.text(INSERT))
            if fail:
                raise KeyError("no money")
        return "ok"

    yield pay
    engine.dispose()


WAYS: dict[str, tuple[str, Callable[[Place], Any]]] = {
    "sqlite3": ("lite", by_sqlite),
    "sqlite3 in autocommit": ("lite", lambda place: by_sqlite(place, isolation=None)),
    "a session over sqlite": ("lite", by_session),
    "psycopg": ("server", by_psycopg),
    "psycopg in autocommit": ("server", lambda place: by_psycopg(place, autocommit=True)),
    "a pool's connection": ("server", by_pool),
    "a session": ("server", by_session),
    "an engine's connection": ("server", by_engine),
}


@pytest.mark.parametrize("way", WAYS)
def test_effect_and_row_are_one_commit(way: str, request: pytest.FixtureRequest, now: Now) -> None:
    fixture, opening = WAYS[way]
    place: Place = request.getfixturevalue(fixture)
    calls: list[str] = []
    with opening(place) as pay:

        @place.ledger.once("atomic", key="key", payload=lambda key, amount, **_: amount)
        def job(key: str, amount: int, fail: bool = False) -> str:
            calls.append(key)
            return f"{pay(fail)} {amount} {len(calls)}"

        name = key(now())
        with pytest.raises(KeyError):
            job(name, 5, fail=True)
        assert place.count() == 0
        assert place.ledger.ask(name, void=False).standing is Standing.ABSENT
        assert job(name, 5) == "ok 5 2"
        assert job(name, 5) == "ok 5 2"
        assert place.count() == 1
        with pytest.raises(OtherPayload):
            job(name, 6)
        assert len(calls) == 2


@pytest.mark.parametrize("way", WAYS)
def test_of_two_at_once_one_commits_and_the_other_is_told(
    way: str, request: pytest.FixtureRequest, now: Now
) -> None:
    """Both were let to run, since a row comes only with a commit: the primary key decides."""
    fixture, opening = WAYS[way]
    place: Place = request.getfixturevalue(fixture)
    both = threading.Barrier(2)
    told: list[str] = []
    name = key(now())

    def attempt(who: str) -> None:
        with opening(place) as pay:

            @place.ledger.once("atomic")
            def job(key: str) -> str:
                with contextlib.suppress(threading.BrokenBarrierError):
                    both.wait(5)
                pay()
                return who

            told.append(job(name))

    threads = [threading.Thread(target=attempt, args=(who,)) for who in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert place.count() == 1
    assert told in (["a", "a"], ["b", "b"])


def acquired(place: Place, name: str) -> Claim:
    claim = place.ledger.claim(name, b"", "atomic")
    assert isinstance(claim, Claim)
    return claim


def test_a_failed_enlisting_poisons_the_transaction(server: Place, now: Now) -> None:
    """Whatever the handler does with the exception: its transaction can't be committed."""
    name = key(now())
    server.ledger.ask(name, void=True)
    claim = Claim("pay", name, b"", acquired(server, key(now())).handler, 7, 1.0)
    with server.ledger.running(claim), psycopg.connect(server.url) as connection:
        with pytest.raises(AlreadyTaken, match="rolled back"):
            server.ledger.enlist(connection)
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute(INSERT)
        connection.commit()
    assert server.count() == 0


def test_a_void_waits_for_a_transaction_that_commits(server: Place, now: Now) -> None:
    name = key(now())
    claim = acquired(server, name)
    with psycopg.connect(server.url) as connection:
        with server.ledger.running(claim):
            server.ledger.enlist(connection)
        assert server.ledger.ask(name, void=False).standing is Standing.ABSENT  # and no fact
        short = server.ledger.ask(name, void=True, seconds=0.05)
        assert (short.standing, short.fact) == (Standing.RUNNING, False)
        assert "not ended" in short.because
        timer = threading.Timer(LOCK_SECONDS, connection.commit)
        timer.start()
        answer = server.ledger.ask(name, void=True, seconds=5)
        timer.join()
    assert answer.standing is Standing.DONE
    assert server.ledger.complete(claim, Reply(201)) == Reply(201)
    assert server.ledger.ask(name, void=True).reply == Reply(201)


def test_a_void_waits_for_a_transaction_that_is_rolled_back(server: Place, now: Now) -> None:
    name = key(now())
    claim = acquired(server, name)
    with psycopg.connect(server.url) as connection:
        with server.ledger.running(claim):
            server.ledger.enlist(connection)
        timer = threading.Timer(LOCK_SECONDS, connection.rollback)
        timer.start()
        answer = asyncio.run(server.ledger.aask(name, void=True, seconds=5))
        timer.join()
        assert answer.standing is Standing.VOID
        with server.ledger.running(claim), pytest.raises(AlreadyTaken):
            server.ledger.enlist(connection)


def test_whoever_waits_gives_up_when_the_database_does(server: Place, now: Now) -> None:
    name = key(now())
    claim = acquired(server, name)
    other = acquired(server, name)
    with psycopg.connect(server.url) as first, psycopg.connect(server.url) as second:
        with server.ledger.running(claim):
            server.ledger.enlist(first)
        second.execute("SET LOCAL lock_timeout = 50")
        with server.ledger.running(other), pytest.raises(StillRunning):
            server.ledger.enlist(second)


def test_the_reply_goes_into_a_transaction_that_is_open(server: Place, now: Now) -> None:
    """The caller's own block ends after the handler: fact and reply are one commit."""
    with psycopg.connect(server.url) as connection:

        @server.ledger.once("atomic")
        def job(key: str) -> str:
            server.ledger.enlist(connection)
            connection.execute(INSERT)
            return "value"

        name = key(now())
        with connection.transaction():
            job(name)
            raise psycopg.Rollback
        assert server.count() == 0
        with connection.transaction():
            job(name)
            assert server.count() == 0
        assert server.count() == 1
        assert job(name) == "value"


@pytest.mark.parametrize(
    "driver", ["psycopg", "pool", "session over psycopg", "session over asyncpg"]
)
def test_asyncio(server: Place, now: Now, driver: str) -> None:
    @contextlib.asynccontextmanager
    async def transaction() -> Any:
        if driver == "psycopg":
            async with await psycopg.AsyncConnection.connect(server.url) as connection:
                yield connection
        elif driver == "pool":
            async with (
                psycopg_pool.AsyncConnectionPool(server.url, min_size=1, open=False) as pool,
                pool.connection() as connection,
            ):
                yield connection
        else:
            engine = create_async_engine(engine_url(server, driver.rpartition(" ")[2]))
            try:
                async with AsyncSession(engine) as session, session.begin():
                    yield session
            finally:
                await engine.dispose()

    async def main() -> None:
        both = asyncio.Barrier(2)

        @server.ledger.once("atomic")
        async def job(key: str) -> str:
            async with transaction() as connection:
                await both.wait()
                await server.ledger.enlist(connection)  # type: ignore[misc]
                insert = sqlalchemy.text(INSERT) if "session" in driver else INSERT
                await connection.execute(insert)
            return str(id(asyncio.current_task()))

        name = key(now())
        told = await asyncio.gather(job(name), job(name))
        assert told[0] == told[1]
        assert await job(name) == told[0]

    asyncio.run(main())
    assert server.count() == 1


def test_an_atomic_handler_that_did_not_enlist_is_an_error_and_never_runs_again(
    lite: Place, now: Now
) -> None:
    ran: list[str] = []

    @lite.ledger.once("atomic")
    def job(key: str) -> str:
        ran.append(key)
        return "done"

    name = key(now())
    with pytest.raises(NotEnlisted, match="did not enlist"):
        job(name)
    assert lite.ledger.ask(name, void=True).standing is Standing.DOUBT
    with pytest.raises(Exception, match="nobody knows"):
        job(name)
    assert ran == [name]


def test_it_is_rolled_back_where_the_callers_block_can_do_that(server: Place, now: Now) -> None:
    with psycopg.connect(server.url) as connection:

        @server.ledger.once("atomic")
        def job(key: str) -> None:
            connection.execute(INSERT)

        with pytest.raises(NotEnlisted), connection.transaction():
            job(key(now()))
    assert server.count() == 0


def test_a_transaction_that_was_rolled_back_behind_the_handlers_answer(
    server: Place, now: Now
) -> None:
    with psycopg.connect(server.url) as connection:

        @server.ledger.once("atomic")
        def job(key: str) -> str:
            server.ledger.enlist(connection)
            connection.execute(INSERT)
            connection.rollback()
            return "as if"

        name = key(now())
        with pytest.raises(NotEnlisted, match="did not commit"):
            job(name)
        assert server.ledger.ask(name, void=True).standing is Standing.VOID


@pytest.mark.parametrize("handler", ["resumable", "opaque"])
def test_only_an_atomic_handler_enlists(lite: Place, now: Now, handler: str) -> None:
    @lite.ledger.once(handler)
    def job(key: str) -> None:
        lite.ledger.enlist(None)

    with pytest.raises(ConfigurationError, match="only an atomic one"):
        job(key(now()))


def test_what_can_not_be_enlisted(server: Place, now: Now) -> None:
    with pytest.raises(ConfigurationError, match="nothing is being run"):
        server.ledger.enlist(None)
    claim = acquired(server, key(now()))
    with server.ledger.running(claim):
        with pytest.raises(ConfigurationError, match="can't be enlisted"):
            server.ledger.enlist(object())
        with (
            psycopg.connect(server.url, autocommit=True) as connection,
            pytest.raises(ConfigurationError, match="commits each statement"),
        ):
            server.ledger.enlist(connection)
    memory = Ledger("memory:")
    with memory.running(claim), pytest.raises(ConfigurationError, match="no transaction"):
        memory.enlist(None)
