"""Moments: what happened at one time weighs as one, however many calls it hit.

A stall holds up all calls that are in flight together, so they are no more evidence than one of them;
calls made one after the other are each evidence of their own, however soon they follow one another.
"""

from __future__ import annotations

from math import inf, nextafter
from typing import TYPE_CHECKING

from brownout._core.outcome import OutcomeClass

if TYPE_CHECKING:
    from brownout._core.cell import Tick

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

    def filled(self, moments: float, lasting: float) -> float:
        """The nats that there is room for, when `moments` have passed and `lasting` nats' worth of time."""
        fill = MOMENT_NATS * max(moments, 0.0) + lasting
        self.nats = min(max(MOMENT_NATS, fill), self.nats + fill)
        return self.nats

    def spend(self, nats: float) -> None:
        """So much of it is used up."""
        self.nats -= nats

    def take(self, nats: float, moments: float, lasting: float) -> float:
        """The part of so many nats that there is room for."""
        room = self.filled(moments, lasting)
        if nats <= 0:
            return 1.0
        part = min(1.0, room / nats)
        self.spend(part * nats)
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
