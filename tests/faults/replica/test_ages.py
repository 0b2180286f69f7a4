"""Real replicas that fall behind: the product's sources see it, also where the usual formulas say 0."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import redis as client

from brownout import Guard, State
from brownout.behind import Behind
from brownout.ext.behind import heartbeat, postgres, redis
from brownout.fault import CutStreaming, DelayReplay, FreezeReceiver, PauseReplay
from tests.faults.replica.conftest import psql
from tests.faults.replica.test_postgres import CORRECTED
from tests.seen import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from brownout.fault import Fault, PostgresPair, RedisPair

EVERY = 0.05


def asks(dsn: str) -> tuple[Any, Callable[[str], Any]]:
    connection = psycopg.connect(dsn, autocommit=True)

    def ask(query: str) -> Any:
        row = connection.execute(query).fetchone()
        return row[0] if row else None

    return connection, ask


@contextmanager
def writing(dsn: str) -> Iterator[None]:
    """A commit fifty times a second."""
    done = threading.Event()

    def run() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not done.wait(0.02):
                connection.execute("UPDATE t SET v = v + 1")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(10)


@pytest.mark.parametrize("fault", [FreezeReceiver(), PauseReplay()], ids=lambda fault: fault.kind)
def test_a_replica_that_falls_behind_is_named(pair: PostgresPair, fault: Fault) -> None:
    """A receiver that stands still answers on, and its own formula says 0."""
    guard = Guard("db")
    primary, ask_primary = asks(pair.primary.dsn)
    replica, ask_replica = asks(pair.replica.dsn)
    source = postgres(ask_replica, ask_primary)
    with primary, replica, writing(pair.primary.dsn), Behind(guard, source, every=EVERY) as behind:
        until(lambda: guard.state is State.HEALTHY, 20)
        time.sleep(2.0)  # that something is learned
        assert guard.state is State.HEALTHY, guard.verdict.because
        with pair.make(fault):
            began = time.monotonic()
            until(lambda: guard.state is State.DEGRADED, 10)
            verdict = guard.verdict
            assert (verdict.kind, verdict.operation) == ("stale", "read:age")
            assert " old; usual " in verdict.because
            if isinstance(fault, FreezeReceiver):
                assert float(psql(pair.replica.dsn, CORRECTED)) == 0
            told, real = behind.seconds(), pair.seconds_behind()
            assert abs(told - real) < 1.0
            assert real <= time.monotonic() - began + 1.0
        pair.fence(seconds=10)
        until(lambda: behind.seconds() < 0.5)


@pytest.mark.parametrize(
    "fault", [DelayReplay(seconds=30), CutStreaming(), FreezeReceiver()], ids=lambda one: one.kind
)
def test_the_age_is_the_true_one(pair: PostgresPair, fault: Fault) -> None:
    primary, ask_primary = asks(pair.primary.dsn)
    replica, ask_replica = asks(pair.replica.dsn)
    with primary, replica:
        source = postgres(ask_replica, ask_primary)
        assert source() == 0.0
        with pair.make(fault):
            before = time.monotonic()
            psql(pair.primary.dsn, "UPDATE t SET v = v + 1")
            assert source() >= 0.0
            seen = time.monotonic()
            time.sleep(0.3)
            age = source()
            assert time.monotonic() - seen - 0.05 <= age <= time.monotonic() - before
        pair.fence(seconds=10)
        assert source() == 0.0


def test_by_the_replica_s_own_word(pair: PostgresPair) -> None:
    replica, ask = asks(pair.replica.dsn)
    with replica:
        source = postgres(ask)
        psql(pair.primary.dsn, "UPDATE t SET v = v + 1")
        pair.fence(seconds=10)
        assert source() == 0.0  # idle, and not behind
        with pair.make(PauseReplay()):
            psql(pair.primary.dsn, "UPDATE t SET v = v + 1")
            time.sleep(0.3)
            assert source() >= 0.3
        with pair.make(CutStreaming()):  # where the usual formula says 0
            psql(pair.primary.dsn, "UPDATE t SET v = v + 1")
            time.sleep(0.3)
            assert float(psql(pair.replica.dsn, CORRECTED)) == 0
            assert source() >= 0.3
        pair.fence(seconds=10)


def test_a_heartbeat_row(pair: PostgresPair) -> None:
    psql(pair.primary.dsn, "CREATE TABLE IF NOT EXISTS beat (at float8)")
    psql(pair.primary.dsn, "INSERT INTO beat VALUES (0)")
    primary, _ = asks(pair.primary.dsn)
    replica, ask_replica = asks(pair.replica.dsn)
    pair.fence(seconds=10)
    with primary, replica:
        source = heartbeat(
            lambda: float(ask_replica("SELECT at FROM beat")),
            write=lambda now: primary.execute("UPDATE beat SET at = %s", (now,)),
        )
        source()
        pair.fence(seconds=10)
        assert source() < 1.0
        with pair.make(FreezeReceiver()):
            time.sleep(0.5)
            assert source() >= 0.5
        pair.fence(seconds=10)


def test_redis(redis_pair: RedisPair) -> None:
    primary = client.Redis.from_url(redis_pair.primary.url)
    replica = client.Redis.from_url(redis_pair.replica.url)
    with primary, replica:
        source = redis(lambda: replica.info("replication"), lambda: primary.info("replication"))
        redis_pair.fence(seconds=10)
        assert source() < 0.1
        with redis_pair.make(CutStreaming()):
            primary.set("price", 499)
            source()
            time.sleep(0.3)
            assert source() >= 0.25
        redis_pair.fence(seconds=10)
        assert source() < 0.1
