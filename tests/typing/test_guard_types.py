"""What mypy takes the guard's forms to be. Checked by mypy over the whole file; never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from brownout import Attempt, Guard, Outcome, State, Verdict, deadline, remaining

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any


def sync_forms(guard: Guard) -> None:
    @guard
    def price(sku: str, *, n: int = 1) -> float:
        return len(sku) * n

    assert_type(price("A", n=2), float)
    assert_type(guard.call(price, "A", n=2), float)
    assert_type(guard.outcome(price, "A"), Outcome[float])
    kept: Callable[[str], float] = price
    price(3)  # type: ignore[arg-type]
    price("A", m=2)  # type: ignore[call-arg]
    kept("A")
    with guard.attempt() as attempt:
        assert_type(attempt, Attempt)


async def async_forms(guard: Guard) -> None:
    @guard
    async def price(sku: str, *, n: int = 1) -> float:
        return len(sku) * n

    kept: Callable[[str], Coroutine[Any, Any, float]] = price
    assert_type(await kept("A"), float)
    assert_type(await price("A", n=2), float)
    assert_type(await guard.acall(price, "A", n=2), float)
    assert_type(await guard.outcome(price, "A"), Outcome[float])
    await price(3)  # type: ignore[arg-type]
    async with guard.attempt() as attempt:
        assert_type(attempt, Attempt)


def methods(guard: Guard) -> None:
    class Client:
        @guard
        def get(self, sku: str) -> int:
            return len(sku)

    assert_type(Client().get("A"), int)


def seeing(guard: Guard) -> None:
    assert_type(guard.state, State | None)
    assert_type(guard.verdict, Verdict)
    assert_type(guard.at_least(State.OVERLOADED), bool)
    with deadline(2.0) as end:
        assert_type(end, float)
    assert_type(remaining(), float)


async def carrying() -> None:
    def left(sku: str, *, n: int = 1) -> int:
        return len(sku) * n

    async def left_async(sku: str) -> int:
        return len(sku)

    assert_type(deadline.carry(left)("A", n=2), int)
    deadline.carry(left)(3)  # type: ignore[arg-type]
    kept: Callable[[str], Coroutine[Any, Any, int]] = deadline.carry(left_async)
    assert_type(await kept("A"), int)
    with deadline.detach() as nothing:
        assert_type(nothing, None)


def three_values(told: Outcome[int]) -> None:
    assert_type(told.value, int | None)
    assert_type(told.error, Exception | None)
    assert_type(told.unknown, bool)
