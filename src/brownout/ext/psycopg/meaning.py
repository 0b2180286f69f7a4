"""What an exception of psycopg's means, by where it was raised."""

from __future__ import annotations

import psycopg

from brownout import OutcomeClass, Shown
from brownout.ext.sql import Place, answered, interrupted, refusal
from brownout.ext.trail import Classifier, lost

_TIMEOUTS = ("ConnectionTimeout", "_WaitTimeout")
_REFUSED = (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError)
_HERE = interrupted(Place.HERE)
_POOL = ("PoolTimeout", "TooManyRequests", "PoolClosed")


def shown(error: BaseException, place: Place, text: str | None = None) -> Shown:
    """What it shows that this was raised at such a place, by a statement of this text."""
    code = getattr(error, "sqlstate", None)
    if code:
        return answered(code, place)
    if isinstance(error, _REFUSED):
        # The driver said no to what it was given, and sent nothing; but it may find that out between two
        # statements of one text.
        several = ";" in (text or "").rstrip("; \n")
        return lost() if several and place is not Place.IN_TRANSACTION else _HERE
    if place is Place.CONNECTING and not _timed_out(error):
        return refusal(str(error))
    return interrupted(place, timed_out=_timed_out(error))


def _timed_out(error: BaseException) -> bool:
    return type(error).__name__ in _TIMEOUTS or not isinstance(error, psycopg.Error)


def _unknown(error: psycopg.Error) -> Shown:
    local = isinstance(error, (*_REFUSED, psycopg.InterfaceError))
    return lost(OutcomeClass.LOCAL if local else OutcomeClass.FAILURE)


def _meaning(error: BaseException) -> Shown | None:
    """What an exception says by itself."""
    if type(error).__module__.partition(".")[0] == "psycopg_pool":
        return interrupted(Place.POOL) if type(error).__name__ in _POOL else None
    if not isinstance(error, psycopg.Error):
        return None
    if error.pgconn is not None or isinstance(error, psycopg.errors.ConnectionTimeout):
        return shown(error, Place.CONNECTING)
    # Where it was is not known, nor what else was done: only the server's own word is certain.
    return answered(error.sqlstate, Place.COMMITTING) if error.sqlstate else _unknown(error)


classify = Classifier("psycopg", _meaning)
