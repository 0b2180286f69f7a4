"""What an answer, or an exception of the client's, shows of the target."""

from __future__ import annotations

from typing import Any

from brownout import Certainty, OutcomeClass, Shown, TimedOut
from brownout.ext.reply import answer
from brownout.ext.trail import Classifier, certain

LIBRARIES = ("httpx", "httpx2")
TIGHT_SECONDS = 0.005  # clients round their time-outs
REFUSED_STREAM = 7  # RFC 9113, 8.7: it was closed before any of it was processed

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
            return certain(OutcomeClass.OVERLOAD) if _refused(error) else _SHOWN[class_.__name__]
    return None


def _refused(error: BaseException) -> bool:
    """Whether the target has turned an HTTP/2 stream away unread, as it says itself."""
    args: tuple[Any, ...] = getattr(error.__cause__, "args", ())
    return any(getattr(event, "error_code", None) == REFUSED_STREAM for event in args)


def _meaning(error: BaseException) -> Shown | None:
    """What an exception says by itself, where no Transport of ours has seen it."""
    response: Any = getattr(error, "response", None) if library(type(error)) else None
    if type(error).__name__ == "HTTPStatusError" and response is not None:
        shown = answer(response.status_code, response.headers)
        return Shown.of(OutcomeClass.SUCCESS) if shown is None else shown
    return known(error)


classify = Classifier("httpx", _meaning)


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
