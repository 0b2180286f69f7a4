"""The five states of a target and the moves between them, as tables: docs and displays are made from them."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class State(Enum):
    """What a target is to its callers, judged from their side.

    States do not order by operators: use `guard.at_least(State.OVERLOADED)`. "No evidence" is not a
    state; it is None.
    """

    HEALTHY = ("H", "●", "answers are right; failure share and latency lie inside the usual band")
    DEGRADED = ("D", "◐", "most calls still end well, but some part is bad, not explained by load")
    OVERLOADED = ("O", "▲", "refusals or waiting that rise and fall with the calls made")
    UNRESPONSIVE = ("U", "◇", "it accepts, then says nothing inside the deadline")
    CRASHED = ("C", "✕", "it says no at once, for certain: refused, reset, no route, no name")

    def __init__(self, letter: str, shape: str, meaning: str) -> None:
        self.letter = letter
        self.shape = shape
        self.meaning = meaning

    @property
    def severity(self) -> int:
        """0 (HEALTHY) to 4 (CRASHED): when two states hold, the higher one is named."""
        return _SEVERITY[self]


_SEVERITY = {state: rank for rank, state in enumerate(State)}


_ILL = tuple(state for state in State if state is not State.HEALTHY)


class Move(NamedTuple):
    """One row of the table: at which event, from which states, to which, on what evidence.

    A state of None is no evidence.
    """

    event: str
    before: tuple[State | None, ...]
    after: tuple[State | None, ...]
    evidence: str


MOVES = (
    Move(
        "known",
        (None,),
        (State.HEALTHY,),
        "enough calls have ended in the window, and nothing is suspicious",
    ),
    Move("few", (State.HEALTHY,), (None,), "less than half as many calls are left in the window"),
    Move(
        "alarm",
        (None, State.HEALTHY),
        _ILL,
        "what speaks for one way of being ill, and against the usual, passes the threshold",
    ),
    Move(
        "renamed",
        _ILL,
        _ILL,
        "the calls since it began are explained better by another state, by a clear margin",
    ),
    Move(
        "recovered",
        _ILL,
        (State.HEALTHY, None),
        "calls have ended since that speak for the usual; are they too few to know, it is not HEALTHY yet",
    ),
    Move("lapsed", _ILL, (None,), "no call has ended for a whole window, and none waits"),
    Move("forgotten", tuple(State), (None,), "a fork: the child has made no call yet"),
)
_ALLOWED = {
    (before, move.event, after)
    for move in MOVES
    for before in move.before
    for after in move.after
    if before is not after
}


def moved(before: State | None, event: str, after: State | None) -> State | None:
    """The state after a move, which must be one of the table's: it is how every state changes."""
    assert (before, event, after) in _ALLOWED, f"no row of the table: {before}, {event}, {after}"
    return after


def at_least(state: State | None, floor: State) -> bool:
    """Whether `state` is `floor` or worse. Without evidence the answer is no."""
    return state is not None and state.severity >= floor.severity


def worst(states: list[State | None]) -> State | None:
    """The worst of the states that have evidence; None when none has."""
    known = [state for state in states if state is not None]
    return max(known, key=lambda state: state.severity) if known else None
