"""How well the judge names what is wrong: `python -m bench.diagnosis synthetic|nezha|peers [--json]`.

One set of settings for all data, the defaults of `brownout replay`; they are printed with the results.
Nezha's data is not part of this project: give its folder by --data or NEZHA_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
from functools import partial
from math import isfinite
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from bench.diagnosis import nezha, peers, synthetic
from bench.diagnosis.service import FAULTS, TIMEOUT, Run, run
from brownout.replay import Settings


def settings(deadline: float = float("inf")) -> Settings:
    """The defaults, by target; the deadline is the stream's own."""
    return Settings(deadline=deadline, by="target")


def told(used: Settings) -> str:
    share, seconds = used.dead_band
    return (
        f"settings: dead band {share:.0%} + {seconds * 1000:g} ms, a false alarm every"
        f" {used.false_alarm_every / 3600:g} h, deadline {used.deadline:g} s, by {used.by}"
    )


def made_up(options: argparse.Namespace) -> None:
    used = settings(TIMEOUT)
    if not options.json:
        print(told(used))
    for rate in options.rates:
        seeds = options.seeds if rate < 1000 else max(1, options.seeds // 6)
        scores = synthetic.scores(rate, seeds, used, options.processes, options.only)
        if options.json:
            print(json.dumps({"rate": rate, "scores": [_plain(one._asdict()) for one in scores]}))
        else:
            print("\n".join([*synthetic.table(rate, scores), ""]), flush=True)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in values.items()}


def real(options: argparse.Namespace) -> None:
    used, folder = settings(), _folder(options)
    days, seen = nezha.load(folder), nezha.listed()
    jobs = [(folder, day.run, used) for day in days]
    with get_context("spawn").Pool(options.processes) as pool:
        every = pool.map(nezha.of_day, jobs, chunksize=1)
    found: list[nezha.Found] = []
    stray: dict[str, int] = {}
    hours = 0.0
    for day, alarms, marks in zip(days, every, seen, strict=True):
        found += nezha.found(day, alarms, marks)
        stray[day.system] = stray.get(day.system, 0) + len(nezha.outside(day, alarms))
        hours += sum(b - a for a, b in day.segments) / 3600
    if options.json:
        print(json.dumps({"found": [_plain(one._asdict()) for one in found], "outside": stray}))
    else:
        print("\n".join([told(used), *nezha.lines(found, stray, hours)]))


def _folder(options: argparse.Namespace) -> Path:
    folder = options.data or os.environ.get("NEZHA_DATA", "")
    if not folder or not (Path(folder) / "nezha_meta.json").is_file():
        raise SystemExit(
            "give the folder of nezha_meta.json and nezha_calls.csv.gz: --data or NEZHA_DATA"
        )
    return Path(folder)


def others(options: argparse.Namespace) -> None:
    """Others' rules: on Nezha (if its data is there), then on the made-up streams at 100 calls/s."""
    rows = _on_nezha(options) if options.data or os.environ.get("NEZHA_DATA") else []
    rows += _on_made_up(options)
    if options.json:
        print(json.dumps([_plain(row) for row in rows]))
        return
    for row in rows:
        print(
            f"{row['stream']:18}{row['rule']:28}found {row['found']:3} of {row['faults']:3},"
            f" median delay {row['delay']:6.1f} s, alarms outside {row['outside']}"
        )


def _on_nezha(options: argparse.Namespace) -> list[dict[str, Any]]:
    days, seen = nezha.load(_folder(options)), nezha.listed()
    rows = []
    for name, rule in peers.RULES.items():
        for system in sorted({day.system for day in days}):
            delays, faults, stray = [], 0, 0
            for day, marks in zip(days, seen, strict=True):
                if day.system != system:
                    continue
                for target in sorted({call.target for call in day.calls}):
                    mine = [call for call in day.calls if call.target == target]
                    well = partial(_well, day)
                    calls = peers.calls_of(mine, well, day.segments)
                    trips = rule(calls)
                    for fault, mark in zip(day.faults, marks, strict=True):
                        if fault.service == target and mark.why:
                            faults += 1
                            delays.append(
                                peers.first(trips, fault.begin - 1, fault.end) - fault.begin
                            )
                    stray += peers.alarms([at for at in trips if not day.inside(at)])
            rows.append(_row(system, name, delays, faults, stray))
    return rows


def _on_made_up(options: argparse.Namespace) -> list[dict[str, Any]]:
    streams = [run(name, 100.0, seed) for name in FAULTS for seed in range(options.seeds)]
    rows = []
    for name, rule in peers.RULES.items():
        delays, stray = [], 0
        for stream in streams:
            well = partial(_healthy, stream)
            calls = peers.calls_of(list(stream.records()), well, [(0.0, stream.until)])
            trips = rule(calls)
            delays.append(peers.first(trips, stream.begin, stream.over) - stream.begin)
            stray += peers.alarms([at for at in trips if at < stream.begin])
        rows.append(_row("made up, 100/s", name, delays, len(streams), stray))
    return rows


def _well(day: nezha.Day, at: float) -> bool:
    return not day.inside(at)


def _healthy(stream: Run, at: float) -> bool:
    return not stream.begin - 1 <= at < stream.over + 1


def _row(stream: str, rule: str, delays: list[float], faults: int, stray: int) -> dict[str, Any]:
    hit = [one for one in delays if isfinite(one)]
    return {
        "stream": stream,
        "rule": rule,
        "found": len(hit),
        "faults": faults,
        "delay": median(hit) if hit else float("nan"),
        "outside": stray,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.diagnosis", description=__doc__)
    parser.add_argument("what", choices=["synthetic", "nezha", "peers"])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 10.0, 100.0, 1000.0])
    parser.add_argument("--only", default="", help=f"faults, by comma, of {', '.join(FAULTS)}")
    parser.add_argument("--data", default="", help="the folder of Nezha's data")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    {"synthetic": made_up, "nezha": real, "peers": others}[options.what](options)


if __name__ == "__main__":
    main()
