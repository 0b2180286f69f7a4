"""The heartbeat: one thread renews the leases of all that this process runs."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from brownout._drive.clock import clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout._core.ledger import Claim

BEATS_IN_A_LEASE = 3  # two may be lost
IDLE_SECONDS = 5.0


class Heartbeat:
    """Renews each claim that was given to `start` until `stop`, at a third of its lease.

    A renewal that fails is tried again at the next beat; one that is refused marks the claim as `over`.
    """

    def __init__(self, renew: Callable[[Claim], bool]) -> None:
        self._renew = renew
        self._due: dict[Claim, float] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def start(self, claim: Claim) -> None:
        """Keep the lease of `claim` from now on."""
        if self._pid != os.getpid():  # forked: the thread is the parent's
            self.__init__(self._renew)  # type: ignore[misc]
        with self._changed:
            self._due[claim] = clock.now() + claim.lease_seconds / BEATS_IN_A_LEASE
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="brownout-heartbeat", daemon=True
                )
                self._thread.start()
            elif len(self._due) == 1:
                self._changed.notify()

    def stop(self, claim: Claim) -> None:
        """Let the lease end."""
        with self._changed:
            self._due.pop(claim, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._due and not self._changed.wait(IDLE_SECONDS) and not self._due:
                    self._thread = None
                    return
                now = clock.now()
                due = [claim for claim, at in self._due.items() if at <= now]
                if not due:
                    first = min(self._due.values(), default=now + IDLE_SECONDS)
                    shortest = min((c.lease_seconds for c in self._due), default=1.0)
                    # a claim with a shorter lease may come meanwhile
                    self._changed.wait(max(0.001, min(first - now, shortest / BEATS_IN_A_LEASE)))
                    continue
            for claim in due:
                self._beat(claim)

    def _beat(self, claim: Claim) -> None:
        try:
            mine = self._renew(claim)
        except Exception:
            # Nobody knows: at the next beat. Also what is no LedgerError, from a client that was closed
            # meanwhile say: one thread beats for all.
            mine = True
        with self._changed:
            if claim not in self._due:
                return
            if mine:
                self._due[claim] = clock.now() + claim.lease_seconds / BEATS_IN_A_LEASE
            else:
                claim.over = True
                del self._due[claim]
