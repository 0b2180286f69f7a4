"""Every exception of brownout, in one tree.

    BrownoutError
    ├── Refused               never sent: the guard itself said no           .target .state .retry_after
    │   ├── DeadlinePassed    no time was left (also a TimeoutError)
    │   ├── BreakerOpen       the target is UNRESPONSIVE or CRASHED and no probe was free
    │   └── LimitReached      too many attempts were in flight
    ├── OutcomeUnknown        it may have been sent, and nothing is known    .target .sent_at .phase .key
    │   └── TimedOut          our timer ended the attempt (also a TimeoutError)
    ├── ConfigurationError    a guard or a file that can't work (also a ValueError)
    ├── FaultRefused          a fault that may not or can't be made here; nothing was done
    └── UndoFailed            a fault was undone and is still there: it is on record     .id .place

Ours are raised only when nothing was sent, or when nothing is known. Whatever the guarded function
raises arrives as it was raised, traceback intact, with a note of what was tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brownout._core.outcome import Phase
    from brownout._core.state import State

__all__ = [
    "BreakerOpen",
    "BrownoutError",
    "ConfigurationError",
    "DeadlinePassed",
    "FaultRefused",
    "LimitReached",
    "OutcomeUnknown",
    "Refused",
    "TimedOut",
    "UndoFailed",
]


class BrownoutError(Exception):
    """The root of all exceptions that brownout raises."""


class Refused(BrownoutError):
    """The guard said no and nothing was sent: it is certain that nothing happened.

    `target` is the guarded name, `state` what the target was judged to be (None: no evidence),
    `retry_after` the seconds after which it is worth asking again (None: not known).
    """

    def __init__(
        self,
        message: str,
        *,
        target: str,
        state: State | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.target = target
        self.state = state
        self.retry_after = retry_after


class DeadlinePassed(Refused, TimeoutError):
    """The deadline had passed before the attempt could start."""


class BreakerOpen(Refused):
    """The breaker is open and every probe is out."""


class LimitReached(Refused):
    """As many attempts as the limit allows are in flight already."""


class OutcomeUnknown(BrownoutError):
    """The attempt may have been sent and nothing is known of what became of it.

    `sent_at` is a monotonic instant in seconds, `phase` how far the attempt had come for certain, `key`
    what the call named its work by (None: it has no key, so that nobody can be asked).
    """

    def __init__(self, message: str, *, target: str, sent_at: float, phase: Phase) -> None:
        super().__init__(message)
        self.target = target
        self.sent_at = sent_at
        self.phase = phase
        self.key: str | None = None


class TimedOut(OutcomeUnknown, TimeoutError):
    """Our timer ended an attempt that may have been sent."""


class ConfigurationError(BrownoutError, ValueError):
    """A configuration that can't work; the message lists every fault at once, each with a way out."""


class FaultRefused(BrownoutError):
    """A fault that may not be made, or that this machine can't make; nothing was done."""


class UndoFailed(BrownoutError):
    """A fault was undone, and is still seen: it stays on record, and the watchdog goes on trying.

    `id` names the record, for `brownout fault clear`; `place` where the fault is.
    """

    def __init__(self, message: str, *, id: str, place: str) -> None:  # noqa: A002  as in the record
        super().__init__(message)
        self.id = id
        self.place = place
