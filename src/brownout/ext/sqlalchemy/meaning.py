"""What an exception of SQLAlchemy's, or of the driver below it, means."""

from __future__ import annotations

from sqlalchemy import exc

from brownout import OutcomeClass, Shown
from brownout.ext.sql import Place, answered, interrupted, refusal
from brownout.ext.trail import Classifier, lost

_ANSWERS = (exc.IntegrityError, exc.DataError, exc.ProgrammingError, exc.NotSupportedError)


def _code(error: BaseException) -> str | None:
    """The SQLSTATE, wherever the driver has it."""
    for one in (error, error.__cause__):
        for name in ("sqlstate", "pgcode"):
            code = getattr(one, name, None)
            if isinstance(code, str) and len(code) == 5:
                return code
    return None


def shown(error: BaseException, place: Place) -> Shown:
    """What it shows that a driver raised this at such a place."""
    code = _code(error)
    if code is not None:
        return answered(code, place)
    name = type(error).__name__
    timed_out = (
        isinstance(error, TimeoutError)
        or not isinstance(error, Exception)
        or name in {"ConnectionTimeout", "TimeoutError"}
    )
    if place is Place.CONNECTING:
        return interrupted(place, timed_out=True) if timed_out else refusal(str(error))
    if place is not Place.COMMITTING and name in {each.__name__ for each in _ANSWERS}:
        return Shown.of(OutcomeClass.SUCCESS)  # a driver without codes: the target's own word
    return interrupted(place, timed_out=timed_out)


def _meaning(error: BaseException) -> Shown | None:
    """What an exception says by itself; of an engine that is not watched, only the server's words."""
    if isinstance(error, exc.TimeoutError):  # of the pool: all its connections are in use
        return interrupted(Place.POOL)
    if isinstance(error, exc.DBAPIError):
        code = _code(error.orig) if error.orig is not None else None
        return answered(code, Place.COMMITTING) if code else lost()
    if isinstance(error, exc.SQLAlchemyError):
        return lost(
            OutcomeClass.LOCAL
        )  # its own word: a result that isn't there, a session in disorder
    return None


classify = Classifier("sqlalchemy", _meaning)
