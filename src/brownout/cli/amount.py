"""A fault as it is typed: a kind, and amounts such as `seconds=200ms share=30%`."""

from __future__ import annotations

import difflib
from dataclasses import MISSING, fields
from math import inf
from typing import TYPE_CHECKING, Any

from brownout.cli import duration
from brownout.errors import ConfigurationError
from brownout.fault import Amount, Fault, Schedule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["fault", "kind"]

_SCHEDULE = tuple(each.name for each in fields(Schedule))


def kind(name: str, kinds: Mapping[str, type[Fault]], mechanism: str) -> type[Fault]:
    """The kind of that name among those that the mechanism can make. Raises ConfigurationError."""
    found = kinds.get(name.replace("-", "_").lower())
    if found is None:
        near = difflib.get_close_matches(name, kinds, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigurationError(
            f'{mechanism} makes no fault of a kind "{name}"; {hint}it makes: {", ".join(sorted(kinds))}'
        )
    return found


def fault(of: type[Fault], texts: Sequence[str]) -> Fault:
    """A fault of that kind with the amounts that the texts give; every wrong one is told, at once.

    Raises ConfigurationError.
    """
    known = {each.name: str(each.type) for each in fields(of) if each.name != "schedule"}
    known |= dict.fromkeys(_SCHEDULE, "float")
    needed = [
        each.name
        for each in fields(of)
        if each.default is MISSING and each.default_factory is MISSING
    ]
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            wrong.append(
                f'"{text}" is no amount of it' + (f"; did you mean {near[0]}?" if near else "")
            )
        elif name in values:
            wrong.append(f"{name} is given twice")
        else:
            try:
                values[name] = _value(name, known[name], value)
            except ValueError as error:
                wrong.append(f"{name}: {error}")
    wrong += [f"{name}=... is missing" for name in needed if name not in values and not wrong]
    if wrong:
        raise ConfigurationError(
            f"{of.kind}: {'; '.join(wrong)}. It takes name=value with: {', '.join(known)}"
        )
    when = {name: values.pop(name) for name in _SCHEDULE if name in values}
    if when:
        values["schedule"] = Schedule(**when)
    return of(**values)


def _value(name: str, wanted: str, text: str) -> Any:
    """A value for a field, whose annotation says what it takes. Raises ValueError."""
    if wanted == "bool":
        if text.lower() not in ("true", "false", "yes", "no"):
            raise ValueError(f'"{text}" is true or false')
        return text.lower() in ("true", "yes")
    if wanted.startswith("int"):
        if not text.isdecimal():
            raise ValueError(f'"{text}" is not a whole number')
        return int(text)
    if "..." in wanted:
        return tuple(text.split(","))
    if wanted == "bytes":
        return text.encode()
    if wanted.startswith("tuple"):
        header, colon, value = text.partition(":")
        if not colon:
            raise ValueError(f'"{text}" is a name, a colon and a regular expression for its value')
        return header.strip(), value.strip()
    if "float" not in wanted:
        return text
    seconds = name in _SCHEDULE or name.endswith("seconds")
    if "Amount" not in wanted or "~" not in text:
        return _plain(text, seconds=seconds)
    value, _, rest = text.partition("~")
    jitter, _, shape = rest.partition(":")
    shapes: Any = shape or "uniform"
    return Amount(_plain(value, seconds=seconds), _plain(jitter, seconds=seconds), shapes)


def _plain(text: str, *, seconds: bool) -> float:
    if text in ("inf", "never"):
        return inf
    if seconds:
        return 0.0 if text == "0" else duration.parse(text)
    if text.endswith("%"):
        return _number(text[:-1]) / 100
    return _number(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'"{text}" is not a number') from None
