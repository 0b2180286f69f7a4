"""What callers see of faults of the wire: the table of docs/reference/faults.md, played row by row.

Real servers in processes of their own, real clients with a time-out of 0.3 s and without retries.
"""

from __future__ import annotations

import re
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from brownout import fault as faults
from brownout.fault import running
from tests.faults import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from brownout.fault import Proxy

SECONDS = 0.3
PAGE = Path(__file__).parents[3] / "docs/reference/faults.md"
ROW = re.compile(r"^\| `(\w+\(.*?\))` \| (.*) \|$", re.MULTILINE)


def rows() -> list[Any]:
    """The rows of the section on TCP: a fault, and what each client sees of it."""
    section = PAGE.read_text("utf-8").partition("## TCP")[2].partition("\n## ")[0]
    return [
        pytest.param(row, [cell.strip() for cell in cells.split(" | ")], id=row)
        for row, cells in ROW.findall(section)
    ]


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with servers.web() as server:
        yield server.address


@pytest.fixture(scope="module")
def cache() -> Iterator[str]:
    with servers.redis() as server:
        redis.Redis(port=server.port).set("k", "x" * 1000)
        yield server.address


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with servers.postgres() as server:
        yield server.address


def port_of(proxy: Proxy) -> int:
    return int(proxy.listen.rpartition(":")[2])


def told_by(
    call: Callable[[], object], most: float = 10.0, end: Callable[[], None] | None = None
) -> str:
    """What a caller is told: "ok", the name of an exception, or "hangs"."""
    seen = ["hangs"]

    def play() -> None:
        try:
            call()
            seen[0] = "ok"
        except Exception as error:
            seen[0] = f"{type(error).__name__}: {error}"

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    thread.join(most)
    told = seen[0]
    if end is not None:
        end()
        thread.join(10)
    return told


def as_httpx(proxy: Proxy, fault: faults.Fault) -> str:
    url = f"http://{proxy.listen}/"
    with httpx.Client(timeout=SECONDS, trust_env=False) as client:
        if not before_accept(fault):
            client.get(url)
        with proxy.make(fault):
            return told_by(lambda: client.get(url))


def as_redis(proxy: Proxy, fault: faults.Fault) -> str:
    with redis.Redis(
        port=port_of(proxy),
        socket_timeout=SECONDS,
        socket_connect_timeout=SECONDS,
        retry=Retry(NoBackoff(), 0),
    ) as client:
        if not before_accept(fault):
            client.ping()
        with proxy.make(fault):
            return told_by(lambda: client.get("k"))


def as_psycopg(proxy: Proxy, fault: faults.Fault) -> str:
    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(
            f"host=127.0.0.1 port={port_of(proxy)} user=postgres connect_timeout=2", autocommit=True
        )

    if before_accept(fault):
        with proxy.make(fault):
            return told_by(lambda: connect().close())
    with closing(connect()) as connection:

        def ask() -> object:
            return connection.execute("select repeat('x', 1000)").fetchone()

        with proxy.make(fault):
            return told_by(ask, 4 * SECONDS, proxy.drop_connections)


def before_accept(fault: faults.Fault) -> bool:
    """Only a new connection sees it."""
    listener = isinstance(fault, faults.Refuse | faults.NeverAccept)
    return listener or (isinstance(fault, faults.Cut) and fault.at == "accept")


@pytest.mark.parametrize(("row", "cells"), rows())
def test_what_callers_see(web: str, cache: str, database: str, row: str, cells: list[str]) -> None:
    fault = eval(row, {name: getattr(faults, name) for name in faults.__all__})
    for upstream, see, cell in zip(
        (web, cache, database), (as_httpx, as_redis, as_psycopg), cells, strict=False
    ):
        with running(upstream) as proxy:
            seen = see(proxy, fault)
        wanted = re.findall(r"`([^`]*)`", cell) or [cell]
        assert any(seen.startswith(name) for name in wanted), (see.__name__, seen, cell)
