"""The name of what is wrong: the state, how much of it there is, and whose calls it hits.

A breaker opens on UNRESPONSIVE and CRASHED, and so ends what still works: they are named only where hardly
any call is answered, so surely that it is no chance where half of them are.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from brownout._core.baseline import LATE
from brownout._core.modes import ERROR, FAST, OVERLOAD, REFUSED, WAITING
from brownout._core.split import split
from brownout._core.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brownout._core.finding import Row, Split
    from brownout._core.labelled import Labelled
    from brownout._core.modes import Mode
    from brownout._core.stream import Stream

# What a call without an answer, and an answer, say for "2 % are answered" against "half are"; and by so
# much it must explain the calls better, before a target is UNRESPONSIVE or CRASHED.
NONE, ONE = log(0.98 / 0.5), log(0.02 / 0.5)
TOTAL_NATS = 6.0
ANSWERED_NATS = 12.0  # and by so much the latest must speak against it, before it is that no more
SILENT_CALLS = 3  # or so few, if they are in flight together and nobody is answered for so long
QUIET_SECONDS = 0.25

_TOTAL = (State.UNRESPONSIVE, State.CRASHED)
_LATE = (3, 4, LATE)
_NO_ANSWER = (REFUSED, WAITING + LATE - 1, WAITING + LATE)
_BAD = {
    "silent": (WAITING + LATE,),
    "errors": (ERROR,),
    "overload": (OVERLOAD,),
    "refused": (REFUSED,),
    "tail": (*_LATE, *(WAITING + level for level in _LATE)),
    "too fast": (FAST,),
}


def _sums(rows: Sequence[Row]) -> list[int]:
    return [sum(column) for column in zip(*(row.calls for row in rows), strict=True)]


def state_of(
    mode: Mode,
    rows: Sequence[Row],
    waiting: Sequence[int],
    before: State | None,
    *,
    overloaded: bool,
) -> State:
    """The state of a target that is ill in this way, as the ticks that decided show it.

    `before` is the state that it had.
    """
    state = mode.state
    if _total(rows, waiting) or (before in _TOTAL and not _answered(rows, waiting)):
        state = State.CRASHED if state is State.CRASHED else State.UNRESPONSIVE
    elif state in _TOTAL:
        state = State.DEGRADED  # a part of the calls is answered: a breaker would end that too
    # Once overloaded, its slowness and its silence are overload for as long as the load lasts.
    if overloaded and mode.kind in {"shift", "tail", "silent"}:
        return State.OVERLOADED
    return state


def _total(rows: Sequence[Row], waiting: Sequence[int]) -> bool:
    """Whether hardly any call is answered: so surely that it is no chance where half of them are."""
    calls, silent = _sums(rows), waiting[WAITING + LATE]
    seconds = sum(row.tick.seconds for row in rows)
    if silent >= SILENT_CALLS and not _answers(calls) and seconds >= QUIET_SECONDS:
        return True  # all who still wait have waited long, and nobody got an answer meanwhile
    return _speaks(calls) + silent * NONE >= TOTAL_NATS


def _answered(rows: Sequence[Row], waiting: Sequence[int]) -> bool:
    """Whether the latest calls, however many of them, say that more than hardly any is answered.

    It is Page's test, from the last tick back: else a target of which nine in ten calls hang would be
    UNRESPONSIVE only while no more than one of the last twenty is answered by chance.
    """
    nats = waiting[WAITING + LATE] * NONE
    for row in reversed(rows):
        nats += _speaks(row.calls)
        if nats <= -ANSWERED_NATS:
            return True
    return False


def _answers(calls: Sequence[int]) -> int:
    return sum(calls[:REFUSED]) + calls[FAST]


def _speaks(calls: Sequence[int]) -> float:
    return sum(calls[index] for index in _NO_ANSWER) * NONE + _answers(calls) * ONE


def extent_of(mode: Mode, rows: Sequence[Row], waiting: Sequence[int]) -> float:
    """The share of the calls that it hits, as measured; for a shift, what the best explanation assumes."""
    columns = _BAD.get(mode.kind)
    if columns is None:
        return mode.extent
    calls = _sums(rows)
    bad = sum(calls[index] + waiting[index] for index in columns)
    every = sum(calls) + sum(waiting)
    return min(1.0, bad / every) if bad else mode.extent


Group = tuple[tuple[tuple[str, str], ...], int, int]  # labels, bad calls, calls


def _of_streams(mode: int, rows: Sequence[Row]) -> list[Group]:
    """The calls of streams that bear labels, and how many of them speak for a mode."""
    groups: list[Group] = []
    for part in (part for row in rows for part in row.parts if part.stream.labels):
        nats = part.table.modes[mode].nats
        bad = sum(count for index, count in enumerate(part.calls) if count and nats[index] > 0)
        groups.append((part.stream.labels, bad, sum(part.calls)))
    return groups


def _of_calls(mode: int, stream: Stream, calls: Sequence[Labelled]) -> list[Group]:
    """The same of calls that bear labels of their own."""
    nats = stream.table.modes[mode].nats
    columns = [(call.labels, stream.column(call.class_, call.bucket)) for call in calls]
    return [(labels, nats[index] > 0, 1) for labels, index in columns if index is not None]


def whose(
    mode: int, rows: Sequence[Row], stream: Stream, calls: Sequence[Labelled]
) -> Split | None:
    """The label of the calls that tells the bad ones from the good ones, if one does."""
    groups = [*_of_streams(mode, rows), *_of_calls(mode, stream, calls)]
    counts: dict[str, dict[str, list[int]]] = {}
    for labels, bad, every in groups:
        for label, value in labels:
            told = counts.setdefault(label, {}).setdefault(value, [0, 0])
            told[0] += bad
            told[1] += every
    found = [
        split(label, {value: (bad, every) for value, (bad, every) in values.items()})
        for label, values in counts.items()
    ]
    known = [one for one in found if one is not None]
    return max(
        known, key=lambda one: one.bad / one.calls, default=None
    )  # the first of the sharpest
