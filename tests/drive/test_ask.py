"""Asking what became of a key: every driver asks the same, at the same instants, and is told the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brownout import remaining
from brownout._core import resolver
from brownout._core.flow import Ask, Wait
from brownout._core.ledger import Answer, Reply, Standing
from brownout._core.resolver import Told, Wanted
from brownout._drive import aio, threads, virtual
from brownout.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

KEY = "019ebd66-1ffd-7e2a-8a59-000000000000"
WITHIN = 5.0


class Question(NamedTuple):
    """How a question ends: after so long, with an answer or an error."""

    seconds: float
    value: Any = None
    error: BaseException | None = None


class Asked:
    """Answers by a script, the last one again and again, and writes down what it was asked."""

    def __init__(self, *script: Question) -> None:
        self._script = script
        self.trace: list[tuple[Any, ...]] = []
        self._asked = 0

    def next(self, command: Ask) -> Question:
        question = self._script[min(self._asked, len(self._script) - 1)]
        self._asked += 1
        return question

    def flow(self, now: float, *, void: bool) -> Generator[Any, Any, Told]:
        """The real flow, observed."""
        wanted = Wanted(KEY, now + WITHIN, void)
        real = resolver.resolve(wanted, lambda: 0.5, lambda: True, now)
        command: Any = next(real)
        try:
            while True:
                kind = ("wait",) if isinstance(command, Wait) else ("ask", command.void)
                self.trace.append((*kind, round(command.seconds, 6)))
                command = real.send((yield command))
        except StopIteration as stop:
            told: Told = stop.value
            self.trace.append((told.answer, type(told.error).__name__, told.asked, told.never))
            return told


def by_threads(clock: FakeClock, asked: Asked, *, void: bool) -> None:
    def ask(command: Ask) -> Any:
        question = asked.next(command)
        assert remaining() == pytest.approx(command.seconds)
        if question.seconds > command.seconds:
            clock.sleep(command.seconds)
            raise TimeoutError("the question took too long")
        clock.sleep(question.seconds)
        if question.error is not None:
            raise question.error
        return question.value

    threads.drive(asked.flow(clock.now(), void=void), None, ask, (), {})


def by_asyncio(clock: FakeClock, asked: Asked, *, void: bool) -> None:
    async def ask(command: Ask) -> Any:
        question = asked.next(command)
        await asyncio.sleep(question.seconds)
        if question.error is not None:
            raise question.error
        return question.value

    async def main() -> None:
        core: Any = None
        await aio.drive(asked.flow(clock.now(), void=void), core, None, ask, (), {})

    clock.run(main())


def by_virtual_time(clock: FakeClock, asked: Asked, *, void: bool) -> None:
    world, ends = virtual.Virtual(clock.now()), list[Told]()
    world.resolve(asked.flow(clock.now(), void=void), asked.next, ends.append)
    world.run()
    assert len(ends) == 1


RUNNING, ABSENT = Answer(Standing.RUNNING, None, 0.2), Answer(Standing.ABSENT)
DONE, VOID = Answer(Standing.DONE, Reply(201)), Answer(Standing.VOID)
durations = st.sampled_from([0.0, 0.0131, 0.4003, 1.7007, 30.0])
questions = st.one_of(
    st.builds(Question, durations, st.sampled_from([RUNNING, ABSENT, RUNNING, ABSENT, DONE, VOID])),
    st.builds(Question, durations, st.just(Answer(Standing.DOUBT))),
    st.builds(Question, durations, error=st.just(ConnectionResetError("lost")), value=st.none()),
)


def traces(script: tuple[Question, ...], *, void: bool) -> list[list[tuple[Any, ...]]]:
    drivers: list[Callable[..., None]] = [by_threads, by_asyncio, by_virtual_time]
    told = []
    for drive in drivers:
        with FakeClock() as clock:
            asked = Asked(*script)
            drive(clock, asked, void=void)
            told.append(asked.trace)
            assert clock.now() <= 1000.0 + WITHIN + 0.1
    return told


@given(st.lists(questions, min_size=1, max_size=8).map(tuple), st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_driver_asks_the_same(script: tuple[Question, ...], void: bool) -> None:
    one, other, third = traces(script, void=void)
    assert one == other == third


def test_the_trace_is_the_one_that_was_meant() -> None:
    """Written out by hand: a question that is lost, one that finds it running, one that finds it done."""
    script = (
        Question(0.1, error=ConnectionResetError("lost")),
        Question(0.01, RUNNING),
        Question(0.01, DONE),
    )
    expected = [
        ("ask", False, 3.0),
        ("wait", 0.0375),
        ("ask", False, 2.8625),
        ("wait", 0.2),  # as it was asked to
        ("ask", False, 2.6525),
        (DONE, "NoneType", 3, False),
    ]
    assert traces(script, void=True) == [expected] * 3


def test_a_cancel_ends_the_asking(clock: FakeClock) -> None:
    async def ask(_: Ask) -> Any:
        await asyncio.sleep(100)

    async def main() -> Told:
        core: Any = None
        flow = Asked(Question(0.0)).flow(clock.now(), void=True)
        task = asyncio.ensure_future(aio.drive(flow, core, None, ask, (), {}))
        await asyncio.sleep(0.5)
        task.cancel()
        return await task

    told = clock.run(main())
    assert isinstance(told.error, asyncio.CancelledError)  # which whoever resolves raises
