"""What a replica of our own costs, and its lag as others and we read it: `python -m bench.replica`.

Set-up and tear-down of each, of its faults, and of a pool's; the truth is a stopwatch that starts when the
first commit returns that does not arrive.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import psycopg_pool
import redis

from brownout.fault import (
    CutStreaming,
    DelayReplay,
    FreezeReceiver,
    HoldConnections,
    Made,
    PauseReplay,
    Pool,
    PostgresPair,
    RedisPair,
    SqliteCopy,
)
from brownout.fault.replica.postgres import forget_template

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout.fault import Fault

ROUNDS = 7
FAULTS: tuple[Fault, ...] = (
    PauseReplay(),
    DelayReplay(seconds=30),
    FreezeReceiver(),
    CutStreaming(),
)
OLDEST = "SELECT extract(epoch FROM now() - pg_last_xact_replay_timestamp())::float8"
CORRECTED = (
    "SELECT CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0"
    " ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END::float8"
)
OF_PRIMARY = "SELECT extract(epoch FROM replay_lag)::float8 FROM pg_stat_replication"


def timed(do: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    what = do()
    return time.perf_counter() - began, what


def cost(start: Callable[[], Any], end: Callable[[Any], None]) -> tuple[float, float]:
    """Seconds of its start and its end: the median of the rounds."""
    starts: list[float] = []
    ends: list[float] = []
    for _ in range(ROUNDS):
        up, made = timed(start)
        starts.append(up)
        ends.append(timed(partial(end, made))[0])
    return statistics.median(starts), statistics.median(ends)


def costs() -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    first, pair = timed(PostgresPair)
    found["PostgresPair, the first"] = first, timed(pair.close)[0]
    found["PostgresPair"] = cost(PostgresPair, PostgresPair.close)
    found["RedisPair"] = cost(RedisPair, RedisPair.close)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE t (v)")
        found["SqliteCopy"] = cost(lambda: SqliteCopy(path), SqliteCopy.close)
    with PostgresPair() as postgres, RedisPair() as cache:
        for fault in FAULTS:
            for pair in (postgres, cache):
                if pair is postgres or not isinstance(fault, PauseReplay):
                    found[f"{type(pair).__name__[:-4]}: {fault.kind}"] = cost(
                        partial(pair.make, fault), Made.undo
                    )
        with psycopg_pool.ConnectionPool(
            postgres.primary.dsn, min_size=10, max_size=10, open=True
        ) as pool:
            pool.wait()
            found["psycopg_pool: 10 held"] = cost(
                lambda: Pool(pool).make(HoldConnections(count=10)), lambda made: made.undo()
            )
        with httpx.Client() as client:
            found["httpx: 10 held"] = cost(
                lambda: Pool(client).make(HoldConnections(count=10)), lambda made: made.undo()
            )
    return found


Row = dict[str, float | None]


def seen(pair: PostgresPair, primary: Any, replica: Any, truth: float | None) -> Row:
    """As each tells it; `truth` is the instant of the first commit that is missing."""

    def one(session: Any, query: str) -> float | None:
        row = session.execute(query).fetchone()
        return None if row is None or row[0] is None else float(row[0])

    now = time.monotonic()
    return {
        "truth": 0.0 if truth is None else now - truth,
        "we": pair.seconds_behind(),
        "oldest": one(replica, OLDEST),
        "corrected": one(replica, CORRECTED),
        "primary": one(primary, OF_PRIMARY),
    }


def readings() -> dict[str, Row]:
    """Four commits, one a second, that don't arrive; told 3 s after the first."""
    found: dict[str, Row] = {}
    with (
        PostgresPair() as pair,
        psycopg.connect(pair.primary.dsn, autocommit=True) as primary,
        psycopg.connect(pair.replica.dsn, autocommit=True) as replica,
    ):
        primary.execute("CREATE TABLE t (v int)")
        primary.execute("INSERT INTO t VALUES (0)")
        pair.fence(seconds=5)
        time.sleep(3)
        found["idle"] = seen(pair, primary, replica, None)
        for fault in FAULTS:
            primary.execute("UPDATE t SET v = v + 1")
            pair.fence(seconds=5)
            time.sleep(0.2)
            with pair.make(fault):
                truth = 0.0
                for number in range(4):
                    primary.execute("UPDATE t SET v = v + 1")
                    truth = truth or time.monotonic()
                    if number < 3:
                        time.sleep(1)
                found[type(fault).__name__] = seen(pair, primary, replica, truth)
            pair.fence(seconds=5)
    return found


def errors(rounds: int = 40) -> dict[str, float]:
    """How far our reading is from the stopwatch, in ms, over many commits at many ages; and the fence."""
    off: list[float] = []
    fences: list[float] = []
    with PostgresPair() as pair, psycopg.connect(pair.primary.dsn, autocommit=True) as primary:
        primary.execute("CREATE TABLE t (v int)")
        primary.execute("INSERT INTO t VALUES (0)")
        for number in range(rounds):
            pair.fence(seconds=5)
            with pair.make(FreezeReceiver()):
                primary.execute("UPDATE t SET v = v + 1")
                truth = time.monotonic()
                time.sleep(0.05 + 0.01 * number)
                behind = pair.seconds_behind()
                off.append((behind - (time.monotonic() - truth)) * 1e3)
        for _ in range(500):
            primary.execute("UPDATE t SET v = v + 1")
            fences.append(pair.fence(seconds=5) * 1e3)
    fences.sort()
    return {
        "reading - truth, least": min(off),
        "reading - truth, median": statistics.median(off),
        "reading - truth, most": max(off),
        "fence, median": statistics.median(fences),
        "fence, p99": fences[int(len(fences) * 0.99)],
    }


def redis_reading() -> Row:
    with (
        RedisPair() as pair,
        closing(redis.Redis.from_url(pair.primary.url)) as primary,
        closing(redis.Redis.from_url(pair.replica.url)) as replica,
    ):
        primary.set("n", 0)
        pair.fence(seconds=5)
        with pair.make(FreezeReceiver()):
            primary.incr("n")
            truth = time.monotonic()
            time.sleep(3)
            told: Any = primary.info("replication")
            of_replica: Any = replica.info("replication")
            return {
                "truth": time.monotonic() - truth,
                "we": pair.seconds_behind(),
                "lag of the primary": told["slave0"]["lag"],
                "link up": float(of_replica["master_link_status"] == "up"),
                "last io": of_replica["master_last_io_seconds_ago"],
            }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.replica", description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "costs": costs(),
        "readings": readings(),
        "errors": errors(),
        "redis": redis_reading(),
    }
    forget_template()
    if options.json:
        print(json.dumps(result))
        return
    print(f"{'':32}{'up, ms':>9}{'down, ms':>10}")
    for name, (up, down) in result["costs"].items():
        print(f"{name:32}{up * 1e3:9.1f}{down * 1e3:10.1f}")
    columns = ["truth", "we", "oldest", "corrected", "primary"]
    print(f"\n| PostgreSQL, seconds | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, row in result["readings"].items():
        cells = ["-" if (value := row[key]) is None else f"{value:.3f}" for key in columns]
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\nRedis, receiver frozen: {result['redis']}")
    for name, value in result["errors"].items():
        print(f"{name:32}{value:9.2f} ms")


if __name__ == "__main__":
    main()
