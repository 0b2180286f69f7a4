"""Moments: what happened at one time weighs as one, however many calls it hit.

A stall holds up all calls that are in flight together, so they are no more evidence than one of them;
calls made one after the other are each evidence of their own, however soon they follow one another.
"""

from __future__ import annotations

from math import inf, nextafter
from typing import TYPE_CHECKING

from brownout._core.outcome import OutcomeClass

if TYPE_CHECKING:
    from brownout._core.evidence import Tick

MOMENT_NATS = 5.0  # what one moment may weigh: no single one decides
LASTING = 0.5  # of the threshold, in a second: so much does a wait gain weight while it lasts,
ENDING = 2.0  # and so much what ends badly, one call after the other


class Room:
    """How much evidence there is room for: a moment's worth for each moment that has passed."""

    __slots__ = ("nats",)

    def __init__(self) -> None:
        self.nats = 0.0

    @property
    def full(self) -> bool:
        """Whether there is room for a moment: no more of it is kept for the next tick anyway."""
        return self.nats >= MOMENT_NATS

    def take(
        self,
        nats: float,
        moments: float,
        lasting: float,
        most: float = inf,
        well: float = 0.0,
    ) -> float:
        """The part of so many nats that there is room for, if `most` are allowed at all.

        `moments` have passed since the last time, and `lasting` nats are allowed for the time itself;
        `well` nats (not above zero) speak against.
        """
        fill = MOMENT_NATS * max(moments, 0.0) + lasting
        self.nats = min(max(MOMENT_NATS, fill), self.nats + fill)
        part = min(1.0, (min(self.nats, most) - well) / nats) if nats > 0 else 1.0
        self.nats -= max(0.0, part * nats + well)
        return part


def in_order(tick: Tick) -> tuple[Tick, ...]:
    """A tick as one or two, in the order of what happened.

    A call that does not end well is told of at once: if there is one, all else that is new came before it.
    """
    classes = tick.classes
    good = classes[OutcomeClass.SUCCESS]
    if not good or sum(classes) - good - classes[OutcomeClass.LOCAL] != 1:
        return (tick,)
    well, rest = [0] * len(classes), classes[:]
    well[OutcomeClass.SUCCESS], rest[OutcomeClass.SUCCESS] = good, 0
    before = tick._replace(
        at=nextafter(tick.at, -inf), started=max(0, tick.started - 1), classes=well, censored=[]
    )
    last = tick._replace(
        seconds=0.0, started=min(1, tick.started), classes=rest, answered=[], waited=0.0
    )
    return before, last
