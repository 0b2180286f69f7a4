"""The budget: how many extra attempts the traffic allows.

Every call earns `share` of an extra attempt, and one is spent on each retry or hedge, so that under a
total outage a target sees at most 1 + share times the calls. The income is computed from the counts of
calls when an extra attempt is asked for: a call that succeeds pays nothing for it.

Source: Finagle's RetryBudget; gRFC A6 (retry throttling).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brownout._core.target import Mutex

MOST_SAVED = 10.0  # a quiet hour may not buy a storm
FIRST = 1.0


class Budget:
    """Extra attempts at one target. `mutex` guards the balance; it is held for arithmetic only."""

    __slots__ = ("_mutex", "_seen", "balance")

    def __init__(self, mutex: Mutex) -> None:
        self.renew(mutex)

    def renew(self, mutex: Mutex) -> None:
        """As new, after a fork: what the parent saved is the parent's."""
        self._mutex = mutex
        self._seen = 0
        self.balance = FIRST

    def spend(self, calls: int, share: float) -> bool:
        """Pay for one extra attempt if there is enough; `calls` is how many calls were ever made."""
        with self._mutex:
            self.balance = min(MOST_SAVED, self.balance + max(0, calls - self._seen) * share)
            self._seen = max(self._seen, calls)  # two threads may ask in the wrong order
            if self.balance < 1.0:
                return False
            self.balance -= 1.0
            return True
