"""The verb that judges recorded calls: replay."""

from __future__ import annotations

import argparse
import json
import re
import sys
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from brownout.cli import duration
from brownout.errors import ConfigurationError
from brownout.render import json as as_json
from brownout.render.text import replayed
from brownout.replay import Problem, Replay, Settings, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout.replay import Change

T = TypeVar("T")

__all__ = ["add", "replay"]

MOST_PROBLEMS = 20  # told one by one
_PLAIN = re.compile(r"\d+(\.\d+)?")
_BAND = re.compile(r"(\d+(?:\.\d+)?)%(?:\+(.+))?")


def add(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    usual = Settings()
    parser.add_argument("path", metavar="CALLS", help="CSV, plain or gzipped; see `replay.HEADER`")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each change")
    parser.add_argument(
        "--deadline", type=_typed(seconds_of), default=inf, metavar="DURATION", help="of a call"
    )
    share, seconds = usual.dead_band
    parser.add_argument(
        "--dead-band",
        type=_typed(dead_band),
        default=usual.dead_band,
        metavar="BAND",
        help=f"not material: the larger of (default {share:.0%}+{seconds * 1000:.0f}ms)".replace(
            "%", "%%"
        ),
    )
    parser.add_argument(
        "--false-alarm-every",
        type=_typed(seconds_of),
        default=usual.false_alarm_every,
        metavar="DURATION",
        help="the wanted time between two false alarms (default 24h)",
    )
    parser.add_argument(
        "--by", choices=["target", "operation"], default=usual.by, help="what is judged as one"
    )
    parser.set_defaults(run=replay)


def dead_band(text: str) -> tuple[float, float]:
    """A dead band such as "25%", "0.25", "25%+1ms" or "5ms", as (share, seconds). Raises ValueError."""
    if _PLAIN.fullmatch(text):
        return float(text), 0.0
    found = _BAND.fullmatch(text.replace(" ", ""))
    if found is None:
        if "%" in text:
            raise ValueError(f'"{text}" is not a dead band such as 25%+1ms')
        return 0.0, duration.parse(text)
    share, seconds = found.groups()
    return float(share) / 100, duration.parse(seconds) if seconds else 0.0


def seconds_of(text: str) -> float:
    """A duration such as "500ms"; a number alone is seconds, as in the recording. Raises ValueError."""
    return float(text) if _PLAIN.fullmatch(text) else duration.parse(text)


def _typed(parse: Callable[[str], T]) -> Callable[[str], T]:
    def typed(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return typed


def replay(options: argparse.Namespace) -> int:
    """Judge the file, and print each change. Raises ConfigurationError if no row of it is a call."""
    path = Path(options.path)
    settings = Settings(options.deadline, options.dead_band, options.false_alarm_every, options.by)
    judge, calls, problems = Replay(settings), 0, 0
    for told in read(path):
        if isinstance(told, Problem):
            problems += 1
            if problems <= MOST_PROBLEMS:
                print(f"brownout: {path}, line {told.line}: {told.because}", file=sys.stderr)
            continue
        calls += 1
        _print(judge.add(told), options)
    _print(judge.end(), options)
    if problems > MOST_PROBLEMS:
        print(f"brownout: {path}: {problems} rows in all are no calls", file=sys.stderr)
    if judge.late:
        text = f"{judge.late} calls began more than 60 s before others above them: left out"
        print(f"brownout: {path}: {text}", file=sys.stderr)
    if not calls:
        raise ConfigurationError(f"{path}: there is no call in it")
    return 0


def _print(changes: list[Change], options: argparse.Namespace) -> None:
    for change in changes:
        told = (
            json.dumps(as_json.replayed(change), allow_nan=False)
            if options.json
            else replayed(change)
        )
        print(told)
