"""A made-up service and its faults: recorded calls of which the truth is known.

Lognormal 20 ms, sd 0.5; 1 % five times slower; 0.2 % errors; all calls stalled 50 to 150 ms every 20 s;
1 s time-out. Poisson arrivals. One fault in the midst.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from heapq import heapify, heapreplace
from math import ceil, log
from random import Random
from typing import TYPE_CHECKING

from brownout import OutcomeClass, State
from brownout.replay import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 1.0
NEVER = 99.0
MEAN_SECONDS = 0.0265  # of a call, by which a queue's capacity is chosen
OK, ERROR, SHED, REFUSED, TIMED_OUT = (
    OutcomeClass.SUCCESS,
    OutcomeClass.FAILURE,
    OutcomeClass.OVERLOAD,
    OutcomeClass.CONNECT,
    OutcomeClass.UNKNOWN,
)

# name: (what it is, truth)
FAULTS = {
    "slow2x": ("2x slower", State.DEGRADED),
    "slow5x": ("5x slower", State.DEGRADED),
    "tail10": ("10 % of calls +0.2 to 0.7 s", State.DEGRADED),
    "err5": ("5 % errors", State.DEGRADED),
    "err30": ("30 % errors", State.DEGRADED),
    "err100": ("100 % errors", State.DEGRADED),
    "bimodal40": ("40 % block to the time-out", State.DEGRADED),
    "hang5": ("5 % hang", State.DEGRADED),
    "crash1of5": ("one of five backends refuses", State.DEGRADED),
    "ovl_shed": ("36 % shed, load x2.5", State.OVERLOADED),
    "ovl_429_10": ("10 % shed", State.OVERLOADED),
    "ovl_surge": ("arrivals x2, FIFO queue", State.OVERLOADED),
    "ovl_capdrop": ("capacity to 0.8 of load", State.OVERLOADED),
    "unresp": ("all hang", State.UNRESPONSIVE),
    "unresp90": ("90 % hang", State.UNRESPONSIVE),
    "crash": ("crash: refused", State.CRASHED),
    "crash_rst": ("crash: reset, then refused", State.CRASHED),
}
QUEUES = ("ovl_surge", "ovl_capdrop")


@dataclass
class Call:
    start: float
    seconds: float
    outcome: OutcomeClass


@dataclass
class Run:
    """One seed's stream; the fault lasts from `begin` to `end`, its effect to `over`: a queue drains."""

    calls: list[Call]
    begin: float
    end: float
    over: float
    until: float

    def records(self) -> Iterator[Record]:
        for call in self.calls:
            yield Record(call.start, "caller", "service", "call", call.seconds, call.outcome)


def arrivals(chance: Random, rate: float, begin: float, end: float) -> list[float]:
    times, now = [], begin
    while (now := now + chance.expovariate(rate)) < end:
        times.append(now)
    return times


def healthy(
    chance: Random, starts: list[float], until: float, *, stalled: bool = True
) -> list[Call]:
    calls = []
    for start in starts:
        seconds = chance.lognormvariate(log(0.02), 0.5)
        if chance.random() < 0.01:
            seconds *= 5
        calls.append(Call(start, seconds, ERROR if chance.random() < 0.002 else OK))
    if stalled:
        stall(chance, calls, until)
    return calls


def stall(chance: Random, calls: list[Call], until: float, every: float = 20.0) -> None:
    """Now and then all stands still for 50 to 150 ms: what begins then, and what is under way."""
    begins, now = [], 0.0
    while now < until:
        now += chance.expovariate(1 / every)
        begins.append(now)
    spans = [chance.uniform(0.05, 0.15) for _ in begins]
    for call in calls:
        before = bisect_right(begins, call.start) - 1
        if before >= 0 and call.start < begins[before] + spans[before]:
            call.seconds += begins[before] + spans[before] - call.start
        hit = bisect_right(begins, call.start + call.seconds) - 1
        if hit >= 0 and hit != before and call.start < begins[hit]:
            call.seconds += spans[hit]


def queue(calls: list[Call], servers: int) -> float:
    """First come, first served; when the last call that had to wait for more than 5 ms began."""
    free, last = [0.0] * servers, 0.0
    heapify(free)
    for call in calls:
        begin = max(free[0], call.start)
        end = begin + call.seconds
        heapreplace(free, end)
        if begin - call.start > 0.005:
            last = call.start
        call.seconds = end - call.start
    return last


def run(name: str, rate: float, seed: int) -> Run:
    chance = Random(f"{name} {rate} {seed}")
    warm = max(90.0, 4000 / rate)
    fault = min(max(10.0, 2000 / rate), 600.0)
    begin, end, until = warm, warm + fault, warm + 2 * fault
    starts = arrivals(chance, rate, 0.0, until)
    extra = {"ovl_surge": 1.0, "ovl_shed": 1.5}.get(name)
    if extra:
        starts = sorted(starts + arrivals(chance, rate * extra, begin, end))
    calls = healthy(chance, starts, until)
    for call in calls:
        if begin <= call.start < end:
            suffer(name, call, chance)
        elif name == "crash_rst" and call.start < begin < call.start + call.seconds:
            call.seconds, call.outcome = begin - call.start, REFUSED  # reset in flight
    over = end
    if name in QUEUES:
        servers = max(2, ceil(rate * MEAN_SECONDS * 1.5))
        if name == "ovl_capdrop":
            for call in calls:
                if begin <= call.start < end:
                    call.seconds *= servers / (rate * MEAN_SECONDS) * 1.25
        over = max(end, queue([call for call in calls if call.start >= begin - 1], servers))
    for call in calls:
        if call.seconds > TIMEOUT:
            call.seconds, call.outcome = TIMEOUT, TIMED_OUT
    return Run(calls, begin, end, over, until)


def suffer(name: str, call: Call, chance: Random) -> None:  # noqa: C901 - one line for each fault
    """What the fault does to a call."""
    u = chance.random()
    match name:
        case "slow2x":
            call.seconds *= 2
        case "slow5x":
            call.seconds *= 5
        case "tail10" if u < 0.1:
            call.seconds = chance.uniform(0.2, 0.7)
        case "err5" if u < 0.05:
            call.outcome = ERROR
        case "err30" if u < 0.3:
            call.outcome = ERROR
        case "err100":
            call.seconds, call.outcome = 0.003, ERROR
        case "bimodal40" if u < 0.4:
            call.seconds = NEVER
        case "hang5" if u < 0.05:
            call.seconds = NEVER
        case "crash1of5" if u < 0.2:
            call.seconds, call.outcome = 0.001, REFUSED
        case "ovl_shed":
            if u < 0.36:
                call.seconds, call.outcome = 0.004, SHED
            else:
                call.seconds *= 1.8
        case "ovl_429_10" if u < 0.1:
            call.seconds, call.outcome = 0.004, SHED
        case "unresp":
            call.seconds = NEVER
        case "unresp90" if u < 0.9:
            call.seconds = NEVER
        case "crash" | "crash_rst":
            call.seconds, call.outcome = 0.001, REFUSED
        case _:
            pass
