"""What an attempt showed: how it ended for the caller, and what that says of the target.

Two questions, two answers. *Certainty*: did it happen, so may it be repeated? *Class*: is it evidence
against the target? An exception that nobody knows is *unknown* for the first and a *failure of the
target* for the second.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from errno import ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ENOENT
from math import inf
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from brownout._core.value import Value
from brownout.errors import (
    KeyFromTheFuture,
    KeyMalformed,
    KeyTooOld,
    LedgerError,
    LedgerUnavailable,
    OtherPayload,
    OutcomeUnknown,
    Refused,
    StillRunning,
    Voided,
)

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Phase(IntEnum):
    """How far an attempt had come, in order."""

    NOT_SENT = 0
    SENDING = 1
    SENT = 2
    RECEIVING = 3
    ANSWERED = 4


class Certainty(Enum):
    """Whether the attempt had an effect at the target."""

    ABSENT = "absent"  # it did not happen: safe to repeat
    ANSWERED = "answered"  # the target answered: never repeated
    UNKNOWN = "unknown"  # it may have happened: repeated only if keyed or idempotent


class OutcomeClass(IntEnum):
    """What an attempt is as evidence about its target.

    Only the target's own behaviour counts against it. (A *slow* success is a success here: what is
    slow is for the judge, who knows what is usual.)
    """

    SUCCESS = 0  # the target answered, and well
    FAILURE = 1  # the target failed: an error answer, a broken connection, an unknown exception
    OVERLOAD = 2  # the target refused because of load: 429, 503, RESOURCE_EXHAUSTED
    CONNECT = 3  # refused, no route, no name, reset before sending
    UNKNOWN = 4  # sent, and no answer came in the time that the guard allows
    LOCAL = 5  # our own refusal, or a wait for our own pool: no evidence at all
    CANCELLED = 6  # the caller left: a latency known only to be at least so long
    SHORT = 7  # an inherited deadline ended it before the guard's own time-out: likewise


CENSORED = (OutcomeClass.UNKNOWN, OutcomeClass.CANCELLED, OutcomeClass.SHORT)

# A client may end it before sending; then it is certain whatever the class says.
_CERTAINTY = {
    OutcomeClass.SUCCESS: Certainty.ANSWERED,
    OutcomeClass.FAILURE: Certainty.UNKNOWN,
    OutcomeClass.OVERLOAD: Certainty.ABSENT,
    OutcomeClass.CONNECT: Certainty.ABSENT,
    OutcomeClass.UNKNOWN: Certainty.UNKNOWN,
    OutcomeClass.LOCAL: Certainty.ABSENT,
    OutcomeClass.CANCELLED: Certainty.UNKNOWN,
    OutcomeClass.SHORT: Certainty.UNKNOWN,
}


class Shown(NamedTuple):
    """What one attempt showed: the two answers, and how long the target asks us to wait."""

    class_: OutcomeClass
    certainty: Certainty
    retry_after: float | None = None

    @staticmethod
    def of(class_: OutcomeClass, retry_after: float | None = None) -> Shown:
        """The class with the certainty that it has when nothing else is known."""
        return Shown(class_, _CERTAINTY[class_], retry_after)


_NO_CONNECTION = frozenset({ECONNREFUSED, EHOSTUNREACH, EHOSTDOWN, ENETUNREACH, ENETDOWN, ENOENT})


_CAUSES_MOST = 20


def told(exc: BaseException, began: float) -> Shown | None:
    """What an adapter said of `exc`, or of an exception that it was raised *from*; None if none did.

    Only the adapter saw how far the client had come. So it hangs a function on the exception,
    `brownout_shown`, which is given when the attempt began, and answers with a Shown. What merely
    happened while another exception was handled (its context) is not looked at: it may be other work.
    """
    seen: BaseException | None = exc
    for _ in range(_CAUSES_MOST):
        if seen is None:
            break
        say: Callable[[float], Shown] | None = getattr(seen, "brownout_shown", None)
        if say is not None:
            return say(began)
        seen = seen.__cause__
    return None


def classify(
    exc: BaseException, answers: tuple[type[BaseException], ...] = (), began: float = -inf
) -> Shown:
    """What `exc`, raised by a guarded function, shows: as its adapter said, or by its class.

    `answers` are exception classes that are the target's answer (not found, invalid), so a success of
    the target. `began` is when the attempt began. Anything that nobody knows counts against the target
    and is repeated only if that is declared to be safe.
    """
    if answers and isinstance(exc, answers):
        return Shown.of(OutcomeClass.SUCCESS)
    if isinstance(exc, Refused):
        return Shown.of(OutcomeClass.LOCAL, exc.retry_after)
    if not isinstance(
        exc, Exception
    ):  # CancelledError, KeyboardInterrupt, GeneratorExit, SystemExit
        return Shown.of(OutcomeClass.CANCELLED)
    shown = told(exc, began)
    if shown is not None:
        return shown
    if isinstance(exc, (TimeoutError, OutcomeUnknown)):
        return Shown.of(OutcomeClass.UNKNOWN)
    if isinstance(exc, OSError) and _never_connected(exc):
        return Shown.of(OutcomeClass.CONNECT)
    if isinstance(exc, LedgerError):
        return _of_ledger(exc)
    return Shown.of(OutcomeClass.FAILURE)


# What a ledger says of a key that was not run now. An earlier attempt with it may have been: that stays.
_NOT_RUN = (Voided, KeyMalformed, KeyFromTheFuture, KeyTooOld, OtherPayload)


def _of_ledger(exc: LedgerError) -> Shown:
    if isinstance(exc, _NOT_RUN):
        return Shown.of(OutcomeClass.SUCCESS)  # an answer: no
    if isinstance(exc, LedgerUnavailable) and exc.not_started:
        return Shown(OutcomeClass.FAILURE, Certainty.ABSENT)
    if isinstance(exc, StillRunning):
        return Shown(OutcomeClass.FAILURE, Certainty.UNKNOWN, exc.retry_after)
    return Shown.of(OutcomeClass.FAILURE)


def _never_connected(exc: OSError) -> bool:
    # ENOENT is a Unix socket that is not there, or an ordinary missing file: only the first is a
    # connection, and only it comes without a file name. gaierror lives in a module that the core
    # may not import.
    if type(exc).__name__ == "gaierror":
        return True
    if exc.errno == ENOENT:
        return exc.filename is None
    return exc.errno in _NO_CONNECTION


class Outcome(Value, Generic[T]):
    """How a call ended for its caller: succeeded, failed for certain, or unknown.

    Exactly one of `succeeded`, `failed` and `unknown` is true. `value` is what the guarded function
    returned (None unless succeeded); `error` is what it, or the guard, raised; `attempts` how many
    attempts were sent; `seconds` how long the whole call took; `key` the call's key, if it had one. Of an
    unknown one, `phase` is how far its attempts had come for certain (the furthest), and `ended_at` the
    monotonic instant after which the caller has sent nothing more (infinite: not known).
    """

    value: T | None
    error: Exception | None
    certainty: Certainty
    attempts: int
    seconds: float
    key: str | None = None
    phase: Phase | None = None
    ended_at: float = inf

    @property
    def succeeded(self) -> bool:
        """The call returned a value."""
        return self.error is None

    @property
    def failed(self) -> bool:
        """It is certain that the call did not do its work, or that the target answered with an error."""
        return self.error is not None and self.certainty is not Certainty.UNKNOWN

    @property
    def unknown(self) -> bool:
        """It may have happened, it may be running, it may never have arrived."""
        return self.error is not None and self.certainty is Certainty.UNKNOWN
