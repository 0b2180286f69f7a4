"""JSON bodies, read as toxiproxy reads them: null is absent, names ignore case, more is ignored."""

from __future__ import annotations

import json
from typing import Any, NoReturn, cast

from brownout.fault.api.answer import Problem

__all__ = ["Object", "integer", "number", "parsed_list", "parsed_object", "text", "truth", "within"]

TEXT_CHARACTERS = 255
INTEGER_LIMIT = 1 << 63

Object = dict[str, Any]


def parsed_object(body: bytes) -> Object:
    """The object that a body is. Raises Problem, as all here do."""
    return _object(_parsed(body), "the body")


def parsed_list(body: bytes) -> list[Object]:
    """The list of objects that a body is."""
    value = _parsed(body)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _bad(f"the body is a list of proxies, not {_kind(value)}")
    items: list[Any] = value  # pyright: ignore[reportUnknownVariableType] (narrowed from Any)
    return [_object(each, f"proxy {number}") for number, each in enumerate(items, 1)]


def within(given: Object, name: str) -> Object:
    """The object called `name` in another; empty if it is absent."""
    return _object(given.get(name), name)


def text(given: Object, name: str, default: str) -> str:
    """A line of text."""
    value = given.get(name, default)
    if not isinstance(value, str):
        raise _bad(f"{name} is a string, not {_kind(value)}")
    if len(value) > TEXT_CHARACTERS or not value.isprintable():
        raise _bad(f"{name} is one line of at most {TEXT_CHARACTERS} characters")
    return value


def truth(given: Object, name: str, *, default: bool) -> bool:
    """True or false."""
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise _bad(f"{name} is true or false, not {_kind(value)}")
    return value


def number(given: Object, name: str, default: float) -> float:
    """A number from 0 to 1."""
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _bad(f"{name} is a number, not {_kind(value)}")
    if not 0 <= value <= 1:
        raise _bad(f"{name} is a part of 1, from 0 to 1, not {value}")
    return value


def integer(given: Object, name: str, default: int) -> int:
    """A whole number, 0 or more, that fits 64 bits."""
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _bad(f"{name} is a whole number, not {_kind(value)}")
    if not 0 <= value < INTEGER_LIMIT:
        raise _bad(f"{name} is from 0 to 2^63 - 1")
    return value


def _parsed(body: bytes) -> Any:
    if not body.strip():
        raise _bad("it is empty")
    try:
        return json.loads(body.decode(), object_pairs_hook=_present, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _bad(str(error)) from None


def _present(pairs: list[tuple[str, Any]]) -> Object:
    return {name.lower(): value for name, value in pairs if value is not None}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")


def _object(value: Any, what: str) -> Object:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _bad(f"{what} is an object, not {_kind(value)}")
    return cast("Object", value)


def _kind(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return json.dumps(value)[:80]


def _bad(what: str) -> Problem:
    return Problem(400, f"bad request body: {what}")
