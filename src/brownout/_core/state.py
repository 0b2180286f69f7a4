"""The five states of a target, as a table; the docs and the displays are made from it."""

from __future__ import annotations

from enum import Enum


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


def at_least(state: State | None, floor: State) -> bool:
    """Whether `state` is `floor` or worse. Without evidence the answer is no."""
    return state is not None and state.severity >= floor.severity


def worst(states: list[State | None]) -> State | None:
    """The worst of the states that have evidence; None when none has."""
    known = [state for state in states if state is not None]
    return max(known, key=lambda state: state.severity) if known else None
