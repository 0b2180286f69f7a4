"""How soon each state is named on real sockets, over many runs of the demo, and false alarms in healthy load.

`python -m bench.demo --runs 20 --healthy 600` takes a minute a run and the healthy seconds on top.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from brownout.cases.exhausted_pool import demo
from brownout.cases.exhausted_pool.schedule import PHASES, Phase


def play(phases: tuple[Phase, ...], *, faults: bool) -> tuple[int, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.json"
        held = demo(
            faults=faults, json_path=str(path), out=io.StringIO(), live=False, phases=phases
        )
        return held, json.loads(path.read_text("utf-8"))


def table(runs: list[dict[str, Any]]) -> list[str]:
    head = f"{'phase':16}{'target':12}{'state':14}{'named: median':>14}{'worst':>7}"
    rows = [f"{head}{'back: median':>14}{'worst':>7}"]
    for phase in PHASES:
        for target, state in phase.truth.items():
            mine = [
                found
                for run in runs
                for found in run["detections"]
                if (found["phase"], found["target"]) == (phase.name, target)
            ]
            named = [seconds(found["named_seconds"]) for found in mine]
            back = [seconds(found["back_seconds"]) for found in mine]
            rows.append(
                f"{phase.name:16}{target:12}{state.name:14}{median(named):14.2f}{max(named):7.2f}"
                f"{median(back):14.2f}{max(back):7.2f}"
            )
    alarms = sum(len(run["false_alarms"]) for run in runs)
    return [*rows, f"runs: {len(runs)}; false alarms in them: {alarms}"]


def seconds(value: float | None) -> float:
    return float("inf") if value is None else float(value)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--healthy", type=float, default=600.0, metavar="SECONDS")
    parser.add_argument("--from", dest="files", nargs="*", default=[], metavar="FILE")
    options = parser.parse_args()
    runs = [json.loads(Path(file).read_text("utf-8")) for file in options.files]
    failed = sum(not run["held"] for run in runs)
    for number in range(options.runs):
        code, run = play(PHASES, faults=True)
        failed += code != 0
        runs.append(run)
        print(f"run {number + 1}: exit {code}", file=sys.stderr)
    if runs:
        print("\n".join(table(runs)))
        print(f"runs in which an expectation did not hold: {failed}")
    if options.healthy:
        calm = Phase("healthy", "nothing goes wrong", options.healthy, {})
        _, run = play((calm,), faults=False)
        print(
            f"false alarms in {options.healthy:.0f} s of healthy load: {len(run['false_alarms'])}"
        )
        for alarm in run["false_alarms"]:
            print(f"  {alarm}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
