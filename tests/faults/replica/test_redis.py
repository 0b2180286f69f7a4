"""A real Redis pair: each fault is seen by clients, its lag set against the truth, and undone."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from brownout.errors import ConfigurationError, FaultRefused
from brownout.fault import CutStreaming, DelayReplay, FreezeReceiver, PauseReplay, RedisPair
from brownout.fault import record as records
from brownout.fault.identity import Identity
from tests.faults.replica.conftest import needs_redis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brownout.fault import Fault

FAULTS = [DelayReplay(seconds=30), FreezeReceiver(), CutStreaming()]


@pytest.fixture
def primary(redis_pair: RedisPair) -> Iterator[redis.Redis]:
    redis_pair.fence(seconds=10)
    with closing(redis.Redis.from_url(redis_pair.primary.url)) as client:
        yield client


@pytest.fixture
def replica(redis_pair: RedisPair) -> Iterator[redis.Redis]:
    with closing(redis.Redis.from_url(redis_pair.replica.url)) as client:
        yield client


def cli(pair: RedisPair, *words: str) -> str:
    """What a process of its own is told by the replica, over TCP."""
    server = pair.replica
    command = ["redis-cli", "-p", str(server.port), *words]
    how = {**os.environ, "REDISCLI_AUTH": server.password}
    done = subprocess.run(command, env=how, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.kind)
def test_the_replica_answers_without_what_was_written(
    redis_pair: RedisPair, primary: redis.Redis, fault: Fault
) -> None:
    pair = redis_pair
    primary.set("n", "old")
    pair.fence(seconds=10)
    with pair.make(fault):
        earliest = time.monotonic()
        primary.set("n", "new")
        pair.position()
        latest = time.monotonic()
        time.sleep(0.4)
        before = time.monotonic()
        behind = pair.seconds_behind()
        after = time.monotonic()
        assert before - latest <= behind <= after - earliest
        assert cli(pair, "GET", "n") == "old"
        with pytest.raises(TimeoutError, match="behind"):
            pair.fence(seconds=0.05)
    pair.fence(seconds=10)
    assert cli(pair, "GET", "n") == "new"
    assert pair.seconds_behind() == 0


def test_what_redis_says_of_itself_is_fine(
    redis_pair: RedisPair, primary: redis.Redis, replica: redis.Redis
) -> None:
    primary.set("n", "old")
    redis_pair.fence(seconds=10)
    with redis_pair.make(FreezeReceiver()):
        primary.set("n", "new")
        redis_pair.position()
        latest = time.monotonic()
        time.sleep(1.2)
        info = replica.info("replication")
        assert info["master_link_status"] == "up"
        of_primary = primary.info("replication")["slave0"]
        assert of_primary["state"] == "online"
        assert of_primary["lag"] <= 1  # seconds since it last heard of the replica, not behind what
        assert redis_pair.seconds_behind() > time.monotonic() - latest - 0.2
        assert replica.get("n") == b"old"


def test_it_is_late_by_what_was_asked(redis_pair: RedisPair, primary: redis.Redis) -> None:
    with redis_pair.make(DelayReplay(seconds=0.5)):
        earliest = time.monotonic()
        primary.set("n", "late")
        redis_pair.fence(seconds=10)
        assert time.monotonic() - earliest >= 0.49
        assert cli(redis_pair, "GET", "n") == "late"


def test_what_is_refused(redis_pair: RedisPair) -> None:
    with pytest.raises(
        ConfigurationError, match="no fault of a Redis replica; those are DelayReplay"
    ):
        redis_pair.make(PauseReplay())
    with redis_pair.make(FreezeReceiver()), pytest.raises(FaultRefused, match="is in force at"):
        redis_pair.make(FreezeReceiver())


def test_it_wants_its_password(redis_pair: RedisPair) -> None:
    for server in (redis_pair.primary, redis_pair.replica):
        stranger = redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0))
        with closing(stranger), pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_a_pair_leaves_nothing() -> None:
    needs_redis()
    before = records.read(records.folder()).records
    with RedisPair() as pair:
        made = pair.make(CutStreaming())
        servers = [Identity.of(pair.primary.pid), Identity.of(pair.replica.pid)]
        folder = pair.primary.folder.parent
    assert not folder.exists()
    assert not any(server.alive() for server in servers)
    assert records.read(records.folder()).records == before
    assert not made.active
