"""Every exception of brownout, in one tree.

    BrownoutError
    ├── Refused               never sent: the guard itself said no           .target .state .retry_after
    │   ├── DeadlinePassed    no time was left (also a TimeoutError)
    │   ├── BreakerOpen       the target is UNRESPONSIVE or CRASHED and no probe was free
    │   └── LimitReached      too many attempts were in flight
    ├── OutcomeUnknown        it may have been sent, and nothing is known    .target .sent_at .phase .key
    │   └── TimedOut          our timer ended the attempt (also a TimeoutError)
    ├── LedgerError           what a ledger has to say about a key                   .key .scope
    │   ├── KeyMalformed      no UUIDv7; nothing was run
    │   ├── KeyFromTheFuture  its time is ahead of the ledger's clock; nothing was run
    │   ├── KeyTooOld         it is past the horizon; nothing was run
    │   ├── OtherPayload      the key was used for something else; nothing was run
    │   ├── Voided            it never happened and never will
    │   ├── StillRunning      another attempt is at it                               .retry_after
    │   ├── InDoubt           it may have happened, and nobody knows
    │   ├── AlreadyTaken      another attempt was first: this transaction must be rolled back
    │   ├── NotEnlisted       an atomic handler without the ledger's row in its transaction
    │   ├── ReplyLost         it is done, and what it answered was not kept
    │   ├── LedgerUnavailable the store can't be used now                            .not_started
    │   └── WrongSchema       its tables are missing, or made by a later version
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
    "AlreadyTaken",
    "BreakerOpen",
    "BrownoutError",
    "ConfigurationError",
    "DeadlinePassed",
    "FaultRefused",
    "InDoubt",
    "KeyFromTheFuture",
    "KeyMalformed",
    "KeyTooOld",
    "LedgerError",
    "LedgerUnavailable",
    "LimitReached",
    "NoEffect",
    "NotEnlisted",
    "OtherPayload",
    "OutcomeUnknown",
    "Refused",
    "ReplyLost",
    "StillRunning",
    "TimedOut",
    "UndoFailed",
    "Voided",
    "WrongSchema",
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


class LedgerError(BrownoutError):
    """What a ledger has to say about a key. `scope` is who used it for what; both may be empty."""

    def __init__(self, message: str, *, key: str = "", scope: str = "") -> None:
        super().__init__(message)
        self.key = key
        self.scope = scope


class KeyMalformed(LedgerError, ValueError):
    """The key is no UUIDv7. Nothing was run."""


class KeyFromTheFuture(LedgerError):
    """The key's time is further ahead of the ledger's clock than clocks may differ. Nothing was run."""


class KeyTooOld(LedgerError):
    """The key is past the ledger's horizon: it may have been used and forgotten. Nothing was run now."""


class OtherPayload(LedgerError):
    """The key was used before, with another payload. Nothing was run: it is the caller's mistake."""


class Voided(LedgerError):
    """The key was voided before anything began: it never happened and never will."""


class StillRunning(LedgerError):
    """Another attempt is at it. `retry_after`: the seconds after which to ask again (None: not known)."""

    def __init__(
        self, message: str, *, key: str = "", scope: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message, key=key, scope=scope)
        self.retry_after = retry_after


class InDoubt(LedgerError):
    """It was begun, and nobody knows whether it happened; it is not run again."""


class AlreadyTaken(LedgerError):
    """Another attempt was first with this key. The transaction is of no use: let it be rolled back."""


class NotEnlisted(LedgerError):
    """An atomic handler did not put the ledger's row into its transaction, with `Ledger.enlist`."""


class ReplyLost(LedgerError):
    """It is done, for certain, and what it answered was not kept."""


class LedgerUnavailable(LedgerError):
    """The ledger's store can't be used now. `not_started`: it is certain that no handler was run."""

    def __init__(
        self, message: str, *, key: str = "", scope: str = "", not_started: bool = True
    ) -> None:
        super().__init__(message, key=key, scope=scope)
        self.not_started = not_started


class WrongSchema(LedgerError):
    """The ledger's tables are missing, or were made by another version. Nothing was run."""


class NoEffect(Exception):
    """Raised by an opaque handler, to say that it has done nothing: the key may be used again.

    No other exception is taken for that.
    """


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
