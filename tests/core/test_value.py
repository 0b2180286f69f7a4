"""Values: they never change, and two that say the same are equal."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any, ClassVar

import pytest

from brownout import Breaker, Retry
from brownout._core.value import Value


class Point(Value):
    x: int
    y: int = 0
    origin: ClassVar[int] = 7

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x: 0 or more")


def test_it_takes_its_fields_in_order_or_by_name() -> None:
    assert (Point(1).x, Point(1).y) == (1, 0)
    assert Point(1, 2) == Point(y=2, x=1)
    assert repr(Point(1)) == "Point(x=1, y=0)"
    assert str(inspect.signature(Point)) == "(x: 'int', y: 'int' = 0) -> 'None'"


@pytest.mark.parametrize(
    ("given", "named", "told"),
    [
        ((), {}, "Point() lacks the argument 'x'"),
        ((1, 2, 3), {}, "Point() takes at most 2 arguments, 3 were given"),
        ((1,), {"x": 1}, "Point() got two values for argument 'x'; it takes x, y"),
        ((1,), {"z": 1}, "Point() got an unexpected argument 'z'; it takes x, y"),
    ],
)
def test_what_does_not_fit_is_a_type_error(
    given: tuple[int, ...], named: dict[str, int], told: str
) -> None:
    with pytest.raises(TypeError) as caught:
        Point(*given, **named)
    assert str(caught.value) == told


def test_it_checks_what_it_is_given() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Point(-1)


@pytest.mark.parametrize("name", ["attempts", "other"])
def test_it_never_changes(name: str) -> None:
    retry: Any = Retry()
    with pytest.raises(AttributeError, match=f"Retry.{name} can't be changed"):
        setattr(retry, name, 5)
    with pytest.raises(AttributeError, match=f"Retry.{name} can't be deleted"):
        delattr(retry, name)
    assert retry == Retry()


def test_equal_values_are_one_in_a_set_and_others_are_not() -> None:
    assert len({Retry(), Retry(attempts=3), Retry(attempts=4)}) == 2
    assert Point(0) != Breaker()
    assert Point(0) != (0, 0)


def test_it_is_copied_pickled_and_matched() -> None:
    retry = Retry(2, backoff=0.5)
    assert pickle.loads(pickle.dumps(retry)) == copy.deepcopy(retry) == retry
    match retry:
        case Retry(attempts, backoff=backoff):
            assert (attempts, backoff) == (2, 0.5)
