"""The story: what happens when, and what is then true of whom.

The table is the definition of the truth. Where a target is not in a phase's row, its true state there
is not defined: the shop that answers from its price list while its downstream is down is neither well
nor ill. It is drawn, and not graded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from brownout import State

LEARN_SECONDS = 10.0  # what is usual is believed after 5 s of quarantine and 80 answers
REST_SECONDS = 4.0  # between two phases, and after the last
POOL_CONNECTIONS = 20  # of the shop: enough for a burst, too few for 30 % that hang for 2 s
RATES = {"catalog": 50.0, "quote": 50.0}
TARGETS = ("shop", "downstream")
POOL = "exhausted-pool"


@dataclass(frozen=True)
class Phase:
    """One thing that goes wrong: `fault` for the proxy or `rate` for the load, and the true states."""

    name: str
    title: str
    seconds: float
    truth: dict[str, State]
    fault: dict[str, Any] | None = None
    rate: dict[str, float] | None = None


def _fault(kind: str, share: float = 1.0, only: str = "/quote") -> dict[str, Any]:
    return {"kind": kind, "share": share, "only": only}


PHASES = (
    Phase(
        POOL,
        "30 % of the shop's calls to its downstream hang",
        7.0,
        {"shop": State.DEGRADED, "downstream": State.DEGRADED},
        fault=_fault("hang", 0.3),
    ),
    Phase(
        "resets",
        "25 % of the calls to the downstream are reset",
        5.0,
        {"downstream": State.DEGRADED},
        fault=_fault("reset", 0.25),
    ),
    Phase(
        "surge",
        "three times the quotes, more than the downstream has workers for",
        6.0,
        {"downstream": State.OVERLOADED},
        rate={"quote": 150.0},
    ),
    Phase(
        "silence",
        "the downstream accepts every call and answers none",
        5.0,
        {"downstream": State.UNRESPONSIVE},
        fault=_fault("hang"),
    ),
    Phase(
        "crash",
        "the downstream refuses connections",
        4.0,
        {"downstream": State.CRASHED},
        fault=_fault("refuse", only="/"),
    ),
)


@dataclass(frozen=True)
class Step:
    """One moment of the play: so many seconds after the load began, `phase` begins, or ends."""

    at: float
    phase: Phase
    begins: bool


def steps(phases: tuple[Phase, ...] = PHASES) -> tuple[list[Step], float]:
    """Every step in order, and when the load stops."""
    every: list[Step] = []
    at = LEARN_SECONDS
    for phase in phases:
        every += [Step(at, phase, begins=True), Step(at + phase.seconds, phase, begins=False)]
        at += phase.seconds + REST_SECONDS
    return every, at
