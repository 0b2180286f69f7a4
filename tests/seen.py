"""What tests look at: what attempts showed, and what another thread brings about."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from brownout import OutcomeClass

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout import Guard

LIMIT_SECONDS = 10.0


def classes(guard: Guard) -> dict[str, int]:
    """What all attempts of a guard's target showed, by class. Held ones show it at the next fold."""
    counts: dict[str, int] = {}
    for operation in guard._target.operations.values():
        for shard in operation.evidence._all():
            for class_ in OutcomeClass:
                if shard.counts[class_]:
                    counts[class_.name] = counts.get(class_.name, 0) + shard.counts[class_]
    return counts


def within(true: Callable[[], object], seconds: float = LIMIT_SECONDS) -> bool:
    """Whether something comes true in time."""
    end, never = time.monotonic() + seconds, threading.Event()
    while not true():
        if time.monotonic() > end:
            return False
        never.wait(0.005)
    return True


def until(true: Callable[[], object], seconds: float = LIMIT_SECONDS) -> None:
    """Wait until something is true, at most so long."""
    assert within(true, seconds), "it did not become true in time"
