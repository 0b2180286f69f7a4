"""One script, every driver, one trace."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brownout import (
    Attempt,
    Breaker,
    Guard,
    Outcome,
    OutcomeClass,
    Refused,
    Retry,
    Shown,
    deadline,
)
from brownout import _guard as registry
from brownout._core import flow
from brownout._core.flow import Start, Wait
from brownout._core.guard import Core
from brownout._drive import aio, threads, virtual, wheel
from brownout.testing import FakeClock, Script, Step, answer, fail, hang

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from brownout._core.operation import Operation

Trace = list[tuple[Any, ...]]


class Recorder:
    """Writes down what the flow asks for and what is settled."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.trace: Trace = []
        settle, succeed, admit = Core.settle, Core.succeed, Core.admit

        def settled(
            core: Core, operation: Operation, attempt: Attempt, class_: OutcomeClass, now: float
        ) -> bool:
            counted = settle(core, operation, attempt, class_, now)
            self.trace.append(("settle", class_.name, counted))
            return counted

        def succeeded(core: Core, operation: Operation, attempt: Attempt, now: float) -> bool:
            counted = succeed(core, operation, attempt, now)
            self.trace.append(("settle", "SUCCESS", counted))
            return counted

        def admitted(*args: Any, **kwargs: Any) -> Attempt | Refused:
            admission = admit(*args, **kwargs)
            self.trace.append(("admit", type(admission).__name__))
            return admission

        patch.setattr(wheel, "SLOT_SECONDS", 1e-6)  # its coarseness would make ties
        patch.setattr(Core, "settle", settled)
        patch.setattr(Core, "succeed", succeeded)
        patch.setattr(Core, "admit", admitted)
        patch.setattr(threads, "recover", self.recover)
        patch.setattr(aio, "recover", self.recover)
        patch.setattr(virtual, "recover", self.recover)

    def recover(self, *args: Any) -> Generator[Any, Any, Any]:
        real = flow.recover(*args)
        command: Any = next(real, None)
        try:
            while True:
                if isinstance(command, Start):
                    what = "attempt" if isinstance(command.what, Attempt) else command.what
                    self.trace.append(("start", command.n, what))
                elif isinstance(command, Wait) and self.trace[-1][0] == "settle":
                    self.trace.append(("back off", round(command.seconds, 6)))
                command = real.send((yield command)) if command else next(real)
        except StopIteration as stop:
            return stop.value


def fresh_guard(**how: Any) -> Guard:
    registry._registry.clear()
    guard = Guard("parity", **how)
    guard._core._chance = lambda: 0.5
    return guard


def tell(outcome: Outcome[Any]) -> tuple[Any, ...]:
    return (outcome.value, type(outcome.error), outcome.certainty, outcome.attempts)


def by_threads(guard: Guard, script: Script, seconds: float) -> Any:
    with deadline(seconds):
        return guard.call(script.call, operation="op")


async def by_asyncio(guard: Guard, script: Script, seconds: float) -> Any:
    with deadline(seconds):
        return await guard.acall(script.acall, operation="op")


def by_virtual_time(clock: FakeClock, guard: Guard, script: Script, seconds: float) -> Any:
    """It has no clock: the fake one is only told, for the script's record and the next call."""
    world, ends = virtual.Virtual(clock.now()), list[flow.Done]()
    options = guard._options(lambda: None, "op")
    world.call(guard._core, options, script._next, ends.append, clock.now() + seconds)
    world.run()
    clock.advance(world.now() - clock.now())
    (done,) = ends
    if done.error is not None:
        raise done.error
    return done.value


def each(
    steps: tuple[Step, ...], seconds: float, how: dict[str, Any]
) -> list[tuple[Trace, list[Any]]]:
    """The trace and the end of the same calls under each driver: three calls in a row."""
    told: list[tuple[Trace, list[Any]]] = []
    for run in (
        lambda clock, guard, script: by_threads(guard, script, seconds),
        lambda clock, guard, script: clock.run(by_asyncio(guard, script, seconds)),
        lambda clock, guard, script: by_virtual_time(clock, guard, script, seconds),
    ):
        with pytest.MonkeyPatch.context() as patch, FakeClock() as clock:
            recorder = Recorder(patch)
            guard, script = fresh_guard(**how), Script(clock, *steps)
            ends = [ended(run, clock, guard, script) for _ in range(3)]
            told.append((recorder.trace, ends))
    return told


def ended(run: Callable[..., Any], *args: Any) -> tuple[str, Any]:
    try:
        return "value", run(*args)
    except TimeoutError as error:
        # TimedOut of ours under asyncio; the client's own TimeoutError under threads.
        return "error", "DeadlinePassed" if isinstance(error, Refused) else "TimeoutError"
    except BaseException as error:
        return "error", (type(error).__name__, getattr(error, "__notes__", []))


# Whole hundredths never meet the odd thousandths of back-offs and deadlines: no ties.
durations = st.integers(0, 40).map(lambda n: n / 100)
steps = st.one_of(
    st.builds(lambda s: answer("ok", seconds=s), durations),
    st.builds(lambda s: fail(RuntimeError("odd"), seconds=s), durations),
    st.builds(lambda s: fail(ConnectionRefusedError(111, "no"), seconds=s), durations),
    st.builds(lambda s: fail(KeyError("no such"), seconds=s), durations),
    st.builds(lambda s: fail(asyncio.CancelledError(), seconds=s), durations),
    st.just(hang()),
)


@given(
    script=st.lists(steps, min_size=1, max_size=6).map(tuple),
    seconds=st.sampled_from([1.5037, 0.3037, 60.0037]),
    attempts=st.sampled_from([2, 4]),
    idempotent=st.booleans(),
    fallback=st.booleans(),
    limit=st.sampled_from([None, 1]),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_driver_decides_the_same(
    script: tuple[Step, ...],
    seconds: float,
    attempts: int,
    idempotent: bool,
    fallback: bool,
    limit: int | None,
) -> None:
    how = {
        "timeout": 0.5011,
        "retry": Retry(attempts=attempts, budget=1.0, backoff=0.0771),
        "idempotent": idempotent,
        "answers": (KeyError,),
        "limit": limit,
        "fallback": (lambda *_: "spare") if fallback else None,
        "breaker": None,
    }
    one, other, third = each(script, seconds, how)
    assert one == other == third
    counted = [entry for entry in one[0] if entry[0] == "settle"]
    admitted = [entry for entry in one[0] if entry == ("admit", "Attempt")]
    assert len(counted) == len(admitted)  # each admit is settled, and once
    assert all(entry[2] for entry in counted)


def test_the_trace_is_the_one_that_was_meant() -> None:
    """Against a recorder that records nothing: this trace is written out by hand."""
    how: dict[str, Any] = {"timeout": 0.5, "retry": Retry(attempts=3, budget=1.0), "breaker": None}
    steps = (fail(ConnectionRefusedError(111, "no")), answer("ok"))
    one, other, third = each(steps, 60.0, how)
    expected = [
        ("admit", "Attempt"),
        ("settle", "CONNECT", True),
        ("back off", 0.0375),
        ("admit", "Attempt"),
        ("start", 1, "attempt"),
        ("settle", "SUCCESS", True),
    ]
    assert one[0][:6] == other[0][:6] == third[0][:6] == expected


def outcomes(steps: tuple[Step, ...], how: dict[str, Any]) -> list[tuple[Any, ...]]:
    told = []
    with FakeClock() as clock:
        guard, script = fresh_guard(**how), Script(clock, *steps)
        told.append(tell(guard.outcome(script.call)))
    with FakeClock() as clock:
        guard, script = fresh_guard(**how), Script(clock, *steps)
        told.append(tell(clock.run(guard.outcome(script.acall))))
    return told


@pytest.mark.parametrize(
    ("step", "ends"),
    [
        (answer("ok"), ("succeeded",)),
        (fail(ConnectionRefusedError(111, "no")), ("failed",)),
        (fail(RuntimeError("odd")), ("unknown",)),
        (fail(KeyError("no such")), ("failed",)),
        (hang(), ("unknown",)),
    ],
)
def test_an_outcome_has_one_of_three_values(step: Step, ends: tuple[str]) -> None:
    how: dict[str, Any] = {"timeout": 0.5, "answers": (KeyError,)}
    for run in ("call", "acall"):
        with FakeClock() as clock:
            guard, script = fresh_guard(**how), Script(clock, step)
            told: Outcome[Any] = (
                guard.outcome(script.call)
                if run == "call"
                else clock.run(guard.outcome(script.acall))
            )
        names = ("succeeded", "failed", "unknown")
        assert tuple(name for name in names if getattr(told, name)) == ends


def test_an_outcome_is_the_same_under_every_driver() -> None:
    how: dict[str, Any] = {"retry": Retry(attempts=3, budget=1.0), "idempotent": True}
    no = fail(ConnectionRefusedError(111, "no"))
    assert len(set(outcomes((no, no, answer("ok")), how))) == 1
    assert len(set(outcomes((fail(OSError("x")), no, no), how))) == 1


def test_once_unknown_a_later_certain_failure_does_not_make_it_certain() -> None:
    how: dict[str, Any] = {
        "retry": Retry(attempts=2, budget=1.0),
        "idempotent": True,
        "timeout": 0.5,
    }
    steps = (hang(), fail(ConnectionRefusedError(111, "no")))
    with FakeClock() as clock:
        told = fresh_guard(**how).outcome(Script(clock, *steps).call)
    assert told.unknown
    assert told.attempts == 2


def test_refused_is_a_failure_for_certain() -> None:
    with FakeClock() as clock, deadline(0.0):
        told = fresh_guard().outcome(Script(clock, answer()).call)
        other = clock.run(fresh_guard().outcome(Script(clock, answer()).acall))
    assert told.failed
    assert other.failed
    assert told.attempts == other.attempts == 0


class Left(BaseException):
    """What a signal handler might raise."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, Left])
def test_what_is_no_exception_is_settled_and_raised(
    clock: FakeClock, error: type[BaseException]
) -> None:
    guard = fresh_guard(
        limit=1,
        retry=Retry(budget=1.0),
        idempotent=True,
        fallback=lambda: "spare",
    )
    script = Script(clock, fail(error()))
    with pytest.raises(error):
        guard.call(script.call)
    with pytest.raises(error):
        guard.outcome(script.call)
    assert len(script.called_at) == 2
    assert guard._core.limit is not None
    assert guard._core.limit.in_use == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, asyncio.CancelledError])
def test_a_cancel_is_never_repeated_whatever_classify_says(
    clock: FakeClock, error: type[BaseException]
) -> None:
    guard = fresh_guard(retry=Retry(budget=1.0), limit=1)
    script = Script(clock, fail(error()))
    connect = Shown.of(OutcomeClass.CONNECT)
    with pytest.raises(error):
        guard.call(script.call, classify=lambda _: connect)
    assert len(script.called_at) == 1


def test_a_cancel_is_never_repeated_whatever_the_attempt_was_told(clock: FakeClock) -> None:
    guard = fresh_guard(retry=Retry(budget=1.0), limit=1)
    calls = []

    def overloaded(attempt: Attempt) -> None:
        calls.append(1)
        attempt.settle(OutcomeClass.OVERLOAD)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guard.call(overloaded, with_attempt=True)
    assert len(calls) == 1


def test_a_classify_that_raises_loses_no_permit(clock: FakeClock) -> None:
    guard = fresh_guard(limit=1, breaker=Breaker())

    def broken(_: BaseException) -> Shown:
        raise ZeroDivisionError("classify is broken")

    error = RuntimeError("odd")
    with pytest.raises(RuntimeError) as caught:
        guard.call(Script(clock, fail(error)).call, classify=broken)
    assert caught.value is error
    assert "classify" in "".join(error.__notes__)
    assert guard._core.limit is not None
    assert guard._core.limit.in_use == 0
