"""Where a key stands in a ledger, and what can happen to it: the state table, as data.

1. Whatever changes where a key stands is looked up in TABLE; what it does not hold cannot happen.
2. Nothing changes any more what is DONE or VOID. ABSENT proves nothing.
3. Only an absent key is voided: once somebody was let to run, even a lease that is over proves nothing.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping


class Standing(Enum):
    """Where a key stands in the ledger."""

    ABSENT = "absent"
    RUNNING = "running"
    DONE = "done"
    VOID = "void"
    DOUBT = "doubt"


class HandlerClass(Enum):
    """What a handler does, and so what can be promised of it.

    ATOMIC: its effect is in the ledger's own database, in one transaction with the ledger's row. Exactly
    once. RESUMABLE: each call that it makes carries a child key, so that it can be run again. Exactly
    once, by going on to the end. OPAQUE: anything else. At most once, or it is said to be in doubt.
    """

    ATOMIC = "atomic"
    RESUMABLE = "resumable"
    OPAQUE = "opaque"


class Event(Enum):
    """What can happen to a key. `over` is: and the lease of who has it is over."""

    REQUEST = "request"
    REQUEST_OLD = "request, key past the horizon"
    REQUEST_LOST = "request, key from before a failover"
    REQUEST_OTHER = "request with another payload"
    REQUEST_OVER = "request, lease over"
    ASK = "ask"
    ASK_OVER = "ask, lease over"
    VOID = "ask-or-void"
    VOID_OLD = "ask-or-void, key past the horizon"
    VOID_LOST = "ask-or-void, key from before a failover"
    VOID_FORGOTTEN = "ask-or-void, key past horizon and margin"
    VOID_OVER = "ask-or-void, lease over"
    COMMIT = "commit of the handler's transaction"
    COMPLETE = "complete, fence matches"
    COMPLETE_LATE = "complete, old fence"
    RAISE = "the handler raised"
    NO_EFFECT = "the handler raised NoEffect"
    COLLECT = "collect, key past horizon and margin"


class Says(Enum):
    """What whoever caused the event is told."""

    RUN = "run it"
    NOTHING = "no such key, which proves nothing"
    RUNNING = "running"
    VALUE = "done, with its reply"
    NEVER = "void: it never happened, and never will"
    DOUBT = "in doubt"
    TOO_OLD = "too old"
    OTHER_PAYLOAD = "the key was used with another payload"
    KEPT = "kept"
    FENCED = "too late: what the successor does is the answer"


class Move(NamedTuple):
    """What an event does: where the key stands then, and what is told."""

    to: Standing
    says: Says


Table: TypeAlias = "Mapping[tuple[Standing, Event], Move | Mapping[HandlerClass, Move]]"

_ABSENT, _RUNNING, _DONE = Standing.ABSENT, Standing.RUNNING, Standing.DONE
_VOID, _DOUBT = Standing.VOID, Standing.DOUBT
_ATOMIC, _RESUMABLE, _OPAQUE = HandlerClass.ATOMIC, HandlerClass.RESUMABLE, HandlerClass.OPAQUE
_IS_RUNNING = Move(_RUNNING, Says.RUNNING)
_REPLAY = Move(_DONE, Says.VALUE)
_NEVER = Move(_VOID, Says.NEVER)
_UNSURE = Move(_DOUBT, Says.DOUBT)

TABLE: Table = {
    (_ABSENT, Event.REQUEST): {
        _ATOMIC: Move(_ABSENT, Says.RUN),  # its row comes with its own commit
        _RESUMABLE: Move(_RUNNING, Says.RUN),
        _OPAQUE: Move(_RUNNING, Says.RUN),
    },
    (_ABSENT, Event.REQUEST_OLD): Move(_ABSENT, Says.TOO_OLD),
    (
        _ABSENT,
        Event.REQUEST_LOST,
    ): _UNSURE,  # of any class: a tombstone may have been forgotten, too
    (_ABSENT, Event.ASK): Move(_ABSENT, Says.NOTHING),
    (_ABSENT, Event.VOID): _NEVER,
    (_ABSENT, Event.VOID_OLD): _NEVER,  # with a row: a transaction begun earlier may yet commit
    (_ABSENT, Event.VOID_LOST): _UNSURE,
    (_ABSENT, Event.VOID_FORGOTTEN): Move(_ABSENT, Says.TOO_OLD),
    (_ABSENT, Event.COMMIT): {_ATOMIC: Move(_DONE, Says.KEPT)},
    (_ABSENT, Event.COMPLETE_LATE): Move(_ABSENT, Says.FENCED),
    (_RUNNING, Event.REQUEST): _IS_RUNNING,
    (_RUNNING, Event.REQUEST_OTHER): Move(_RUNNING, Says.OTHER_PAYLOAD),
    (_RUNNING, Event.REQUEST_OVER): {_RESUMABLE: Move(_RUNNING, Says.RUN), _OPAQUE: _UNSURE},
    (_RUNNING, Event.ASK): _IS_RUNNING,
    (_RUNNING, Event.ASK_OVER): {_RESUMABLE: _IS_RUNNING, _OPAQUE: _UNSURE},
    (_RUNNING, Event.VOID): _IS_RUNNING,
    (_RUNNING, Event.VOID_OVER): {_RESUMABLE: _IS_RUNNING, _OPAQUE: _UNSURE},
    (_RUNNING, Event.COMMIT): {_ATOMIC: Move(_RUNNING, Says.FENCED)},
    (_RUNNING, Event.COMPLETE): Move(_DONE, Says.KEPT),
    (_RUNNING, Event.COMPLETE_LATE): Move(_RUNNING, Says.FENCED),
    (_RUNNING, Event.RAISE): {
        _RESUMABLE: _IS_RUNNING,  # until its lease is over, and it is run again
        _OPAQUE: _UNSURE,
    },
    (_RUNNING, Event.NO_EFFECT): {
        _RESUMABLE: _IS_RUNNING,  # nobody knows what its predecessor did
        _OPAQUE: Move(_ABSENT, Says.KEPT),
    },
    (_DONE, Event.REQUEST): _REPLAY,
    (_DONE, Event.REQUEST_OTHER): Move(_DONE, Says.OTHER_PAYLOAD),
    (_DONE, Event.ASK): _REPLAY,
    (_DONE, Event.VOID): _REPLAY,
    (_DONE, Event.COMMIT): {_ATOMIC: Move(_DONE, Says.FENCED)},
    (_DONE, Event.COMPLETE): _REPLAY,  # told a second time
    (_DONE, Event.COMPLETE_LATE): _REPLAY,
    (_DONE, Event.COLLECT): Move(_ABSENT, Says.KEPT),
    (_VOID, Event.REQUEST): _NEVER,
    (_VOID, Event.ASK): _NEVER,
    (_VOID, Event.VOID): _NEVER,
    (_VOID, Event.COMMIT): {_ATOMIC: Move(_VOID, Says.FENCED)},
    (_VOID, Event.COMPLETE_LATE): Move(_VOID, Says.FENCED),
    (_VOID, Event.COLLECT): Move(_ABSENT, Says.KEPT),
    (_DOUBT, Event.REQUEST): _UNSURE,
    (_DOUBT, Event.REQUEST_OTHER): Move(_DOUBT, Says.OTHER_PAYLOAD),
    (_DOUBT, Event.ASK): _UNSURE,
    (_DOUBT, Event.VOID): _UNSURE,
    (_DOUBT, Event.COMMIT): {_ATOMIC: Move(_DOUBT, Says.FENCED)},
    (_DOUBT, Event.COMPLETE): Move(_DONE, Says.KEPT),  # the only one that ever ran it, late
    (_DOUBT, Event.COMPLETE_LATE): Move(_DOUBT, Says.FENCED),
    (_DOUBT, Event.RAISE): _UNSURE,
    (_DOUBT, Event.NO_EFFECT): {_OPAQUE: Move(_ABSENT, Says.KEPT)},  # the same, late
}


def look(
    standing: Standing,
    event: Event,
    handler: HandlerClass,
    table: Table = TABLE,
) -> Move:
    """What `event` does to a key that stands so. KeyError: that can't happen."""
    found = table[standing, event]
    return found if isinstance(found, Move) else found[handler]
