"""How soon each state is named, at 100 calls/s and back to back, and how often falsely: virtual time.

`python -m bench.detection [--seeds 20]`. The service is lognormal, 20 ms, sd 0.5, 1 % five times slower,
0.2 % failing; the guard's time-out is 0.5 s. What the judge sees is made up; the judge is the real one.
Back to back means 10 us a call, by one caller of a real guard, failing by chance.
"""

from __future__ import annotations

import argparse
from statistics import median

from brownout import Guard, State
from brownout.testing import FakeClock
from tests.core.test_judge import FAIL, HUNG, REFUSED, SHED, Stream, healthy, hump, slower, some
from tests.proof.test_instant import NEVER, run

FAULTS = [
    ("30 % fail", State.DEGRADED, some(0.3, (0.01, FAIL)), 100),
    ("30 % answer after 0.3 s", State.DEGRADED, hump, 100),
    ("40 % hang", State.DEGRADED, some(0.4, HUNG), 100),
    ("5 times slower", State.DEGRADED, slower(5), 100),
    ("36 % turned away, load x1.5", State.OVERLOADED, some(0.36, (0.001, SHED)), 150),
    ("5 times slower, load x1.6", State.OVERLOADED, slower(5), 160),
    ("all hang", State.UNRESPONSIVE, some(1.0, HUNG), 100),
    ("all refused", State.CRASHED, some(1.0, (0.001, REFUSED)), 100),
]

GUARDS = 40


def one(error: Exception, share: float, warm: int, seed: int) -> int:
    """After how many calls one guard's target is named."""
    with FakeClock() as clock:
        guard = Guard(f"{error!r}-{share}-{warm}-{seed}", timeout=0.5)
        return run(guard, error, share, warm, seed, clock.advance).named


def back_to_back() -> None:
    """After how many calls a part that fails at once is named, if ever in 200."""
    print(f"{'at once':24}{'share':>6}{'after':>6}{'median':>8}{'9 of 10':>9}{'never':>7}")
    for error in (TimeoutError("x"), ConnectionResetError("x")):
        for share in (0.2, 0.3, 0.5):
            for warm in (0, 50, 200, 1000):
                named = sorted(one(error, share, warm, seed) for seed in range(GUARDS))
                never = named.count(NEVER)
                kind, late = type(error).__name__, named[int(GUARDS * 0.9)]
                print(f"{kind:24}{share:6}{warm:6}{median(named):8.0f}{late:9}{never:7}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.detection", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    print(f"{'fault':30}{'state':14}{'median s':>9}{'worst s':>9}{'back, median':>14}{'worst':>7}")
    for name, state, service, rate in FAULTS:
        named, back = [], []
        for seed in range(options.seeds):
            stream = Stream(seed)
            stream.run(healthy, 100, 30)
            changes = stream.run(service, rate, 10)
            named.append(next((at for at, seen in changes if seen is state), float("inf")))
            after = stream.run(healthy, 100, 20)
            back.append(next((at for at, seen in after if seen is State.HEALTHY), float("inf")))
        print(
            f"{name:30}{state.name:14}{median(named):9.2f}{max(named):9.2f}{median(back):14.2f}{max(back):7.2f}"
        )
    back_to_back()
    alarms = 0
    for seed in range(options.seeds):
        changes = Stream(seed).run(healthy, 100, 600)
        alarms += sum(seen not in {State.HEALTHY, None} for _, seen in changes)
    print(f"false alarms in {options.seeds} x 10 minutes of healthy calls: {alarms}")


if __name__ == "__main__":
    main()
