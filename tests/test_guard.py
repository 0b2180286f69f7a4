"""The front of a guard: its forms, its policies, and its reactions end to end."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any

import pytest

from brownout import (
    Attempt,
    Breaker,
    BreakerOpen,
    ConfigurationError,
    DeadlinePassed,
    Guard,
    LimitReached,
    OutcomeClass,
    OutcomeUnknown,
    Phase,
    Refused,
    Retry,
    Shown,
    State,
    deadline,
    remaining,
)
from brownout._core.breaker import CLOSED, OPEN, RAMP
from brownout.testing import FakeClock, Script, answer, fail
from tests.seen import classes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NO = ConnectionRefusedError(111, "no")


# ---------------------------------------------------------------------------------------- forms


def test_a_decorator_keeps_name_signature_and_colour(clock: FakeClock) -> None:
    guard = Guard("t")

    @guard
    def price(sku: str, *, n: int = 1) -> str:
        """Says what it costs."""
        return f"{n} {sku}"

    @guard
    async def aprice(sku: str, *, n: int = 1) -> str:
        return f"{n} {sku}"

    assert price("A", n=2) == "2 A"
    assert clock.run(aprice("A", n=2)) == "2 A"
    assert (price.__name__, price.__doc__) == ("price", "Says what it costs.")
    assert str(inspect.signature(price)) == str(inspect.signature(aprice))
    assert inspect.iscoroutinefunction(aprice)
    assert not inspect.iscoroutinefunction(price)
    assert set(guard._target.operations) == {"price", "aprice"}


def test_methods_partials_and_callables_are_guarded(clock: FakeClock) -> None:
    guard = Guard("t")

    class Client:
        @guard
        def get(self, sku: str) -> tuple[str, str]:
            return type(self).__name__, sku

        @staticmethod
        @guard
        def ping() -> str:
            return "pong"

        def plain(self, sku: str) -> str:
            return sku

        def __call__(self, sku: str) -> str:
            return f"called {sku}"

    class AsyncClient:
        async def __call__(self, sku: str) -> str:
            await asyncio.sleep(0)
            return f"awaited {sku}"

        async def get(self, sku: str) -> str:
            return sku

    assert Client().get("A") == ("Client", "A")
    assert Client.ping() == "pong"
    assert guard.call(Client().plain, "A") == "A"
    assert guard.call(functools.partial(Client().plain, "A")) == "A"
    assert guard.call(Client(), "A") == "called A"
    assert clock.run(guard.acall(AsyncClient(), "A")) == "awaited A"
    assert clock.run(guard.acall(AsyncClient().get, "A")) == "A"
    assert clock.run(guard.acall(functools.partial(AsyncClient(), "A"))) == "awaited A"
    decorated = guard(AsyncClient())
    assert inspect.iscoroutinefunction(decorated)
    assert clock.run(decorated("A")) == "awaited A"
    assert classes(guard) == {"SUCCESS": 9}
    assert {"get", "ping", "plain", "Client", "AsyncClient"} == set(guard._target.operations)


async def work() -> str:
    return "ok"


def sync_work() -> str:
    return "ok"


def stream() -> Iterator[int]:
    yield 1


@contextmanager
def block() -> Iterator[int]:
    yield 1


async def astream() -> Any:
    yield 1


class Stream:
    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize("fn", [stream, astream, block, Stream(), functools.partial(stream), int])
def test_a_call_that_is_not_the_work_is_refused_at_once(fn: Callable[..., Any]) -> None:
    guard = Guard("t")
    for form in (guard, guard.call, guard.outcome):
        with pytest.raises(TypeError, match=r"class|generator"):
            form(fn)
    assert guard._target.operations == {}


def test_the_wrong_colour_is_refused_at_once() -> None:
    guard = Guard("t")
    hidden: Any = work
    with pytest.raises(TypeError, match="acall"):
        guard.call(hidden)
    with pytest.raises(TypeError, match="acall"):
        guard.call(functools.partial(hidden))
    coroutine: Any = guard.acall(sync_work)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not async"):
        coroutine.send(None)
    with pytest.raises(TypeError, match="not callable"):
        guard.call("work")  # type: ignore[arg-type]


def test_an_async_fallback_of_a_sync_function_is_refused_at_once(clock: FakeClock) -> None:
    guard = Guard("t", fallback=work)
    with pytest.raises(TypeError, match="fallback"):
        guard(sync_work)
    with pytest.raises(TypeError, match="fallback"):
        guard.call(sync_work)
    assert guard.outcome(sync_work).succeeded  # it uses no fallback
    assert clock.run(guard.acall(work)) == "ok"


def test_all_faults_are_told_at_once() -> None:
    wrong: dict[str, Any] = {
        "timeout": 0,
        "retry": Retry(attempts=1, budget=2.0, backoff=3.0, backoff_most="x"),  # type: ignore[arg-type]
        "breaker": Breaker(probes=0, wait=-1.0, open_at=State.HEALTHY, lease=float("inf")),
        "limit": 0,
        "fallback": 3,
        "answers": KeyError,
        "health": "ftp://user:secret@host",
    }
    with pytest.raises(ConfigurationError) as caught:
        Guard("postgres://user:secret@host", **wrong)
    text = str(caught.value)
    for word in (
        "URL", "timeout=", "attempts=", "budget=", "backoff=", "probes=", "wait=", "open_at=",
        "lease=", "limit=", "fallback=", "answers=", "health",
    ):  # fmt: skip
        assert word in text
    assert "secret" not in text
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": ""},
        {"target": 3},
        {"target": "a\x1b[31m"},
        {"timeout": float("nan")},
        {"timeout": True},
        {"limit": 1.5},
        {"retry": 3},
        {"breaker": True},
        {"breaker": Breaker(open_at="DEGRADED")},  # type: ignore[arg-type]
        {"breaker": Breaker(wait=60.0)},
        {"health": "host:80"},
        {"health": work},
    ],
)
def test_each_fault_is_a_configuration_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Guard(**{"target": "t", **wrong})


@pytest.mark.parametrize("seconds", [-1, float("nan"), True, "2"])
def test_a_deadline_is_a_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match="deadline"):
        deadline(seconds)


def test_too_many_operations_land_in_other(clock: FakeClock) -> None:
    guard = Guard("t")
    for n in range(100):
        guard.call(sync_work, operation=f"op{n}")
    assert len(guard._target.operations) == 33
    assert guard._target.operations["other"].evidence.calls == 68


# ------------------------------------------------------------------------------------- reactions


def test_an_uncertain_failure_is_repeated_only_if_that_is_safe(clock: FakeClock) -> None:
    guard = Guard("t", retry=Retry(attempts=2, budget=1.0))
    for idempotent, sent in ((None, 1), (True, 2), (False, 1)):
        guard._target.budget.balance = 5.0
        script = Script(clock, fail(ConnectionResetError("mid-air")), answer("ok"))
        try:
            assert guard.call(script.call, idempotent=idempotent) == "ok"
        except ConnectionResetError:
            pass
        assert len(script.called_at) == sent


def test_a_keyed_call_is_repeated_and_its_unknown_carries_the_key(clock: FakeClock) -> None:
    guard = Guard("t", retry=Retry(attempts=2, budget=1.0))
    guard._target.budget.balance = 5.0
    script = Script(clock, fail(ConnectionResetError("mid-air")), answer("ok"))
    assert guard.call(script.call, key="order-1") == "ok"
    seen: list[str | None] = []

    def work(attempt: Attempt) -> None:
        seen.append(attempt.key)
        raise OutcomeUnknown("?", target="t", sent_at=0.0, phase=Phase.SENT)

    with pytest.raises(OutcomeUnknown) as error:
        guard.call(work, key="order-2", with_attempt=True)
    assert error.value.key == "order-2"
    assert seen == ["order-2", "order-2"]
    lost = Script(clock, fail(ConnectionResetError("mid-air")))
    unknown = guard.outcome(lost.call, key="order-3", idempotent=False)
    assert (unknown.unknown, unknown.key) == (True, "order-3")


def test_what_is_said_not_to_be_idempotent_is_not_repeated_with_a_key_either(
    clock: FakeClock,
) -> None:
    guard = Guard("t", retry=Retry(attempts=2, budget=1.0))
    script = Script(clock, fail(ConnectionResetError("mid-air")), answer("ok"))
    with pytest.raises(ConnectionResetError):
        guard.call(script.call, key="order-1", idempotent=False)


@pytest.mark.parametrize("key", ["", "k" * 256, 7])
def test_a_key_is_a_text_of_a_bounded_length(clock: FakeClock, key: Any) -> None:
    with pytest.raises(ValueError, match="1 to 255 characters"):
        Guard("t").call(sync_work, key=key)


def test_what_was_never_sent_is_repeated(clock: FakeClock) -> None:
    guard = Guard("t", retry=Retry(attempts=3, budget=1.0, backoff=0.1))
    guard._target.budget.balance = 5.0
    script = Script(clock, fail(NO), fail(NO), answer("ok"))
    began = clock.now()
    assert guard.call(script.call) == "ok"
    first, second = (b - a for a, b in zip(script.called_at, script.called_at[1:], strict=False))
    assert 0.05 <= first <= 0.1
    assert 0.1 <= second <= 0.2
    assert clock.now() - began < 0.31


def test_a_targets_own_answer_is_neither_repeated_nor_replaced(clock: FakeClock) -> None:
    guard = Guard(
        "t",
        retry=Retry(budget=1.0),
        idempotent=True,
        answers=(KeyError,),
        fallback=lambda: "spare",
    )
    script = Script(clock, fail(KeyError("no such")))
    with pytest.raises(KeyError):
        guard.call(script.call)
    assert len(script.called_at) == 1
    assert classes(guard) == {"SUCCESS": 1}


def test_retry_after_is_waited_for_if_there_is_time(clock: FakeClock) -> None:
    guard = Guard("t", retry=Retry(attempts=2, budget=1.0))
    busy = Shown.of(OutcomeClass.OVERLOAD, 1.5)
    for seconds, sent in ((5.0, 2), (1.0, 1)):
        guard._target.budget.balance = 5.0
        script = Script(clock, fail(RuntimeError("busy")), answer("ok"))
        began = clock.now()
        with deadline(seconds):
            guard.outcome(script.call)
            script.called_at.clear()
            try:
                guard.call(script.call, classify=lambda _: busy)
            except RuntimeError:
                assert clock.now() == began  # it does not wait for what it can't do
        assert len(script.called_at) == sent
        assert (clock.now() - began >= 1.5) == (sent == 2)


@pytest.mark.parametrize("budget", [0.1, 0.5])
def test_a_total_outage_is_not_amplified_beyond_the_budget(clock: FakeClock, budget: float) -> None:
    guard = Guard("t", retry=Retry(attempts=10, budget=budget, backoff=0.0), breaker=None)
    script = Script(clock, fail(NO))
    for _ in range(500):
        with pytest.raises(ConnectionRefusedError):
            guard.call(script.call)
        clock.advance(0.01)
    assert 500 * (1 + budget) - 11 <= len(script.called_at) <= 500 * (1 + budget) + 1


def test_threads_that_ask_in_the_wrong_order_earn_nothing_twice() -> None:
    budget = Guard("t")._target.budget
    budget.balance = 0.0
    budget.spend(6, 0.1)
    budget.spend(5, 0.1)
    budget.spend(6, 0.1)
    assert budget.balance == pytest.approx(0.6)


def test_guards_of_one_name_share_evidence_and_budget(clock: FakeClock) -> None:
    one = Guard("t", retry=Retry(attempts=2, budget=0.1, backoff=0.0))
    other = Guard("t", retry=Retry(attempts=2, budget=0.1, backoff=0.0))
    apart = Guard("else", retry=Retry(attempts=2, budget=0.1, backoff=0.0))
    script = Script(clock, fail(NO))
    for guard in (one, other, apart):
        with pytest.raises(ConnectionRefusedError):
            guard.call(script.call)
    assert len(script.called_at) == 2 + 1 + 2  # the first token was spent by `one`
    clock.advance(1.0)
    assert one.verdict.number("refused") == other.verdict.number("refused") == 3
    assert apart.verdict.number("refused") == 2


def test_a_refusal_is_neither_repeated_nor_settled_nor_evidence(clock: FakeClock) -> None:
    guard = Guard("t", limit=1, retry=Retry(budget=1.0), idempotent=True)

    def nested() -> None:
        guard.call(sync_work)

    with pytest.raises(LimitReached, match="limit=1") as caught:
        guard.call(nested)
    assert (caught.value.target, caught.value.state) == ("t", None)
    with deadline(0.0), pytest.raises(DeadlinePassed):
        guard.call(sync_work)
    clock.advance(1.0)
    assert classes(guard) == {"LOCAL": 1}  # the outer attempt, which the inner refusal ended
    assert guard.verdict.number("calls") == 0
    assert guard._target.calls == 1
    assert guard._core.limit is not None
    assert guard._core.limit.in_use == 0


def test_a_fallback_gets_the_arguments(clock: FakeClock) -> None:
    asked = []

    def spare(sku: str, *, n: int) -> str:
        asked.append((sku, n))
        return "spare"

    guard = Guard("t", fallback=spare, limit=1)
    script = Script(clock, fail(RuntimeError("odd")))
    assert guard.call(lambda sku, *, n: script.call(), "A", n=2) == "spare"
    with deadline(0.0):
        assert guard.call(lambda sku, *, n: "never", "B", n=3) == "spare"
    assert asked == [("A", 2), ("B", 3)]


def test_a_fallback_that_fails_says_so_and_why(clock: FakeClock) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    guard = Guard("t", fallback=broken)
    with pytest.raises(ZeroDivisionError) as caught:
        guard.call(Script(clock, fail(RuntimeError("odd"))).call)
    assert isinstance(caught.value.__context__, RuntimeError)


def test_a_nested_deadline_only_shortens(clock: FakeClock) -> None:
    with deadline(1.0):
        with deadline(5.0) as end:
            assert end == clock.now() + 1.0
        with deadline(0.5):
            assert remaining() == 0.5
        assert remaining() == 1.0
    assert remaining() == float("inf")


# --------------------------------------------------------------------------- the breaker, for real

Fn = "Callable[[], Any]"


def traffic(
    clock: FakeClock, guard: Guard, seconds: float, call: Callable[[], Any], rate: float = 100.0
) -> dict[str, int]:
    """Calls at a rate, one after the other; how they ended, by name."""
    ends: dict[str, int] = {}
    end = clock.now() + seconds
    while clock.now() < end:
        due = clock.now() + 1 / rate
        try:
            guard.call(call, operation="op")
            name = "ok"
        except Exception as error:
            name = type(error).__name__
        ends[name] = ends.get(name, 0) + 1
        clock.advance(max(0.0, due - clock.now()))
    return ends


def well(clock: FakeClock) -> Callable[[], str]:
    def call() -> str:
        clock.advance(0.004)
        return "ok"

    return call


def silent(clock: FakeClock) -> Callable[[], str]:
    def call() -> str:
        clock.advance(remaining())
        raise TimeoutError

    return call


def refuses() -> None:
    raise NO


def failing(clock: FakeClock, share: float) -> Callable[[], str]:
    count = 0

    def call() -> str:
        nonlocal count
        count += 1
        clock.advance(0.004)
        if int(count * share) > int((count - 1) * share):
            raise RuntimeError("odd")
        return "ok"

    return call


def phase(guard: Guard) -> Any:
    """What the guard's gate before the operation "op" does."""
    return guard._core.gates[guard._target.operations["op"]].phase


def crashed(clock: FakeClock, **how: Any) -> Guard:
    """A guard that has seen its target well, then crash, and whose breaker is open."""
    guard = Guard("t", timeout=0.2, **how)
    traffic(clock, guard, 15.0, well(clock))
    traffic(clock, guard, 1.6, refuses)
    assert guard.state is State.CRASHED
    assert phase(guard) is OPEN
    return guard


def test_without_evidence_there_is_no_state(clock: FakeClock) -> None:
    guard = Guard("t")
    assert guard.state is None
    assert not guard.at_least(State.HEALTHY)
    guard.call(sync_work)
    clock.advance(1.0)
    assert guard.state is None
    assert "no evidence" in guard.verdict.because


def test_a_silent_target_is_unresponsive_and_opens_the_breaker(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.2)
    traffic(clock, guard, 15.0, well(clock))
    assert guard.verdict.state is State.HEALTHY
    ends = traffic(clock, guard, 6.0, silent(clock))
    assert guard.state is State.UNRESPONSIVE
    assert guard.at_least(State.OVERLOADED)
    assert ends["BreakerOpen"] > 100
    with pytest.raises(BreakerOpen, match="UNRESPONSIVE") as caught:
        guard.call(sync_work, operation="op")
    assert caught.value.state is State.UNRESPONSIVE
    assert caught.value.retry_after is not None


def test_a_refusing_target_is_crashed_and_opens_the_breaker(clock: FakeClock) -> None:
    guard = crashed(clock)
    before = guard.verdict.number("refused")
    assert set(traffic(clock, guard, 0.5, refuses)) == {"BreakerOpen"}
    assert guard.verdict.number("refused") == before  # our own refusals are no evidence


@pytest.mark.parametrize("share", [0.2, 0.3])
def test_a_partial_failure_is_named_and_admitted(clock: FakeClock, share: float) -> None:
    guard = Guard("t", timeout=0.2)
    traffic(clock, guard, 15.0, well(clock))
    ends = traffic(clock, guard, 20.0, failing(clock, share))
    assert set(ends) == {"ok", "RuntimeError"}
    assert guard.state is State.DEGRADED
    assert phase(guard) is CLOSED


def test_a_breaker_opens_where_it_was_told_to(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.2, breaker=Breaker(open_at=State.DEGRADED))
    traffic(clock, guard, 15.0, well(clock))
    ends = traffic(clock, guard, 10.0, failing(clock, 0.3))
    assert ends["BreakerOpen"] > 100


def test_without_a_breaker_everything_is_admitted(clock: FakeClock) -> None:
    guard = Guard("t", timeout=0.2, breaker=None)
    traffic(clock, guard, 15.0, well(clock))
    assert set(traffic(clock, guard, 3.0, refuses)) == {"ConnectionRefusedError"}
    assert guard.state is State.CRASHED


def test_it_recovers_by_probes_and_a_ramp_and_ends_closed(clock: FakeClock) -> None:
    guard = crashed(clock)
    seen: list[Any] = []
    for _ in range(400):
        traffic(clock, guard, 0.1, well(clock))
        if not seen or phase(guard) is not seen[-1]:
            seen.append(phase(guard))
        if phase(guard) is CLOSED:
            break
    assert seen[-2:] == [RAMP, CLOSED]
    assert set(traffic(clock, guard, 5.0, well(clock))) == {"ok"}
    assert guard.state is State.HEALTHY


def test_a_herd_gets_only_the_probes(clock: FakeClock) -> None:
    guard = crashed(clock)
    clock.advance(40.0)
    inside: list[int] = []

    async def main() -> list[Any]:
        go = asyncio.Event()

        async def probe() -> str:
            inside.append(1)
            await go.wait()
            return "ok"

        tasks = [asyncio.create_task(guard.acall(probe, operation="op")) for _ in range(50)]
        await asyncio.sleep(0.1)
        assert len(inside) == 3
        go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    ends = clock.run(main())
    assert sum(isinstance(end, BreakerOpen) for end in ends) == 47
    assert len(inside) == 3
    assert phase(guard) is RAMP


def test_a_herd_of_threads_gets_only_the_probes(clock: FakeClock) -> None:
    guard = crashed(clock)
    clock.advance(40.0)
    go, refused, lock = threading.Event(), threading.Event(), threading.Lock()
    ends: list[str] = []

    def call() -> None:
        try:
            guard.call(go.wait, 10.0, operation="op")
            end = "ok"
        except BreakerOpen:
            end = "refused"
        with lock:
            ends.append(end)
            if ends.count("refused") == 47:
                refused.set()

    threads = [threading.Thread(target=call) for _ in range(50)]
    for thread in threads:
        thread.start()
    assert refused.wait(10.0)
    go.set()
    for thread in threads:
        thread.join(10.0)
    assert sorted(ends) == ["ok"] * 3 + ["refused"] * 47


def test_a_hung_probe_does_not_wedge_it(clock: FakeClock) -> None:
    guard = crashed(clock)

    async def main() -> None:
        async def hangs() -> None:
            await asyncio.get_running_loop().create_future()

        await asyncio.sleep(40.0)
        # A guard of the same gate without a time-out: nothing ends these but us.
        guard._core.timeout = inf
        probes = [asyncio.create_task(guard.acall(hangs, operation="op")) for _ in range(3)]
        await asyncio.sleep(1.0)
        with pytest.raises(BreakerOpen):
            await guard.acall(work, operation="op")
        await asyncio.sleep(10.0)
        with pytest.raises(BreakerOpen):
            await guard.acall(work, operation="op")  # the leases are over: open once more
        await asyncio.sleep(40.0)
        assert await guard.acall(work, operation="op") == "ok"
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        assert [await guard.acall(work, operation="op") for _ in range(2)] == ["ok", "ok"]

    clock.run(main())
    assert phase(guard) is RAMP


def test_a_cancelled_probe_gives_its_lease_back(clock: FakeClock) -> None:
    guard = crashed(clock)

    async def main() -> None:
        async def hangs() -> None:
            await asyncio.get_running_loop().create_future()

        await asyncio.sleep(40.0)
        for _ in range(10):
            probe = asyncio.create_task(guard.acall(hangs, operation="op"))
            await asyncio.sleep(0.01)
            probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)
        assert phase(guard) not in {CLOSED, RAMP}  # a cancel says nothing good either
        assert [await guard.acall(work, operation="op") for _ in range(3)] == ["ok"] * 3

    clock.run(main())
    assert phase(guard) is RAMP


def test_a_refusal_by_the_limit_gives_the_lease_back(clock: FakeClock) -> None:
    guard = crashed(clock, limit=1)
    clock.advance(40.0)

    def occupied() -> str:
        for _ in range(5):
            with pytest.raises(LimitReached):
                guard.call(sync_work, operation="op")
        return "ok"

    assert guard.call(occupied, operation="op") == "ok"
    assert [guard.call(sync_work, operation="op") for _ in range(2)] == ["ok"] * 2
    assert phase(guard) is RAMP


def test_an_open_breaker_leaves_the_fallback(clock: FakeClock) -> None:
    guard = crashed(clock, fallback=lambda: "spare")
    assert guard.call(refuses, operation="op") == "spare"
    told = guard.outcome(refuses, operation="op")
    assert told.failed
    assert isinstance(told.error, Refused)


def test_a_refused_retry_leaves_the_first_error(clock: FakeClock) -> None:
    guard = Guard("t", retry=Retry(budget=1.0, backoff=1.0), limit=1)

    async def main() -> None:
        go = asyncio.Event()

        async def fails() -> None:
            raise NO

        call = asyncio.create_task(guard.acall(fails))
        await asyncio.sleep(0.1)  # it backs off; somebody else takes the permit meanwhile
        other = asyncio.create_task(guard.acall(go.wait))
        with pytest.raises(ConnectionRefusedError):
            await call
        go.set()
        assert await other

    clock.run(main())
    assert classes(guard) == {"CONNECT": 1, "SUCCESS": 1}


def test_one_operation_that_is_bad_leaves_the_others(clock: FakeClock) -> None:
    guard = crashed(clock)
    assert guard.call(sync_work, operation="another") == "ok"
    with pytest.raises(BreakerOpen):
        guard.call(sync_work, operation="op")


def test_a_guard_that_is_thrown_away_leaves_nothing(clock: FakeClock) -> None:
    kept = Guard("t")
    for _ in range(100):
        Guard("t").call(sync_work)
    clock.advance(1.0)
    kept.call(sync_work)
    assert len(kept._target.operations["sync_work"].gates) <= 2
