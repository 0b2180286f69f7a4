"""A fault in force at a proxy: its injection, and what it has counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brownout._core.fault import Fault, Injection

__all__ = ["Active"]

RAMP_STEPS = 20  # how finely a growing share is seen by connections that are open


class Turns:
    """Counts since a fault was made; a change of the fault goes on counting."""

    def __init__(self) -> None:
        self.connections = 0
        self.before = 0  # requests at the proxy before it was made


class Active:
    """One fault in force. A change makes another, with the same name and the same `turns`."""

    def __init__(self, injection: Injection, turns: Turns) -> None:
        self.injection = injection
        self.turns = turns

    @property
    def fault(self) -> Fault:
        """What is done."""
        return self.injection.fault

    def in_force(self, now: float) -> bool:
        """Whether its schedule has it in force."""
        return self.fault.schedule.strength(now - self.injection.since) > 0

    def next_look(self, now: float) -> float:
        """When what it does to open connections next changes by itself; inf for never."""
        since = self.injection.since
        schedule = self.fault.schedule
        due = since + schedule.next_change(now - since)
        if schedule.ramp and 0 <= now - since - schedule.start < schedule.ramp:
            due = min(due, now + max(0.01, schedule.ramp / RAMP_STEPS))
        return due
