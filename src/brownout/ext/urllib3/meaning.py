"""What an exception of urllib3's means."""

from __future__ import annotations

from typing import Any

from urllib3 import exceptions

from brownout import OutcomeClass, Shown
from brownout.ext.trail import CAUSES_MOST, Classifier, certain, lost, same

__all__ = ["broken", "carry", "classify", "connecting"]

_OWN = (
    exceptions.EmptyPoolError,
    exceptions.ClosedPoolError,
    exceptions.LocationValueError,
    exceptions.HTTPWarning,
)
_NEW = (exceptions.NewConnectionError, exceptions.NameResolutionError)


def _silent(error: BaseException) -> bool:
    silence = (TimeoutError, exceptions.TimeoutError)
    none = isinstance(error, _NEW)  # a NewConnectionError was a time-out's kin once
    return (isinstance(error, silence) and not none) or not isinstance(error, Exception)


def connecting(error: BaseException) -> Shown:
    """What it shows that there was no connection to send it on."""
    return certain(OutcomeClass.UNKNOWN if _silent(error) else OutcomeClass.CONNECT)


def broken(error: BaseException) -> Shown:
    """What it shows that no whole answer came to what was sent, or begun to be sent."""
    return lost(OutcomeClass.UNKNOWN if _silent(error) else OutcomeClass.FAILURE)


def carry(error: BaseException) -> bool:
    """Say on an exception what was said on the one that it hides: as its cause, reason or argument."""
    inner: Any = error
    for _ in range(CAUSES_MOST):
        if not isinstance(inner, BaseException):
            return False
        if getattr(inner, "brownout_shown", None) is not None:
            same(error, inner)
            return True
        deeper: Any = inner.__cause__ or getattr(inner, "reason", None)
        hidden = (one for one in inner.args if isinstance(one, BaseException))
        inner = deeper if isinstance(deeper, BaseException) else next(hidden, None)
    return False


def _meaning(error: BaseException) -> Shown | None:
    """What an exception says by itself; of a manager that is not watched, that is little."""
    if isinstance(error, exceptions.MaxRetryError):
        return None if error.__cause__ is not None else lost()
    if isinstance(error, _OWN):
        return certain(OutcomeClass.LOCAL)
    return broken(error) if isinstance(error, exceptions.HTTPError) else None


classify = Classifier("urllib3", _meaning)
