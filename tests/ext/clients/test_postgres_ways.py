"""Other ways to write to PostgreSQL, lost at every point: whatever is told, it is never a false "failed"."""

from __future__ import annotations

import time
from functools import partial
from itertools import count, product
from math import inf
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg_pool
import pytest

from brownout import Guard
from brownout.ext import asyncpg as ext_asyncpg
from brownout.ext import psycopg as ext_psycopg
from brownout.fault import Cut
from tests.ext.clients.matrix import Trial, proxied, together, tried
from tests.seen import classes

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout import Attempt

SECONDS = 5.0
_values = count()


def insert(value: str) -> str:
    return f"insert into w values ('{value}')"


def block(one: Any, value: str) -> None:
    with one.transaction(), one.transaction():
        one.execute(insert(value))


def many(one: Any, value: str) -> None:
    with one.cursor() as cursor:
        cursor.executemany("insert into w values (%s)", [(value,), (value,)])


def copied(one: Any, value: str) -> None:
    with one.cursor() as cursor, cursor.copy("copy w from stdin") as copy:
        copy.write_row((value,))


def pipelined(one: Any, value: str) -> None:
    with one.pipeline():
        one.execute("insert into w values (%s)", (value,))
        one.execute("select 1")


def by_hand(one: Any, value: str) -> None:
    for text in ("begin", insert(value), "commit"):
        one.execute(text)


def streamed(one: Any, value: str) -> None:
    with one.cursor() as cursor:
        list(cursor.stream(f"{insert(value)} returning v"))


async def block_async(one: Any, value: str) -> None:
    async with one.transaction(), one.transaction():
        await one.execute(insert(value))


async def many_async(one: Any, value: str) -> None:
    await one.executemany("insert into w values ($1)", [(value,), (value,)])


async def copied_async(one: Any, value: str) -> None:
    await one.copy_records_to_table("w", records=[(value,)])


async def prepared_async(one: Any, value: str) -> None:
    statement = await one.prepare(insert(value))
    await statement.fetch()


async def by_hand_async(one: Any, value: str) -> None:
    for text in ("begin", insert(value), "commit"):
        await one.execute(text)


WAYS: list[Callable[..., Any]] = [block, many, copied, pipelined, by_hand, streamed]
ASYNC: list[Callable[..., Any]] = [
    block_async, many_async, copied_async, prepared_async, by_hand_async,
]  # fmt: skip
POINTS = ["(?s).*(insert|INSERT|copy|COPY)", "(?s).*(commit|COMMIT)"]


def with_psycopg(port: int, way: Callable[..., Any], value: str, *, autocommit: bool) -> None:
    one = ext_psycopg.Connection.connect(
        host="127.0.0.1", port=port, user="postgres", dbname="postgres", autocommit=autocommit,
        connect_timeout=5, sslmode="disable", gssencmode="disable",
    )  # fmt: skip
    try:
        way(one, value)
        if not autocommit:
            one.commit()
    finally:
        one.close()


async def with_asyncpg(port: int, way: Callable[..., Any], value: str) -> None:
    one = await ext_asyncpg.connect(
        host="127.0.0.1", port=port, user="postgres", database="postgres", ssl=False,
        timeout=SECONDS, command_timeout=SECONDS,
    )  # fmt: skip
    try:
        await way(one, value)
    finally:
        one.terminate()


def trial(
    database: str, way: Callable[..., Any], fault: Cut, autocommit: bool
) -> tuple[Trial, str]:
    value = f"w-{next(_values)}"
    with proxied(database, fault) as port:
        if way in WAYS:
            return tried(partial(with_psycopg, port, way, value, autocommit=autocommit)), value

        async def call() -> None:
            await with_asyncpg(port, way, value)

        return tried(call), value


def test_no_way_to_write_is_told_to_have_failed_that_did_not(database: str) -> None:
    host, _, port = database.partition(":")
    cuts = [
        Cut(at=at, per="request", match=point)  # type: ignore[arg-type]
        for at, point in product(("request", "reply"), POINTS)
    ]
    cases = [*product(WAYS, cuts, (True, False)), *product(ASYNC, cuts, (True,))]
    with psycopg.connect(host=host, port=int(port), user="postgres", autocommit=True) as truth:
        truth.execute("create table w (v text)")
        found = together([partial(trial, database, *case) for case in cases])
        rows = truth.execute("select v from w").fetchall()
    done = {row[0] for row in rows}
    false = [
        (case[0].__name__, str(case[1]), case[2], str(told), repr(told.error))
        for case, (told, value) in zip(cases, found, strict=True)
        if (told.verdict == "failed" and value in done)
        or (told.verdict == "succeeded" and value not in done)
    ]
    assert not false, "\n".join(map(str, false))
    verdicts = {told.verdict for told, _ in found}
    assert verdicts == {"failed", "unknown", "succeeded"}


def selected(attempt: Attempt, pool: psycopg_pool.ConnectionPool) -> Any:
    attempt.waiting()
    began = time.monotonic()
    with pool.connection() as connection:
        attempt.waited(time.monotonic() - began)
        server = connection.info
        attempt.label(backend=server.host, connection=str(server.backend_pid))
        attempt.sent()
        return connection.execute("select pg_backend_pid()").fetchone()


def test_attempts_over_a_pool_of_ones_own_are_labelled(database: str) -> None:
    guard = Guard("orders", breaker=None)
    ask = partial(
        guard.call, selected, operation="ask", classify=ext_psycopg.classify, with_attempt=True
    )
    host, port = database.split(":")
    pool = psycopg_pool.ConnectionPool(
        f"host={host} port={port} user=postgres", min_size=1, max_size=1, timeout=0.1, open=True
    )
    with pool:
        (number,) = ask(pool)
        with pool.connection(), pytest.raises(psycopg_pool.PoolTimeout):
            ask(pool)
    assert classes(guard) == {"SUCCESS": 1, "LOCAL": 1}
    (only,) = guard._target.operations["ask"].evidence.labelled(-inf)
    assert dict(only.labels) == {"backend": host, "connection": str(number)}
