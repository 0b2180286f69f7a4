"""Pairs, started once for each module: a test leaves its pair as it was."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from brownout.fault import PostgresPair, RedisPair
from brownout.fault.replica.postgres import forget_template

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_SECONDS = 10.0


def psql(dsn: str, query: str) -> str:
    """What a process of its own is told."""
    command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", query, dsn]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


def needs_postgres() -> None:
    if not [*Path("/usr/lib/postgresql").glob("*/bin/postgres")] or not shutil.which("psql"):
        pytest.skip("postgresql is not installed")


def needs_redis() -> None:
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")


@pytest.fixture(scope="module")
def template() -> Iterator[None]:
    needs_postgres()
    yield
    forget_template()


@pytest.fixture(scope="module")
def shared_pair(template: None) -> Iterator[PostgresPair]:
    with PostgresPair() as pair:
        psql(pair.primary.dsn, "CREATE TABLE t (v int); INSERT INTO t VALUES (0)")
        yield pair


@pytest.fixture
def pair(shared_pair: PostgresPair) -> PostgresPair:
    shared_pair.fence(seconds=WAIT_SECONDS)
    return shared_pair


@pytest.fixture(scope="module")
def redis_pair() -> Iterator[RedisPair]:
    needs_redis()
    with RedisPair() as pair:
        yield pair
