"""The made-up service: how soon each fault is named, how rightly, and how soon it is over."""

from __future__ import annotations

from math import inf, isfinite, nan
from multiprocessing import get_context
from typing import TYPE_CHECKING, NamedTuple

from bench.diagnosis.service import FAULTS, QUEUES, run
from brownout import State
from brownout.replay import Replay, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

STATES = tuple(State)
QUEUE_RATE = 50.0  # below, a queue of two servers is no queue


class Score(NamedTuple):
    """One seed: seconds from the begin to any name, and to the right one; from the end to HEALTHY.

    `shares` are of the fault's time, but for its begin, in each state; `alarms` were before it.
    """

    fault: str
    detected: float
    right: float
    recovered: float
    shares: tuple[float, ...]
    alarms: int
    quiet_seconds: float
    kind: str


def one(fault: str, rate: float, seed: int, settings: Settings) -> Score:
    """Judge one seed's stream."""
    told, truth = run(fault, rate, seed), FAULTS[fault][1]
    replay = Replay(settings)
    changes = [change for call in told.records() for change in replay.add(call)] + replay.end()
    begin, end = told.begin, told.end
    alarms = 0
    detected = right = recovered = inf
    state: State | None = None
    kind, at = "", 0.0
    grace = begin + (1.5 if rate >= QUEUE_RATE else (end - begin) / 3)
    seconds = [0.0] * len(STATES)
    for change in [*changes, None]:
        now = change.t_seconds if change else told.until
        where = 0 if state is None else STATES.index(state)
        seconds[where] += max(0.0, min(now, end) - max(at, grace))
        if change is None:
            break
        state, at = change.state, now
        ill = state not in {None, State.HEALTHY}
        if now < begin:
            alarms += ill and change.before in {None, State.HEALTHY}
        elif now <= told.over:
            kind = change.kind or kind
            if ill:
                detected = min(detected, now - begin)
            if state is truth:
                right = min(right, now - begin)
        elif state is State.HEALTHY:
            recovered = min(recovered, now - told.over)
    if state is State.HEALTHY and at <= told.over and detected < inf:
        recovered = min(recovered, 0.0)  # it was over before
    whole = sum(seconds) or 1.0
    shares = tuple(one / whole for one in seconds)
    return Score(fault, detected, right, recovered, shares, alarms, begin, kind)


def _one(arguments: tuple[str, float, int, Settings]) -> Score:
    return one(*arguments)


def scores(
    rate: float, seeds: int, settings: Settings, processes: int = 2, only: str = ""
) -> list[Score]:
    """All faults at a rate."""
    names = [name for name in FAULTS if rate >= QUEUE_RATE or name not in QUEUES]
    names = [name for name in names if name in only.split(",")] if only else names
    jobs = [(name, rate, seed, settings) for name in names for seed in range(seeds)]
    if processes < 2:
        return [one(*job) for job in jobs]
    with get_context("spawn").Pool(processes) as pool:
        return pool.map(_one, jobs, chunksize=4)


def share_of(values: Iterable[float], share: float) -> float:
    """A percentile of all seeds; infinite if so many never were."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))] if ordered else nan


class Named(NamedTuple):
    """Time-weighted precision and recall of a state."""

    precision: float
    recall: float


def named(told: list[Score]) -> dict[str, Named]:
    """Of each state that was the truth of some fault."""
    seconds = [[0.0] * len(STATES) for _ in STATES]
    for score in told:
        row = seconds[STATES.index(FAULTS[score.fault][1])]
        for index, part in enumerate(score.shares):
            row[index] += part
    table = {}
    for index, state in enumerate(STATES):
        truth, said = sum(seconds[index]), sum(row[index] for row in seconds)
        if truth:
            right = seconds[index][index]
            table[state.name] = Named(right / said if said else nan, right / truth)
    return table


def table(rate: float, told: list[Score]) -> list[str]:
    """As lines."""
    lines = [f"{rate:g} calls/s, {len(told)} runs"]
    lines.append(
        f"{'fault':30}{'truth':14}{'named p50':>10}{'p95':>8}{'right p50':>11}{'p95':>8}"
        f"{'right time':>12}{'over p50':>10}{'p95':>8}  kinds"
    )
    for name, (what, truth) in FAULTS.items():
        mine = [score for score in told if score.fault == name]
        if not mine:
            continue
        right = sum(score.shares[STATES.index(truth)] for score in mine) / len(mine)
        detected = [score.detected for score in mine]
        named_ = [score.right for score in mine]
        over = [score.recovered for score in mine]
        kinds = sorted({score.kind for score in mine})
        lines.append(
            f"{what:30}{truth.name:14}{share_of(detected, 0.5):10.2f}{share_of(detected, 0.95):8.2f}"
            f"{share_of(named_, 0.5):11.2f}{share_of(named_, 0.95):8.2f}{right:12.3f}"
            f"{share_of(over, 0.5):10.2f}{share_of(over, 0.95):8.2f}  {' '.join(kinds)}"
        )
    lines += [
        f"{state}: precision {value.precision:.3f}, recall {value.recall:.3f}"
        for state, value in named(told).items()
    ]
    hours = sum(score.quiet_seconds for score in told) / 3600
    found = sum(isfinite(score.detected) for score in told)
    lines.append(
        f"found {found} of {len(told)}; alarms before the fault:"
        f" {sum(s.alarms for s in told)} in {hours:.1f} h"
    )
    return lines
