"""A ledger over each kind of store, by a clock of the test's, called in both ways."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from brownout._core.ledger import minted
from brownout.ledger import Ledger
from brownout.ledger.memory import MemoryStore
from brownout.ledger.sqlite import SqliteStore
from tests.ledger.servers import PostgresServer, RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from brownout.ledger import Store

KINDS = ["memory", "sqlite", "postgres", "redis"]
HORIZON, MARGIN, LEASE = 1000.0, 100.0, 10.0


class Now:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.seconds = float(int(time.time()))

    def __call__(self) -> float:
        return self.seconds


class Ways:
    """The ledger by its blocking methods, or by those for asyncio: `ways.claim(...)` is either."""

    def __init__(self, ledger: Ledger, runner: asyncio.Runner | None) -> None:
        self.ledger = ledger
        self.runner = runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if self.runner is None:
            found: Callable[..., Any] = getattr(self.ledger, name)
            return found
        method = getattr(self.ledger, f"a{name}")
        return lambda *args, **named: self.runner.run(method(*args, **named))  # type: ignore[union-attr]


def key(at: float) -> str:
    """A new key of the time `at`."""
    return minted(int(at * 1000), os.urandom(10))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def now() -> Now:
    return Now()


def postgres_url(server: PostgresServer) -> str:
    """The database as if it were new."""
    import psycopg

    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS brownout_ledger, brownout_ledger_about, biz")
        connection.execute("CREATE TABLE biz (k text)")
    return server.url


def redis_url(server: RedisServer) -> str:
    import redis

    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url


def make_store(kind: str, request: pytest.FixtureRequest, folder: Path, now: Now) -> Store:
    if kind == "memory":
        return MemoryStore(now=now)
    if kind == "sqlite":
        return SqliteStore(str(folder / "ledger.db"), now=now)
    if kind == "postgres":
        from brownout.ledger.postgres import PostgresStore

        return PostgresStore(postgres_url(request.getfixturevalue("postgres")), now=now)
    from brownout.ledger.redis import RedisStore

    return RedisStore(redis_url(request.getfixturevalue("redis_server")), now=now)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, now: Now) -> Iterator[Store]:
    made = make_store(request.param, request, tmp_path, now)
    now.seconds -= 10 * HORIZON  # it has been there for long
    made.create()
    now.seconds += 10 * HORIZON
    yield made
    made.close()


@pytest.fixture
def ledger(store: Store) -> Ledger:
    return Ledger(
        store, scope="pay", horizon_seconds=HORIZON, margin_seconds=MARGIN, lease_seconds=LEASE
    )


@pytest.fixture(params=["threads", "asyncio"])
def ways(request: pytest.FixtureRequest, ledger: Ledger) -> Iterator[Ways]:
    if request.param == "threads":
        yield Ways(ledger, None)
        return
    with asyncio.Runner() as runner:
        yield Ways(ledger, runner)
