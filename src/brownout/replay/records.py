"""Reading recorded calls: CSV, plain or gzipped, one call a row.

The header is exactly `start_seconds,observer,target,operation,duration_seconds,outcome`. A row that
can't be one is a Problem with its line, and the rest goes on. Everything has a limit: the length of a
line and of a name, and how long a call may take.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.outcome import OutcomeClass
from brownout.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEADER = "start_seconds,observer,target,operation,duration_seconds,outcome"
MOST_LINE = 4096  # characters
MOST_NAME = 200
MOST_START_SECONDS = 1e11  # as far as a tenth of a second can be told apart
MOST_DURATION_SECONDS = 86_400.0
OUTCOMES = {
    "answered": OutcomeClass.SUCCESS,
    "error": OutcomeClass.FAILURE,
    "overload": OutcomeClass.OVERLOAD,
    "refused": OutcomeClass.CONNECT,
    "reset": OutcomeClass.CONNECT,  # a definite no, as well
    "timeout": OutcomeClass.UNKNOWN,
    "cancelled": OutcomeClass.CANCELLED,
}


class Record(NamedTuple):
    """One call as its caller saw it: when it began (any clock), how long it took, how it ended."""

    start_seconds: float
    observer: str
    target: str
    operation: str
    duration_seconds: float
    outcome: OutcomeClass


class Problem(NamedTuple):
    """A row that is no record: its line, from 1, and why."""

    line: int
    because: str


def read(path: Path) -> Iterator[Record | Problem]:
    """The records of a file, in its order, and its rows that are none.

    Raises ConfigurationError for a file that can't be read, or whose header is another one.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"  # what it is, not what it is called
            bytes_ = gzip.GzipFile(fileobj=raw) if packed else raw
            with io.TextIOWrapper(bytes_, "utf-8-sig", errors="replace", newline="") as text:
                yield from _read(text, path)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error


def _read(text: io.TextIOWrapper, path: Path) -> Iterator[Record | Problem]:
    number = 0
    try:
        for number, line in enumerate(_lines(text), 1):
            if number == 1:
                if line != HEADER:
                    raise ConfigurationError(f"{path}: its first line must be exactly {HEADER}")
            elif line is None:
                yield Problem(number, f"longer than {MOST_LINE} characters")
            elif line:
                yield record(line, number)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield Problem(number + 1, f"the packed file is damaged from here on ({error})")
    if not number:
        raise ConfigurationError(f"{path}: it is empty; its first line must be exactly {HEADER}")


def _lines(text: io.TextIOWrapper) -> Iterator[str | None]:
    """Line by line, without their ends; None for one that is too long."""
    while line := text.readline(MOST_LINE + 2):
        if line.endswith(("\n", "\r")) or len(line) <= MOST_LINE:
            yield line.rstrip("\r\n")
            continue
        while line and not line.endswith(("\n", "\r")):
            line = text.readline(MOST_LINE)
        yield None


def record(line: str, number: int = 0) -> Record | Problem:
    """A row as a Record, or why it is none."""
    fields = line.split(",")
    if '"' in line:
        fields = next(iter(csv.reader([line])))
    if len(fields) != 6:
        return Problem(number, f"it has {len(fields)} fields, not 6")
    start, observer, target, operation, duration, ended = fields
    outcome = OUTCOMES.get(ended)
    if outcome is None:
        return Problem(number, f"outcome {ended[:40]!r} is none of {' '.join(OUTCOMES)}")
    for name, value in (("observer", observer), ("target", target), ("operation", operation)):
        if len(value) > MOST_NAME or not value.isprintable():
            return Problem(number, f"{name} must be at most {MOST_NAME} printable characters")
    if not target:
        return Problem(number, "target is empty")
    began, took = _number(start), _number(duration)
    if began is None or abs(began) > MOST_START_SECONDS:
        return Problem(number, f"start_seconds {start[:40]!r} is no number of seconds")
    if took is None or not 0 <= took <= MOST_DURATION_SECONDS:
        return Problem(number, f"duration_seconds {duration[:40]!r} is not 0 to a day, in seconds")
    return Record(began, observer, target, operation, took, outcome)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) and "_" not in text else None
