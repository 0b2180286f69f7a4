"""What an error of a database's driver means, by where it happened and by the server's own code.

A transaction that was not told to commit can only be rolled back by its server: whatever was lost in it
did not happen. From the moment at which COMMIT is handed over, or a statement outside of a transaction,
nobody knows; unless the server itself answers with an error. Not a word of this holds for what escapes a
transaction: sequences, dblink, a pooler in statement mode.

The codes are those of PostgreSQL (its manual, appendix A).
"""

from __future__ import annotations

from enum import Enum

from brownout import OutcomeClass, Shown
from brownout.ext.statement import commits, ends, reads, runs
from brownout.ext.trail import certain, lost, mark

__all__ = ["Place", "Session", "answered", "interrupted", "refusal"]


class Place(Enum):
    """Where a session was when something went wrong."""

    POOL = "pool"  # waiting for a connection of our own
    CONNECTING = "connecting"
    HERE = "here"  # nothing was sent: the client itself said no
    IN_TRANSACTION = "in transaction"
    ALONE = "alone"  # a statement that is its own transaction
    COMMITTING = "committing"  # COMMIT was handed over
    PARTLY = (
        "partly"  # a text that may commit, and go on: its first half may be done, its second fail
    )


_DOUBTFUL = (Place.ALONE, Place.COMMITTING, Place.PARTLY)
_NEVER_KNOWN = ("40003", "08007")  # statement completion unknown, transaction resolution unknown
_KILLED = ("57P01", "57P02", "57P05", "25P03", "25P04")  # the session; not an answer to what it did
_CONFLICT = (
    "40",
    "55",
)  # serialization, deadlock, lock not available: the callers', not the target's
_FULL = ("53", "54")  # out of memory, disk, connections
_BROKEN = ("58", "XX", "F0")
_LINK = "08"
_CANCELLED = "57014"


def answered(code: str, place: Place) -> Shown:
    """What an error shows that the server answered with, by its SQLSTATE."""
    if place is Place.PARTLY:
        return lost(answered(code, Place.COMMITTING).class_)
    if code in _NEVER_KNOWN:
        return lost()
    if place is Place.CONNECTING:
        full = code[:2] in _FULL
        return certain(OutcomeClass.OVERLOAD if full else OutcomeClass.CONNECT)
    if code[:2] == _LINK:  # also what asyncpg says by itself of a connection that is gone
        return interrupted(place)
    doubtful = place in _DOUBTFUL
    if code in _KILLED or code[:2] in _BROKEN:
        return lost() if doubtful else certain(OutcomeClass.FAILURE)
    if code[:2] in _FULL:
        return certain(OutcomeClass.OVERLOAD)
    if code == _CANCELLED:  # by the statement's time-out, or by somebody: no answer in time
        return certain(OutcomeClass.UNKNOWN)
    if code[:2] in _CONFLICT:
        return certain(OutcomeClass.SUCCESS)
    return Shown.of(OutcomeClass.SUCCESS)  # it did its work, and said no


def interrupted(place: Place, *, timed_out: bool = False) -> Shown:
    """What it shows that no answer came: the connection broke, or the time was up."""
    if place in {Place.POOL, Place.HERE}:
        return certain(OutcomeClass.LOCAL)
    if place is Place.CONNECTING:
        return certain(OutcomeClass.UNKNOWN if timed_out else OutcomeClass.CONNECT)
    class_ = OutcomeClass.UNKNOWN if timed_out else OutcomeClass.FAILURE
    return lost(class_) if place in _DOUBTFUL else certain(class_)


def refusal(text: str) -> Shown:
    """What it shows that no connection was made, by what the driver says of it.

    libpq keeps the server's code to itself, so for a server that is full its words have to do.
    """
    full = (
        "too many clients" in text or "too many connections" in text or "slots are reserved" in text
    )
    return certain(OutcomeClass.OVERLOAD if full else OutcomeClass.CONNECT)


class Session:
    """One connection: what its transaction has changed, and where it is."""

    __slots__ = ("changed",)

    def __init__(self) -> None:
        self.changed = False

    @staticmethod
    def place(text: str | None, *, in_transaction: bool) -> Place:
        """Where a statement is; None is a step of the driver's own that changes nothing."""
        if text is not None and commits(text):
            return Place.COMMITTING if ends(text) else Place.PARTLY
        if in_transaction:
            return Place.IN_TRANSACTION
        return Place.PARTLY if text is not None and runs(text) else Place.ALONE

    def done(self, place: Place, text: str | None, *, idle: bool) -> None:
        """A statement was answered well; `idle`: no transaction is open after it."""
        changed = text is not None and not reads(text) and not ends(text)
        if place is Place.IN_TRANSACTION:
            self.changed |= changed
        elif place in {Place.COMMITTING, Place.PARTLY}:
            if changed or self.changed:
                mark()
            self.changed = False
        elif place is Place.ALONE and changed:
            mark()
        if idle:
            self.changed = False
