"""What a function that is to be guarded is: its colour, its name, and whether a call of it is its work."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def check_function(fn: Callable[..., Any]) -> None:
    """Raise TypeError for what can't be guarded: a call of it is not its work."""
    import inspect

    inner: Any = inspect.unwrap(fn)
    while isinstance(inner, functools.partial):
        inner = inner.func
    if inspect.isclass(inner):
        raise TypeError(f"{name_of(fn)} is a class: guard the function that does the call")
    called = getattr(inner.__class__, "__call__", None)  # noqa: B004 - its kind is asked
    if any(
        inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one)
        for one in (inner, called)
    ):
        raise TypeError(
            f"{name_of(fn)} is a generator: its work is not done in the call; use guard.attempt()"
        )
    if not callable(fn):
        raise TypeError(f"{fn!r} is not callable")


def is_async(fn: Callable[..., Any]) -> bool:
    """Its colour: whether it is for asyncio."""
    import inspect

    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
        getattr(type(fn), "__call__", None)  # noqa: B004 - its colour is asked
    )


def name_of(fn: Callable[..., Any]) -> str:
    """What to call the operation that it is."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__name__", type(fn).__name__)
    return "lambda" if name == "<lambda>" else str(name)[:100]
