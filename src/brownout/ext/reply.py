"""What an answer over HTTP shows: of the target, and of whether the work was done.

A 5xx comes from the server or from something before it, with the work done or not: it says nothing of that.
Nor does a bare 503, since a proxy that gave up on an answer says the same. Who knows better says so in the
header `Outcome`, as a server with the ledger does: `not-started`, `running`, `done`, `voided`, `doubt`.
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

from brownout import Certainty, OutcomeClass, Shown

__all__ = ["IDEMPOTENT", "SAFE", "Answered", "answer", "changed", "retry_after"]

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
IDEMPOTENT = SAFE | {"PUT", "DELETE"}
RETRY_AFTER_MOST = 3600.0
_TOO_MANY, _UNAVAILABLE, _ERROR, _SERVER_ERROR = 429, 503, 400, 500
_UNSURE = (408, 425, 499)  # somebody gave up waiting, or would not take the risk
_OPEN = ("running", "doubt")


class Answered(Exception):
    """Carries an answer that is not a success to the guard, which decides whether to try again."""

    def __init__(self, response: Any, shown: Shown) -> None:
        super().__init__(response)
        self.response = response
        self.shown = shown


def answer(status: int, headers: Any) -> Shown | None:
    """What an answer shows; None for a success (also 4xx: the target did its work, and said no)."""
    said = str(headers.get("outcome") or "").partition(";")[0].strip().lower()
    after = retry_after(headers.get("retry-after"))
    full = status in {_TOO_MANY, _UNAVAILABLE}
    if said == "not-started":
        class_ = OutcomeClass.FAILURE if status >= _SERVER_ERROR else OutcomeClass.SUCCESS
        return Shown(OutcomeClass.OVERLOAD if full else class_, Certainty.ABSENT, after)
    if said in _OPEN and status < _SERVER_ERROR:
        return Shown(OutcomeClass.SUCCESS, Certainty.UNKNOWN, after)
    if status == _TOO_MANY:
        return Shown.of(OutcomeClass.OVERLOAD, after)
    if status == _UNAVAILABLE:
        return Shown(OutcomeClass.OVERLOAD, Certainty.UNKNOWN, after)
    if status >= _SERVER_ERROR:
        known = Certainty.ANSWERED if said == "done" else Certainty.UNKNOWN
        return Shown(OutcomeClass.FAILURE, known)
    return Shown(OutcomeClass.FAILURE, Certainty.UNKNOWN) if status in _UNSURE else None


def changed(status: int, shown: Shown | None) -> bool:
    """Whether an answer that shows this says, or may hide, that the work was done."""
    return status < _ERROR if shown is None else shown.certainty is not Certainty.ABSENT


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
