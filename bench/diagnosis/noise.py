"""How often the judge cries wolf: `python -m bench.diagnosis.noise`.

Six kinds of hostile healthy traffic (see `healthy`) at 1, 10, 100 and 1,000 calls/s are judged from the
first call on by the real core, in virtual time; each alarm is one too many. With --operations N the calls
are those of N operations of one target, each judged alone and all of them as one. A run is done stream by
stream and can be ended at any time: with --results FILE what is done is kept, and the next run with the
same judge goes on from there. The hours that were judged are always stated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from heapq import merge
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.diagnosis.healthy import KINDS, TIMEOUT, Calls, calls, ticks
from brownout._core import judge
from brownout._core.judge import FALSE_ALARM_SECONDS
from brownout._core.operation import Operation
from brownout._core.state import State
from brownout._core.target import FOLD_SECONDS
from brownout._core.whole import Whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brownout._core.cell import Tick

HOURS = {1: 72.0, 10: 72.0, 100: 72.0, 1000: 6.0}  # wanted, pooled over the kinds
STREAM_HOURS = {1: 4.0, 10: 4.0, 100: 1.0, 1000: 0.1}  # of one stream
START_SECONDS = 60.0
DECIDING = [
    "bank",
    "baseline",
    "cell",
    "evidence",
    "finding",
    "joint",
    "judge",
    "load",
    "modes",
    "moment",
    "named",
    "sketch",
    "stream",
    "target",
    "usual",
    "whole",
]


def of_the_judge() -> str:
    """Which judge it is: figures of another one are not mixed with its own."""
    whole = hashlib.sha256()
    for path in sorted(Path(judge.__file__).parent.glob("*.py")):
        if path.stem in DECIDING:
            whole.update(path.read_bytes())
    return whole.hexdigest()[:12]


def _dealt(
    made: Calls, seconds: float, operations: list[Operation]
) -> Iterator[tuple[float, int, Tick]]:
    """The ticks of all operations in order, with whose each is: every call is of one of them, by chance."""
    whose = np.random.default_rng(1).integers(0, len(operations), len(made.begun))
    for one in merge(
        *(_of(made, whose == index, seconds, index) for index in range(len(operations)))
    ):
        operation, tick = operations[one[1]], one[2]
        operation.evidence.take(tick)
        operation.judged(tick)
        yield one


def _of(
    made: Calls, mine: np.typing.NDArray[np.bool_], seconds: float, index: int
) -> Iterator[tuple[float, int, Tick]]:
    some = Calls(made.begun[mine], made.seconds[mine], made.failed[mine])
    return ((tick.at, index, tick) for tick in ticks(some, seconds))


def one(kind: str, rate: int, hours: float, seed: int, many: int = 1) -> dict[str, Any]:
    """Judge one stream: the alarms of it, as (second, state, kind, because, second of the end)."""
    seconds = hours * 3600.0
    operations = [Operation(f"healthy {index}", TIMEOUT, 0.0) for index in range(many)]
    whole, due = Whole(), FOLD_SECONDS
    began = time.process_time()
    alarms: list[list[Any]] = []
    ill = False
    for at, index, tick in _dealt(calls(kind, rate, seconds, seed), seconds, operations):
        if many > 1:
            if at > due:
                whole.judge(operations, due, FALSE_ALARM_SECONDS)
                due += FOLD_SECONDS
            whole.hear(operations[index], tick)
        found = whole.ill or any(operation.judge.finding for operation in operations)
        if found and not ill:
            verdicts = [operation.verdict("t", None) for operation in operations]
            told = next(one for one in whole.verdict("t", None, verdicts) if one.kind)
            alarms.append([round(at, 2), str(told.state), told.kind, told.because, None])
        elif ill and not found:
            alarms[-1][4] = round(at, 2)
        ill = found
    known = all(operation.state is State.HEALTHY for operation in operations)
    spent = round(time.process_time() - began, 1)
    return {
        "kind": kind,
        "rate": rate,
        "hours": hours,
        "seed": seed,
        "operations": many,
        "alarms": alarms,
        "known": known,
        "cpu": spent,
    }


def plan(rate: int, wanted: float) -> list[tuple[str, int, float, int]]:
    """The streams of a rate: all kinds in turn, until so many hours are full."""
    hours = min(STREAM_HOURS[rate], wanted / len(KINDS))
    seeds = round(wanted / len(KINDS) / hours)
    return [(kind, rate, hours, seed) for seed in range(seeds) for kind in KINDS]


def kept(path: Path | None, which: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """What earlier runs of the same judge have done."""
    if path is None or not path.exists():
        return {}
    lines = (json.loads(line) for line in path.read_text("utf-8").splitlines() if line)
    return {
        (line["kind"], line["rate"], line["hours"], line["seed"], line["operations"]): line
        for line in lines
        if line["judge"] == which
    }


def table(done: list[dict[str, Any]]) -> str:
    """Hours and alarms by rate and kind."""
    lines = [
        "| calls/s | hours | alarms | of them in the first minute | by kind of traffic |",
        "|---|---|---|---|---|",
    ]
    for rate in sorted({one["rate"] for one in done}):
        mine = [one for one in done if one["rate"] == rate]
        alarms = [alarm for one in mine for alarm in one["alarms"]]
        by_kind = {
            kind: sum(len(one["alarms"]) for one in mine if one["kind"] == kind) for kind in KINDS
        }
        told = ", ".join(f"{kind} {n}" for kind, n in by_kind.items() if n) or "-"
        early = sum(alarm[0] <= START_SECONDS for alarm in alarms)
        hours = sum(one["hours"] for one in mine)
        lines.append(f"| {rate} | {hours:.1f} | {len(alarms)} | {early} | {told} |")
    return "\n".join(lines)


def main() -> None:
    """Judge, print each alarm as it comes, and the table at the end."""
    parser = argparse.ArgumentParser(prog="python -m bench.diagnosis.noise", description=__doc__)
    parser.add_argument("--rates", type=int, nargs="+", default=list(HOURS), choices=list(HOURS))
    parser.add_argument("--hours", type=float, help="for each rate (default: 72, at 1,000/s 6)")
    parser.add_argument("--seed", type=int, default=0, help="of the first stream")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--operations", type=int, default=1, help="of one target (default 1)")
    parser.add_argument("--results", type=Path, help="keep what is done there, and go on from it")
    options = parser.parse_args()
    which = of_the_judge()
    before = kept(options.results, which)
    done: list[dict[str, Any]] = []
    try:
        for rate in options.rates:
            for kind, _, hours, seed in plan(rate, options.hours or HOURS[rate]):
                if kind not in options.kinds:
                    continue
                key = (kind, rate, hours, seed + options.seed, options.operations)
                result = before.get(key) or {**one(*key), "judge": which}
                done.append(result)
                if options.results and key not in before:
                    with options.results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(result) + "\n")
                for alarm in result["alarms"]:
                    print(rate, kind, result["seed"], *alarm, sep=" | ", flush=True)
    except KeyboardInterrupt:
        print("ended before its time: what is done is told")
    print(f"judge {which}")
    print(table(done))


if __name__ == "__main__":
    main()
