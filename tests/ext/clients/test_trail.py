"""What a task or thread has done since an attempt began: certain of a last try is not certain of all."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from brownout import Certainty, Guard, OutcomeClass, Retry
from brownout.ext import clients
from brownout.ext.trail import certain, lost, mark, tell, trail


class Lost(Exception):
    pass


def fails(*shown: Any) -> None:
    """One try after another, as a client makes them by itself; the last one is what its caller sees."""
    error = Lost()
    for each in shown:
        error = Lost()
        tell(error, each)
    raise error


REFUSED = certain(OutcomeClass.CONNECT)


def test_the_last_try_is_believed_where_it_is_the_only_one() -> None:
    assert Guard("t").outcome(fails, REFUSED).failed
    assert Guard("t").outcome(fails, REFUSED, REFUSED).failed
    assert Guard("t").outcome(fails, lost()).unknown


def test_one_unknown_try_makes_all_of_them_unknown() -> None:
    assert Guard("t").outcome(fails, lost(), REFUSED).unknown


def test_what_an_earlier_call_left_unknown_does_not_matter_to_the_next() -> None:
    guard = Guard("t", breaker=None)
    assert guard.outcome(fails, lost()).unknown
    assert guard.outcome(fails, REFUSED).failed


def test_a_guard_tries_again_what_is_certain_and_nothing_else() -> None:
    guard = Guard("t", retry=Retry(attempts=3, budget=1.0, backoff=0.001))
    assert guard.outcome(fails, REFUSED).attempts == 3
    assert guard.outcome(fails, lost()).attempts == 1


def test_an_outer_guard_knows_what_an_inner_ones_attempts_left_unknown() -> None:
    inner = Guard("in", retry=Retry(attempts=2, backoff=0.001), breaker=None)
    tries = iter([lost(), REFUSED])

    def call() -> None:
        inner.call(lambda: fails(next(tries)), key="order-1")

    assert Guard("out", breaker=None).outcome(call).unknown


def test_what_is_raised_from_it_says_the_same_and_what_only_happened_meanwhile_does_not() -> None:
    def raised_from() -> None:
        try:
            fails(REFUSED)
        except Lost as error:
            raise RuntimeError from error

    def meanwhile() -> None:
        try:
            fails(REFUSED)
        except Lost:
            raise RuntimeError  # noqa: B904 - what it came from is the point

    assert Guard("t", breaker=None).outcome(raised_from).failed
    assert Guard("t", breaker=None).outcome(meanwhile).unknown


def test_what_another_thread_does_is_its_own() -> None:
    def call() -> None:
        other = threading.Thread(target=mark)
        other.start()
        other.join()
        fails(REFUSED)

    assert Guard("t").outcome(call).failed


async def _tasks(guard: Guard) -> tuple[bool, bool]:
    async def done() -> None:
        mark()

    async def by_a_child() -> None:
        trail()
        await asyncio.create_task(done())
        fails(REFUSED)

    async def alone() -> None:
        await asyncio.sleep(0.01)
        fails(REFUSED)

    first = await guard.outcome(by_a_child)
    sibling = asyncio.create_task(done())
    second = await asyncio.create_task(guard.outcome(alone))
    await sibling
    return first.unknown, second.failed


def test_what_a_child_task_did_is_its_parents_and_a_siblings_is_not() -> None:
    assert asyncio.run(_tasks(Guard("t", breaker=None))) == (True, True)


async def _left(guard: Guard, shown: Any) -> Any:
    async def call() -> None:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError as error:
            tell(error, shown)
            raise

    return await guard.outcome(call)


def test_a_time_out_is_as_certain_as_what_it_ended() -> None:
    for shown, known in ((REFUSED, Certainty.ABSENT), (lost(), Certainty.UNKNOWN)):
        outcome = asyncio.run(_left(Guard("t", timeout=0.05, breaker=None), shown))
        assert outcome.certainty is known


def test_the_trail_is_no_longer_than_it_must_be() -> None:
    async def deep(levels: int) -> int:
        if levels:
            trail()
            return await asyncio.create_task(deep(levels - 1))
        return len(trail().above)

    assert asyncio.run(deep(30)) <= 8


def test_the_installed_clients_are_asked_for_what_they_send_again() -> None:
    found = {each.name: each for each in clients.installed()}
    assert found["urllib3"].resends.startswith("DELETE, PUT, up to 3 times")
    assert found["aiohttp"].resends.startswith("DELETE, PUT")
    assert found["requests"].resends == found["asyncpg"].advice == ""
