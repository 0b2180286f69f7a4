"""What a guarded call costs, and what other libraries' do, side by side in one run: `make bench`.

CPU time of this process, rounds interleaved, the minimum of many: read the ratios, not the microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
from pathlib import Path

from bench import cost, memory, peers
from bench.figures import COLOURS, Figures, here, rows, text, with_figures

BEGIN, END = "<!-- figures -->", "<!-- end of the figures -->"


def import_seconds(module: str) -> float:
    """CPU seconds of an import, in an interpreter of its own."""
    code = f"import time; t = time.process_time(); import {module}; print(time.process_time() - t)"
    # As when it is installed: byte-compiled, as the standard library is (the first run compiles).
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return float(out.stdout)


def import_ratio(rounds: int) -> float:
    """The import of brownout, as a multiple of asyncio's."""
    least = {"asyncio": float("inf"), "brownout": float("inf")}
    for _ in range(rounds):
        for module, seconds in least.items():
            least[module] = min(seconds, import_seconds(module))
    return least["brownout"] / least["asyncio"]


def run(rounds: int, seconds: float, many: int) -> Figures:
    """Measure all of it. A sample takes about so many seconds; `many` of a kind are made and weighed."""
    with asyncio.Runner() as loop:
        works, missing, versions = peers.found(loop)
        cases = [*cost.own(), *cost.theirs(works, loop)]
        measured = rows(cases, cost.measure(cases, rounds, seconds, loop))
        weights = memory.theirs(works, many, loop)
    python, machine = here()
    return Figures(
        python,
        machine,
        rounds,
        measured,
        memory.own(many),
        {f"{name}, {COLOURS[is_async]}": size for (name, is_async), size in weights.items()},
        import_ratio(max(1, rounds // 2)),
        versions,
        {one.name: one.reason for one in missing},
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=0.02, help="that a sample takes")
    parser.add_argument("--many", type=int, default=100, help="of a kind that are weighed")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--markdown", action="store_true")
    form.add_argument("--into", type=Path, metavar="PAGE", help=f"below its line {BEGIN}")
    options = parser.parse_args(arguments)
    figures = run(options.rounds, options.seconds, options.many)
    if options.json:
        print(figures.json())
    elif options.into:
        page = options.into.read_text("utf-8")
        options.into.write_text(with_figures(page, figures, BEGIN, END), "utf-8")
    else:
        print(text(figures, page=options.markdown))
    for name, reason in figures.missing.items():
        print(f"NOT MEASURED: {name}: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
