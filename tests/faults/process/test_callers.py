"""What callers see of a killed server: the rows of docs/reference/faults.md, played by real clients."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from brownout.fault import Kill, Process
from tests.faults import servers
from tests.seen import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.servers import Server

SECONDS = 10.0
PAGE = Path(__file__).parents[3] / "docs/reference/faults.md"


def told(row: str, client: str) -> str:
    """What the page says that `client` sees in a row of `Kill`."""
    section = PAGE.read_text("utf-8").partition("| fault | httpx | redis-py | psycopg |")[2]
    cells = section.partition(f"\n| {row} | ")[2].partition("\n")[0].split(" | ")
    found = re.search(r"`([^`]*)`", cells[["httpx", "redis", "psycopg"].index(client)])
    assert found, (row, client)
    return found[1]


def seen(call: Callable[[], object]) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "ok"


def killed_during(
    call: Callable[[], object], begun: Callable[[], bool], process: Process | Server
) -> str:
    """What a caller is told whose call is under way when the server is killed."""
    place = process if isinstance(process, Process) else Process(process.process)
    with ThreadPoolExecutor(1) as pool:
        caller = pool.submit(seen, call)
        until(begun)
        with place.make(Kill()):
            return caller.result(SECONDS)


def test_of_a_killed_web_server() -> None:
    with servers.web() as server, httpx.Client(timeout=SECONDS, trust_env=False) as client:
        url = f"http://{server.address}/"

        def begun() -> bool:
            return httpx.get(url, trust_env=False).headers["slow"] == "1"

        during = killed_during(lambda: client.get(f"{url}slow"), begun, server)
        assert during.startswith(told("`Kill()`, during a call", "httpx"))
        assert seen(lambda: client.get(url)).startswith(told("the same, afterwards", "httpx"))


def test_of_a_killed_redis() -> None:
    patience: dict[str, Any] = {"socket_timeout": SECONDS, "retry": Retry(NoBackoff(), 0)}
    with servers.redis() as server, redis.Redis(port=server.port, **patience) as client:
        looker = redis.Redis(port=server.port)

        def blocked() -> bool:
            return bool(looker.info("clients")["blocked_clients"])

        during = killed_during(lambda: client.blpop(["none"], timeout=5), blocked, server)
        assert during.startswith(told("`Kill()`, during a call", "redis"))
        assert seen(lambda: client.get("k")).startswith(told("the same, afterwards", "redis"))
        looker.close()


@pytest.mark.parametrize("whom", ["postmaster", "backend"])
def test_of_a_killed_postgres(whom: str) -> None:
    with servers.postgres() as server:

        def connect() -> psycopg.Connection[Any]:
            where = f"host=127.0.0.1 port={server.port} user=postgres connect_timeout=2"
            return psycopg.connect(where, autocommit=True)

        with closing(connect()) as client, closing(connect()) as other:
            pid = client.info.backend_pid
            query = (
                "select count(*) from pg_stat_activity where pid = %s and wait_event = 'PgSleep'"
            )

            def begun() -> bool:
                row = other.execute(query, (pid,)).fetchone()
                return row is not None and row[0] == 1

            during = killed_during(
                lambda: client.execute("select pg_sleep(30)"),
                begun,
                Process(pid) if whom == "backend" else server,
            )
            assert during.startswith(told("`Kill()`, during a call", "psycopg"))
            if whom == "postmaster":
                wanted = told("the same, afterwards", "psycopg")
                assert seen(connect).startswith(wanted)
                return
            # One of its processes killed, PostgreSQL ends all connections and starts anew, by itself.
            until(lambda: seen(lambda: other.execute("select 1")) != "ok")
            until(lambda: seen(lambda: connect().close()) == "ok")
