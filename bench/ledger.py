"""What a ledger costs, beside the business's own write and beside others: `python -m bench.ledger`.

The operations of a group take turns, so that a noisy machine disturbs all of them alike: read the ratios.
Redis and PostgreSQL are started for it, with `fsync` on. A peer that is not installed is named as missing.
"""

from __future__ import annotations

import argparse
import gc
import json
import sqlite3
import statistics
import tempfile
import threading
import time
import warnings
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import redis

from brownout import Key
from brownout._core.ledger import Claim, HandlerClass, Reply
from brownout.ledger import Ledger
from brownout.ledger.sqlite import SqliteStore
from tests.ledger.servers import PostgresServer, RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Step = Callable[[], object]

BODY = b'{"id":"pay_1","status":"captured","amount":1000}' + b" " * 152
DONE = Reply(201, (("content-type", "application/json"),), BODY)
PRINT = b"f" * 16
TURNS = 400
WARM = 20
CALLERS = 64
AT_ONCE_SECONDS = 3.0
POWERTOOLS = "aws_lambda_powertools.utilities.idempotency"
KEPT = 20_000  # keys, for their size and for what it costs to collect them


class Line(NamedTuple):
    """One operation: the median of its turns in microseconds, and that over its group's first one."""

    group: str
    name: str
    microseconds: float
    ratio: float


def turns(group: str, steps: dict[str, Step], n: int) -> list[Line]:
    """Each turn takes every step once."""
    seen: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(WARM):
            step()
    gc.collect()
    for _ in range(n):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seen[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(each) * 1e6 for name, each in seen.items()}
    first = next(iter(medians.values()))
    return [Line(group, name, median, median / first) for name, median in medians.items()]


def lease(ledger: Ledger) -> None:
    """The two commits of a handler whose effect is elsewhere."""
    claim = ledger.claim(Key.new(), PRINT, HandlerClass.RESUMABLE)
    assert isinstance(claim, Claim)
    ledger.complete(claim, DONE)


def replay(ledger: Ledger, key: str) -> None:
    """A finished key once more."""
    found = ledger.claim(key, PRINT, HandlerClass.RESUMABLE)
    assert not isinstance(found, Claim)


def finished(ledger: Ledger) -> str:
    """A key that is done."""
    key = Key.new()
    claim = ledger.claim(key, PRINT, HandlerClass.RESUMABLE)
    assert isinstance(claim, Claim)
    ledger.complete(claim, DONE)
    return key


@contextmanager
def running(ledger: Ledger) -> Generator[Claim]:
    """The work of one new key, atomic, as a handler sees it; the look that comes before is not in it."""
    claim = Claim(
        "", str(Key.new()), PRINT, HandlerClass.ATOMIC, time.monotonic_ns() & (2**52 - 1), 30
    )
    with ledger.running(claim):
        yield claim


# ---------------------------------------------------------------------------------------- SQLite


def on_sqlite(folder: Path, n: int) -> list[Line]:
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
    ledger.create()
    with closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE business (id INTEGER PRIMARY KEY, what TEXT)")
        write = partial(database.execute, "INSERT INTO business (what) VALUES (?)", ("x",))

        def alone() -> None:
            database.execute("BEGIN IMMEDIATE")
            write()
            database.execute("COMMIT")

        def together(*, kept: bool) -> None:
            with running(ledger) as claim:
                database.execute("BEGIN IMMEDIATE")
                ledger.enlist(database)
                write()
                if kept:
                    ledger.complete(claim, DONE)
                database.execute("COMMIT")

        def whole() -> None:
            claim = ledger.claim(Key.new(), PRINT, HandlerClass.ATOMIC)
            assert isinstance(claim, Claim)
            with ledger.running(claim):
                database.execute("BEGIN IMMEDIATE")
                ledger.enlist(database)
                write()
                ledger.complete(claim, DONE)
                database.execute("COMMIT")

        key = finished(ledger)
        return turns(
            "SQLite, FULL",
            {
                "business insert alone": alone,
                "the same, and the ledger's row": partial(together, kept=False),
                "the same, and its reply in the row": partial(together, kept=True),
                "the same, with the look before it": whole,
                "lease: claim and complete": partial(lease, ledger),
                "replay of a finished key": partial(replay, ledger, key),
            },
            n,
        )


def at_once(ledger: Ledger, around: Callable[[], Any]) -> float:
    """Pairs of claim and complete a second, by many callers."""
    counts = [0] * CALLERS
    end = time.perf_counter() + AT_ONCE_SECONDS

    def caller(which: int) -> None:
        while time.perf_counter() < end:
            with around():
                claim = ledger.claim(Key.new(), PRINT, HandlerClass.RESUMABLE)
            assert isinstance(claim, Claim)
            with around():
                ledger.complete(claim, DONE)
            counts[which] += 1

    threads = [threading.Thread(target=caller, args=(which,)) for which in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / AT_ONCE_SECONDS


def many(folder: Path) -> list[Line]:
    """Group commit against a lock: three runs of each, taking turns; the median."""
    lock = threading.Lock()
    ways: dict[str, Callable[[], Any]] = {
        "a lock, one commit each": lambda: lock,
        "group commit": ExitStack,
    }
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(3):
        for index, (name, around) in enumerate(ways.items()):
            ledger = Ledger(f"sqlite:///{folder / f'many-{turn}-{index}.db'}")
            ledger.create()
            seen[name].append(at_once(ledger, around))
            ledger.close()
    rates = {name: statistics.median(each) for name, each in seen.items()}
    first = next(iter(rates.values()))
    group = f"SQLite, FULL, {CALLERS} callers: claim and complete"
    return [Line(group, name, 1e6 / rate, first / rate) for name, rate in rates.items()]


# ------------------------------------------------------------------------------- PostgreSQL, Redis


class DurablePostgres(PostgresServer):
    """As in production: what is committed is on the disk."""

    def command(self) -> list[str]:
        return [word.replace("fsync=off", "fsync=on") for word in super().command()]


def on_postgres(url: str, n: int) -> list[Line]:
    ledger = Ledger(url)
    ledger.create()
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("CREATE TABLE business (id bigserial PRIMARY KEY, what text)")

        def write() -> None:
            session.execute("INSERT INTO business (what) VALUES (%s)", ("x",))

        def alone() -> None:
            with session.transaction():
                write()

        def together(*, kept: bool) -> None:
            with running(ledger) as claim, session.transaction():
                ledger.enlist(session)
                write()
                if kept:
                    ledger.complete(claim, DONE)

        key = finished(ledger)
        lines = turns(
            "PostgreSQL, synchronous_commit=on",
            {
                "business insert in BEGIN, COMMIT": alone,
                "the same, and the ledger's row": partial(together, kept=False),
                "the same, and its reply in the row": partial(together, kept=True),
                "lease: claim and complete": partial(lease, ledger),
                "replay of a finished key": partial(replay, ledger, key),
            },
            n,
        )
    ledger.close()
    return lines


def on_redis(url: str, n: int, missing: list[str]) -> list[Line]:
    ledger = Ledger(url)
    ledger.create()
    key = finished(ledger)
    steps: dict[str, Step] = {
        "claim and complete": partial(lease, ledger),
        "replay of a finished key": partial(replay, ledger, key),
    }
    client: Any = redis.Redis.from_url(url, decode_responses=True, retry=None)
    steps.update(_powertools(client, missing))
    lines = turns("Redis", steps, n)
    ledger.close()
    client.close()
    return lines


def _powertools(client: Any, missing: list[str]) -> dict[str, Step]:
    try:
        idempotency: Any = import_module(POWERTOOLS)
        persistence: Any = import_module(f"{POWERTOOLS}.persistence.redis")
    except ImportError as error:
        missing.append(f"AWS Powertools: {error}")
        return {}
    warnings.simplefilter("ignore", UserWarning)  # that it does not run in a Lambda

    def answer(order: dict[str, str]) -> dict[str, Any]:
        return {"id": order["id"], "body": BODY.decode()}

    pay: Any = idempotency.idempotent_function(
        answer,
        data_keyword_argument="order",
        persistence_store=persistence.RedisCachePersistenceLayer(client=client),
        config=idempotency.IdempotencyConfig(),
    )
    pay(order={"id": "old"})
    return {
        "AWS Powertools: the same step": lambda: pay(order={"id": str(Key.new())}),
        "AWS Powertools: replay": lambda: pay(order={"id": "old"}),
    }


def on_dbos(folder: Path, n: int, missing: list[str]) -> list[Line]:
    """DBOS keeps workflows and steps, which is much more: its exactly-once step beside ours, on SQLite."""
    try:
        dbos: Any = import_module("dbos")
    except ImportError as error:
        missing.append(f"DBOS: {error}")
        return []
    settings = {"name": "bench", "system_database_url": f"sqlite:///{folder / 'dbos.db'}"}
    dbos.DBOS(config={**settings, "log_level": "ERROR", "run_admin_server": False})

    def step() -> str:
        return BODY.decode()

    def work() -> Any:
        return stepped()

    stepped: Any = dbos.DBOS.step()(step)
    worked: Any = dbos.DBOS.workflow()(work)
    dbos.DBOS.launch()

    def once() -> None:
        with dbos.SetWorkflowID(str(Key.new())):
            worked()

    ledger = Ledger(f"sqlite:///{folder / 'beside.db'}")
    ledger.create()
    try:
        steps: dict[str, Step] = {
            "ours, lease: claim and complete": partial(lease, ledger),
            "DBOS: a workflow of one step": once,
        }
        return turns("SQLite, beside DBOS", steps, max(20, n // 8))
    finally:
        dbos.DBOS.destroy()
        ledger.close()


# ------------------------------------------------------------------------------ size and collection


def kept(folder: Path) -> dict[str, float]:
    """Bytes that a finished key takes, and microseconds to collect one."""
    now = [time.time()]
    path = folder / "kept.db"
    ledger = Ledger(SqliteStore(str(path), now=lambda: now[0]))
    ledger.create()
    with closing(sqlite3.connect(path)) as database:
        empty = _size(database)
        for _ in range(KEPT):
            lease(ledger)
        full = _size(database)
    now[0] += ledger.horizon_seconds + ledger.margin_seconds + 60
    began = time.perf_counter()
    gone = 0
    while found := ledger.collect():
        gone += found
    seconds = time.perf_counter() - began
    assert gone == KEPT
    ledger.close()
    return {
        "SQLite: bytes a key": (full - empty) / KEPT,
        "SQLite: collected, us a key": seconds / KEPT * 1e6,
    }


def _size(database: sqlite3.Connection) -> int:
    pages, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
    )
    return int(pages) * int(size)


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.ledger", description=__doc__)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    n = options.turns
    missing: list[str] = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        folder = Path(name)
        lines = on_sqlite(folder, n) + many(folder)
        lines += on_postgres(servers.enter_context(DurablePostgres()).url, n)
        lines += on_redis(servers.enter_context(RedisServer()).url, n, missing)
        lines += on_dbos(folder, n, missing)
        sizes = kept(folder)
    if options.json:
        print(
            json.dumps(
                {"lines": [line._asdict() for line in lines], "kept": sizes, "missing": missing}
            )
        )
        return
    group = ""
    for line in lines:
        if line.group != group:
            group = line.group
            print(f"\n{group}")
        print(f"  {line.name:<42}{line.microseconds:9.0f} us {line.ratio:7.2f} x")
    print()
    for what, value in sizes.items():
        print(f"{what:<44}{value:9.1f}")
    for each in missing:
        print(f"not measured: {each}")


if __name__ == "__main__":
    main()
