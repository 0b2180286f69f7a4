"""When a slow drift is named: `python -m bench.diagnosis.drift`.

After ten minutes as usual the latency grows by so much a minute, for ever; it is to be named before it is 1.6
times what it was. A baseline that follows its target would never name it: the ratchet is what is measured
here. An alarm before the drift begins is a false one.
"""

from __future__ import annotations

import argparse
from math import log
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from bench.diagnosis.healthy import KINDS, TIMEOUT, calls, ticks
from brownout._core.operation import Operation

if TYPE_CHECKING:
    from bench.diagnosis.healthy import Floats

STEADY_SECONDS = 600.0
GROWTH = (0.05, 0.01, 0.002)  # a minute
RATES = (20, 100)
LIMIT = 1.6
MOST = 2.5  # times the usual: then it is given up


def one(kind: str, rate: float, growth: float, seed: int) -> tuple[float, str]:
    """How many times slower it was when it was named (infinite: never), and as what."""
    pace = log(1 + growth) / 60

    def slower(begun: Floats) -> Floats:
        return np.exp(pace * np.maximum(begun - STEADY_SECONDS, 0.0))

    seconds = STEADY_SECONDS + log(MOST) / pace
    operation = Operation("drifting", TIMEOUT, 0.0)
    for tick in ticks(calls(kind, rate, seconds, seed, slower), seconds):
        operation.evidence.take(tick)
        operation.judged(tick)
        found = operation.judge.finding
        if found is not None:
            at = float(np.exp(pace * (tick.at - STEADY_SECONDS)))
            return (at if tick.at > STEADY_SECONDS else 0.0), f"{found.state.name} {found.kind}"
    return float("inf"), "-"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.diagnosis.drift", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kind", default="plain", choices=KINDS)
    options = parser.parse_args()
    print("| drift | calls/s | named at, median | worst | after | as |\n|---|---|---|---|---|---|")
    for growth in GROWTH:
        for rate in RATES:
            runs = [one(options.kind, rate, growth, seed) for seed in range(options.seeds)]
            named = [at for at, _ in runs]
            minutes = log(max(median(named), 1.0)) / log(1 + growth)
            told = ", ".join(sorted({what for _, what in runs}))
            print(
                f"| {100 * growth:g} %/min | {rate} | {median(named):.2f}x | {max(named):.2f}x"
                f" | {minutes:.0f} min | {told} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
