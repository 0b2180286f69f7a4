"""How often the judge cries wolf: `python -m bench.diagnosis.noise`.

Six kinds of hostile healthy traffic (see `healthy`) at 1, 10, 100 and 1,000 calls/s are judged from the
first call on by the real core, in virtual time; each alarm is one too many. A run is done stream by
stream and can be ended at any time: with --results FILE what is done is kept, and the next run with the
same judge goes on from there. The hours that were judged are always stated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from bench.diagnosis.healthy import KINDS, TIMEOUT, calls, ticks
from brownout._core import judge
from brownout._core.operation import Operation
from brownout._core.state import State

HOURS = {1: 72.0, 10: 72.0, 100: 72.0, 1000: 6.0}  # wanted, pooled over the kinds
STREAM_HOURS = {1: 4.0, 10: 4.0, 100: 1.0, 1000: 0.1}  # of one stream
START_SECONDS = 60.0
DECIDING = [
    "bank",
    "baseline",
    "cell",
    "evidence",
    "finding",
    "judge",
    "load",
    "modes",
    "moment",
    "named",
    "sketch",
    "stream",
    "target",
    "usual",
]


def of_the_judge() -> str:
    """Which judge it is: figures of another one are not mixed with its own."""
    whole = hashlib.sha256()
    for path in sorted(Path(judge.__file__).parent.glob("*.py")):
        if path.stem in DECIDING:
            whole.update(path.read_bytes())
    return whole.hexdigest()[:12]


def one(kind: str, rate: int, hours: float, seed: int) -> dict[str, Any]:
    """Judge one stream: the alarms of it, as (second, state, kind, because, second of the end)."""
    seconds = hours * 3600.0
    operation = Operation("healthy", TIMEOUT, 0.0)
    began = time.process_time()
    alarms: list[list[Any]] = []
    ill = False
    for tick in ticks(calls(kind, rate, seconds, seed), seconds):
        operation.evidence.take(tick)
        operation.judged(tick)
        found = operation.judge.finding
        if found is not None and not ill:
            told = operation.verdict("t", None)
            alarms.append([round(tick.at, 2), found.state.name, found.kind, told.because, None])
        elif found is None and ill:
            alarms[-1][4] = round(tick.at, 2)
        ill = found is not None
    known = operation.state is State.HEALTHY
    spent = round(time.process_time() - began, 1)
    return {
        "kind": kind,
        "rate": rate,
        "hours": hours,
        "seed": seed,
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
        (line["kind"], line["rate"], line["hours"], line["seed"]): line
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
                key = (kind, rate, hours, seed + options.seed)
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
