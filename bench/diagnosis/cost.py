"""What judging costs: `python -m bench.diagnosis.cost`.

A fold and the judgement of what it found, in microseconds, on average over five seconds of ticks (in which
one cell closes): the least of many such rounds, because others use this machine as well. Calls are
counted in the shard of one thread, as a guard does it. Then the bytes of one operation after five minutes
of calls, all that belongs to it counted (its thread's shard as well), but not the tables that operations
share.
"""

from __future__ import annotations

import argparse
import gc
import time
import tracemalloc
from typing import TYPE_CHECKING

from bench.diagnosis.healthy import Calls, calls
from brownout._core.operation import Operation
from brownout._core.sketch import bucket
from brownout._core.target import FOLD_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

RATES = (0.1, 1, 10, 100, 1000, 10_000)
TARGETS = 1000
SUSPICIOUS = 50
LEARNED_SECONDS = 300.0
MANY_SECONDS = 20.0  # that a thousand targets are called before it is measured
MANY_TICKS = 20
TICKS = 50  # five seconds: in each of them a cell is closed


def counted(made: Calls, ticks: int) -> list[list[int]]:
    """The buckets of the calls that end in each tick of 0.1 s."""
    per: list[list[int]] = [[] for _ in range(ticks)]
    ends = (made.begun + made.seconds) / FOLD_SECONDS
    for end, seconds in zip(ends.tolist(), made.seconds.tolist(), strict=True):
        if end < ticks:
            per[int(end)].append(bucket(seconds))
    return per


class Load:
    """Operations that are called, each with its own stream of calls, from the tick on at which it stands."""

    def __init__(self, streams: Sequence[list[list[int]]], learned: float) -> None:
        self.operations = [Operation(f"op {n}", 1.0, 0.0) for n in range(len(streams))]
        self.shards = [operation.evidence.shard(1) for operation in self.operations]
        self.streams = streams
        self.tick = 0
        while self.tick * FOLD_SECONDS < learned:
            self.run(1)

    def count(self, tick: int) -> None:
        """Count a tick's calls."""
        for shard, stream in zip(self.shards, self.streams, strict=True):
            answered = shard.answered
            for index in stream[tick % len(stream)]:
                answered[index] += 1

    def run(self, ticks: int) -> float:
        """Count so many ticks' calls, and fold them; the seconds that the folds took."""
        spent = 0.0
        for _ in range(ticks):
            now = (self.tick + 1) * FOLD_SECONDS
            self.count(self.tick)
            began = time.perf_counter()
            for operation in self.operations:
                operation.fold(now)
            spent += time.perf_counter() - began
            self.tick += 1
        return spent

    def cost(self, rounds: int, ticks: int) -> float:
        """Seconds of a tick of all operations: the least of so many rounds."""
        return min(self.run(ticks) / ticks for _ in range(rounds))

    def share(self, rounds: int, ticks: int) -> float:
        """The share of a core that all operations take: CPU time, the least of so many rounds."""
        least = 1e9
        for _ in range(rounds):
            counted = self.tick
            began = time.process_time()
            self.run(ticks)
            folded = time.process_time() - began
            began = time.process_time()
            self.count(counted)
            least = min(least, folded - ticks * (time.process_time() - began))
        return least / ticks / FOLD_SECONDS


def stream(rate: float, seconds: float, seed: int) -> list[list[int]]:
    """One healthy stream of calls, by tick; of a negative rate, one that is always suspicious."""
    if rate < 0:
        return suspicious(stream(-rate, seconds, seed))
    return counted(calls("no stalls", rate, seconds, seed), int(seconds / FOLD_SECONDS))


def one_operation(rounds: int) -> None:
    """What a tick, and a call, costs at each rate."""
    print("| calls/s | us a tick | us a call |\n|---|---|---|")
    for rate in RATES:
        seconds = max(60.0, min(600.0, 2000 / rate))
        load = Load([stream(rate, seconds, 1)], min(LEARNED_SECONDS, seconds))
        tick = load.cost(rounds, TICKS) * 1e6
        print(f"| {rate:g} | {tick:.1f} | {tick / (rate * FOLD_SECONDS):.2f} |", flush=True)


def many(rounds: int, what: str, rates: Sequence[float]) -> None:
    """The share of a core that so many targets take, ten times a second."""
    known = {rate: [stream(rate, 120.0, seed) for seed in range(10)] for rate in set(rates)}
    streams = [known[rate][n % 10] for n, rate in enumerate(rates)]
    load = Load(streams, MANY_SECONDS)
    share = load.share(rounds, MANY_TICKS)
    print(f"| {what} | {100 * share:.1f} % |", flush=True)


def suspicious(stream_: list[list[int]]) -> list[list[int]]:
    """The same calls, now and then four slow ones in a row: a bank that never comes to rest."""
    slow = bucket(0.15)
    return [[*tick, *([slow] if n % 4 < 2 else [])] for n, tick in enumerate(stream_)]


def memory() -> None:
    """Bytes of one more operation."""
    print("| calls/s | bytes of an operation |\n|---|---|")
    for rate in (1, 10, 100, 1000):
        made = stream(rate, 300.0, 1)
        Load([made], 300.0)  # its tables are made, and are shared
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        load = Load([made] * 4, 300.0)
        load.streams = ()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        print(f"| {rate} | {grown / 4:,.0f} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.diagnosis.cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", choices=("one", "many", "memory"))
    options = parser.parse_args()
    gc.disable()
    if options.only in {None, "one"}:
        one_operation(options.rounds)
    if options.only in {None, "many"}:
        rounds = max(2, options.rounds // 10)
        print("\n| 1,000 targets, ten times a second | of a core |\n|---|---|")
        quiet = TARGETS - SUSPICIOUS
        many(rounds, "none is called", [0.0] * TARGETS)
        for rate in (0.1, 1.0):
            many(
                rounds,
                f"950 are called {rate:g} times a second, 50 ten times and are suspicious",
                [rate] * quiet + [-10.0] * SUSPICIOUS,
            )
        many(rounds, "all are called ten times a second", [10.0] * TARGETS)
        many(rounds, "all are called 100 times a second", [100.0] * TARGETS)
    if options.only in {None, "memory"}:
        print()
        memory()


if __name__ == "__main__":
    main()
