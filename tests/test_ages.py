"""Staleness: the age of what is read, as a second latency."""

from __future__ import annotations

import asyncio
import itertools
import threading
from math import inf, nan
from typing import TYPE_CHECKING

import httpx
import pytest

from brownout import ConfigurationError, Guard, State
from brownout.behind import Behind, Positions
from brownout.ext.behind import age_header, heartbeat, postgres, redis
from brownout.ext.httpx import Transport
from tests.seen import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout.testing import FakeClock


def reads(
    guard: Guard, clock: FakeClock, age: Callable[[int], float], seconds: float, rate: float = 10
) -> list[State | None]:
    states: list[State | None] = []
    for number in range(int(seconds * rate)):
        guard.observe_age(age(number))
        clock.advance(1 / rate)
        states.append(guard.state)
    return states


def usual(number: int) -> float:
    return 0.05 + 0.01 * (number % 11)


def test_reads_that_become_stale_are_named(clock: FakeClock) -> None:
    guard = Guard("db")
    assert set(reads(guard, clock, usual, 60)) <= {None, State.HEALTHY}
    assert guard.state is State.HEALTHY
    assert "reads in" in guard.verdict.because
    states = reads(guard, clock, lambda n: 3 + 0.1 * n, 5)
    assert State.DEGRADED in states[:10]  # within a second
    verdict = guard.verdict
    assert (verdict.state, verdict.kind, verdict.operation) == (State.DEGRADED, "stale", "read:age")
    assert "reads are " in verdict.because
    assert " old; usual 0.1" in verdict.because
    assert set(reads(guard, clock, usual, 20)[-50:]) == {State.HEALTHY}


def test_it_is_never_anything_but_degraded(clock: FakeClock) -> None:
    """However many read at once, and however old it is: nobody is turned away, and nobody is silent."""
    guard = Guard("db")
    reads(guard, clock, usual, 60)
    states = set(reads(guard, clock, lambda _: 100_000.0, 3, rate=100))
    assert states - {State.HEALTHY} == {State.DEGRADED}
    assert "reads are more than 240 s old" in guard.verdict.because


def test_a_part_that_is_stale_is_told_as_a_part(clock: FakeClock) -> None:
    guard = Guard("db")
    reads(guard, clock, usual, 60)
    reads(guard, clock, lambda n: 40.0 if n % 3 == 0 else usual(n), 5, rate=20)
    assert guard.verdict.kind == "stale"
    assert "% of reads are 4" in guard.verdict.because


def test_what_is_fresher_than_usual_is_nothing_against_it(clock: FakeClock) -> None:
    guard = Guard("db")
    reads(guard, clock, lambda n: 2 + usual(n), 60)
    assert set(reads(guard, clock, lambda _: 0.0, 30)) == {State.HEALTHY}


def test_a_jitter_below_half_a_second_is_not_material(clock: FakeClock) -> None:
    guard = Guard("db")
    reads(guard, clock, lambda _: 0.0, 60)
    assert set(reads(guard, clock, lambda n: 0.4 * (n % 2), 30)) == {State.HEALTHY}


def test_ages_are_no_calls(clock: FakeClock) -> None:
    guard = Guard("db")
    reads(guard, clock, usual, 10)
    assert guard._target.calls == 0


def test_too_many_operations_share_one(clock: FakeClock) -> None:
    guard = Guard("db")
    for number in range(40):
        guard.observe_age(0.1, operation=f"op{number}")
    assert len(guard._target.operations) == 33
    assert "other:age" in guard._target.operations


@pytest.mark.parametrize("wrong", [-0.1, inf, nan, "1", None])
def test_what_is_no_age_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"observe_age\(.*give an age in seconds"):
        Guard("db").observe_age(wrong)


# ------------------------------------------------------------------------------------ sources


def test_a_copy_is_as_old_as_what_it_lacks(clock: FakeClock) -> None:
    at = {"original": 1, "copy": 1}
    source = Positions(lambda: at["original"], lambda: at["copy"])
    assert source() == 0.0
    clock.advance(100.0)
    assert source() == 0.0  # nobody has written
    at["original"] = 2
    assert source() == 0.0
    clock.advance(3.0)
    assert source() == 3.0
    at["copy"] = 2
    assert source() == 0.0


def test_a_source_tells_the_guard() -> None:
    guard = Guard("db")
    ages = itertools.count()
    told: list[float] = []

    def source() -> float:
        told.append(float(next(ages)))
        return told[-1]

    with Behind(guard, source, every=0.01, operation="rows") as behind:
        until(lambda: len(told) > 10)
        assert behind.seconds() >= 1
    operation = guard._target.operations["rows:age"]
    assert sum(sum(shard.answered) for shard in operation.evidence.shards.values()) >= 5
    assert not behind._thread.is_alive()


def test_a_source_that_can_not_tell_tells_nothing() -> None:
    def fails() -> float:
        raise OSError("the primary is away")

    guard = Guard("db")
    with Behind(guard, fails, every=0.01) as behind:
        until(lambda: behind.trouble)
        assert behind.trouble == "OSError: the primary is away"
        assert behind.seconds() == inf
    assert guard._target.operations == {}


def test_a_source_that_hangs_holds_up_nobody() -> None:
    go = threading.Event()

    def hangs() -> float:
        go.wait(30.0)
        return 0.0

    behind = Behind(Guard("db"), hangs)
    behind.close()  # at most a second
    go.set()


@pytest.mark.parametrize("every", [0, -1, nan, 61, "1"])
def test_what_is_no_interval_is_refused(every: float) -> None:
    with pytest.raises(ConfigurationError, match="every="):
        Behind(Guard("db"), lambda: 0.0, every=every)


def test_redis_s_offsets() -> None:
    primary, replica = {"master_repl_offset": 5}, {"slave_repl_offset": 5, "master_repl_offset": 9}
    source = redis(lambda: replica, lambda: primary)
    assert source() == 0.0
    primary["master_repl_offset"] = 7
    assert source() >= 0.0
    del replica["slave_repl_offset"]
    assert source() == 0.0  # it was promoted


def test_the_replica_s_own_word_is_one_query() -> None:
    asked: list[str] = []

    def ask(query: str) -> str:
        asked.append(query)
        return "1.5"

    assert postgres(ask)() == 1.5
    assert "pg_last_xact_replay_timestamp" in asked[0]


def test_a_heartbeat() -> None:
    row = [0.0]
    source = heartbeat(lambda: row[0], write=lambda now: row.__setitem__(0, now))
    assert 0 <= source() < 1
    assert heartbeat(lambda: row[0] + 100)() == 0.0  # a clock ahead of ours
    assert 99 < heartbeat(lambda: row[0] - 100)() < 102


# -------------------------------------------------------------------------------- HTTP's Age


@pytest.mark.parametrize(
    ("value", "age"),
    [
        ("0", 0.0), ("42", 42.0), (" 7 ", 7.0), ("3, 9", 3.0), ("-1", None), ("1.5", None), ("", None),
        (None, None), ("x", None), ("٣", None), ("9" * 11, None),
    ],
)  # fmt: skip
def test_an_age_header(value: str | None, age: float | None) -> None:
    assert age_header(value) == age


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []

    def observe(_: Guard, seconds: float, *, operation: str = "read") -> None:
        found.append((operation, seconds))

    monkeypatch.setattr(Guard, "observe_age", observe)
    return found


def answers(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, headers=dict(request.url.params))


@pytest.mark.parametrize(
    ("query", "ages"),
    [("?age=42", [("GET", 42.0)]), ("", [("GET", 0.0)]), ("?age=soon", [])],
)
def test_the_transport_reads_ages_if_it_is_asked_to(
    query: str, ages: list[tuple[str, float]], told: list[tuple[str, float]]
) -> None:
    for asked in (True, False):
        transport = Transport(httpx.MockTransport(answers), guard=Guard("t"), ages=asked)
        with httpx.Client(transport=transport) as client:
            assert client.get(f"http://t/{query}").status_code == 200
    assert told == ages


async def both(told: list[tuple[str, float]]) -> None:
    transport = Transport(httpx.MockTransport(answers), guard=Guard("t"), ages=True)
    async with httpx.AsyncClient(transport=transport) as client:
        await client.get("http://t/?age=3", extensions={"operation": "list"})
    assert told == [("list", 3.0)]


def test_the_async_one_too(told: list[tuple[str, float]]) -> None:
    asyncio.run(both(told))
