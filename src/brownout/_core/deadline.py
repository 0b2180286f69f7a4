"""Deadlines: an instant for a whole call, and how the time that is left travels to the next hop.

On the wire it is relative, because clocks differ, and it is written anew for each attempt. Whole units:
rounded down (never promise more than there is), but up in `grpc-timeout`, as gRPC asks. Less than one
unit is written as one, not as 0, which many servers read as "no limit". What comes from outside is
bounded in length, and what makes no sense is told apart from what is absent; it never ends a call.
"""

from __future__ import annotations

import re
from math import ceil, inf
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from brownout._core.value import Value
from brownout.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HEADER = "x-envoy-expected-rq-timeout-ms"
Unit = Literal["s", "ms", "grpc"]

# Compiled by `re` when they are first used: most processes import this and read no header.
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}"
_GRPC = r"([0-9]{1,8})([HMSmun])"
_WHOLE = r"[0-9]{1,10}"  # of milliseconds: 115 days, as Connect bounds it
_DECIMAL = r"[0-9]{1,10}(?:\.[0-9]{1,9})?"
_WHOLE_MOST = 9_999_999_999
_GRPC_MOST = 99_999_999
_HOUR = 3600.0
# Units in a second, finest first: the finest one that holds the number is written.
_PER_SECOND = {"n": 1e9, "u": 1e6, "m": 1e3, "S": 1.0, "M": 1 / 60, "H": 1 / _HOUR}
_SECONDS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "S": 1.0, "M": 60.0, "H": _HOUR}


class Asked(NamedTuple):
    """What a call asked for: its seconds (None: no deadline) and the headers that made no sense."""

    seconds: float | None
    ignored: tuple[str, ...]


class DeadlineHeader(Value):
    """A header that carries the time that is left: `DeadlineHeader("Request-Timeout", "s")`.

    `unit` is "s" (seconds, also decimal), "ms" (whole milliseconds) or "grpc" (at most 8 digits and a unit).
    `DeadlineHeader.ENVOY` and `DeadlineHeader.GRPC` are the two that have a fixed meaning; others mean
    seconds here and milliseconds there, so that they are used only where they are named. Raises
    ConfigurationError for a name that is no header's, and for another unit.
    """

    name: str
    unit: Unit

    ENVOY: ClassVar[DeadlineHeader]
    GRPC: ClassVar[DeadlineHeader]

    def __post_init__(self) -> None:
        name, unit = self.name, self.unit
        if not isinstance(name, str) or not re.fullmatch(_NAME, name):
            raise ConfigurationError(f"DeadlineHeader({name!r}): give the name of an HTTP header")
        if unit not in ("s", "ms", "grpc"):
            raise ConfigurationError(
                f'DeadlineHeader({name!r}, {unit!r}): give the unit "s", "ms" or "grpc"'
            )
        self.__dict__["name"] = name.lower()

    def read(self, value: str) -> float | None:
        """The seconds that a header's value says; None if it makes no sense.

        0 is time that is over in `grpc-timeout`. Elsewhere it is as often written for "no limit", so that
        it makes no sense.
        """
        value = value.strip(" \t")
        if self.unit == "grpc":
            parts = re.fullmatch(_GRPC, value)
            return None if parts is None else int(parts[1]) * _SECONDS[parts[2]]
        if self.unit == "ms":
            return (int(value) / 1000 or None) if re.fullmatch(_WHOLE, value) else None
        return (float(value) or None) if re.fullmatch(_DECIMAL, value) else None

    def write(self, left_seconds: float) -> str | None:
        """The header's value for the time that is left; None without a deadline."""
        if left_seconds == inf:
            return None
        if self.unit == "grpc":
            return _grpc(left_seconds)
        if self.unit == "ms":
            return str(_milliseconds(left_seconds))
        whole, thousandths = divmod(_milliseconds(left_seconds), 1000)
        return f"{whole}.{thousandths:03}" if thousandths else str(whole)

    @staticmethod
    def shortest(accepted: Sequence[DeadlineHeader], pairs: Iterable[tuple[str, str]]) -> Asked:
        """The shortest time that any of the accepted headers says, and which of them made no sense.

        `pairs` are a request's headers, name and value; names in any case, the same one also twice.
        """
        seconds: float | None = None
        ignored: list[str] = []
        for name, value in pairs:
            for header in accepted:
                if header.name != name.lower():
                    continue
                read = header.read(value)
                if read is None:
                    ignored.append(header.name)
                elif seconds is None or read < seconds:
                    seconds = read
        return Asked(seconds, tuple(ignored))


DeadlineHeader.ENVOY = DeadlineHeader(HEADER, "ms")
DeadlineHeader.GRPC = DeadlineHeader("grpc-timeout", "grpc")


def _milliseconds(seconds: float) -> int:
    return max(1, int(min(seconds * 1000, _WHOLE_MOST)))


def _grpc(seconds: float) -> str:
    for unit, per_second in _PER_SECOND.items():
        if (number := seconds * per_second) <= _GRPC_MOST:
            return f"{max(1, ceil(number))}{unit}"
    return f"{_GRPC_MOST}H"
