"""What an answer, or an exception of the client's, shows of the target."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

from brownout import Certainty, OutcomeClass, Shown, TimedOut

LIBRARIES = ("httpx", "httpx2")
RETRY_AFTER_MOST = 3600.0
TIGHT_SECONDS = 0.005  # clients round their time-outs
_TOO_MANY, _UNAVAILABLE, _SERVER_ERROR = 429, 503, 500

# Exceptions by name, nearest class first; both libraries use the same names.
_SHOWN = {
    "PoolTimeout": Shown.of(OutcomeClass.LOCAL),
    "ConnectTimeout": Shown(OutcomeClass.UNKNOWN, Certainty.ABSENT),
    "ConnectError": Shown.of(OutcomeClass.CONNECT),
    "TimeoutException": Shown.of(OutcomeClass.UNKNOWN),
    "LocalProtocolError": Shown.of(OutcomeClass.LOCAL),
    "UnsupportedProtocol": Shown.of(OutcomeClass.LOCAL),
    "TransportError": Shown.of(OutcomeClass.FAILURE),
}


def library(class_: type) -> bool:
    """Whether a class is of one of the two libraries."""
    return class_.__module__.partition(".")[0] in LIBRARIES


def known(error: BaseException) -> Shown | None:
    """What an exception of the client's shows; None if it is another's."""
    for class_ in type(error).__mro__:
        if class_.__name__ in _SHOWN and library(class_):
            return _SHOWN[class_.__name__]
    return None


def stopped(error: BaseException, attempt: Any, now: float) -> OutcomeClass:
    """What it shows that the body of an answer ended in an exception, in the target's turn."""
    if not isinstance(error, Exception):
        return OutcomeClass.CANCELLED
    shown = known(error)
    class_ = OutcomeClass.FAILURE if shown is None else shown.class_
    if isinstance(error, TimedOut):
        class_ = OutcomeClass.UNKNOWN
    late = now >= attempt.deadline - TIGHT_SECONDS
    if class_ is OutcomeClass.UNKNOWN and attempt.inherited and late:
        return OutcomeClass.SHORT
    return class_


def answer(response: Any) -> Shown | None:
    """What an answer shows; None for a success (also 4xx: the target did its work, and said no)."""
    status = response.status_code
    if status in {_TOO_MANY, _UNAVAILABLE}:
        return Shown.of(OutcomeClass.OVERLOAD, retry_after(response.headers.get("retry-after")))
    # A 5xx does not say whether the work was done: it is repeated only if that does no harm.
    return Shown.of(OutcomeClass.FAILURE) if status >= _SERVER_ERROR else None


def retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header (seconds or a date), at most an hour; None if it makes no sense."""
    if value is None:
        return None
    try:
        if value.strip().isdecimal():
            return min(float(value), RETRY_AFTER_MOST)
        return min(
            max(0.0, parsedate_to_datetime(value).timestamp() - time.time()), RETRY_AFTER_MOST
        )
    except (ValueError, OverflowError):
        return None
