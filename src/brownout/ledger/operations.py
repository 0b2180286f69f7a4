"""What a ledger does for who comes with a key: look the event up in the table, put or swap the row.

Each is a generator of what the store's `run` or `arun` carries out, so that both have one text. A swap
that fails had somebody else come first: then it is looked at anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from brownout._core.ledger import (
    Answer,
    Claim,
    Found,
    HandlerClass,
    Move,
    Says,
    Standing,
    asked,
    born,
    look,
    requested,
)
from brownout._core.ledger import Event as On
from brownout._core.ledger import Row as RowOf
from brownout.errors import (
    KeyFromTheFuture,
    KeyTooOld,
    OtherPayload,
    StillRunning,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from brownout._core.ledger import Rules, Seen, Store

ROUNDS = 16  # a row that changes under us so often is somebody's hot loop
IN_FLIGHT_SECONDS = 1.0  # when to ask again about a transaction, whose end nobody knows

BECAUSE = {
    Standing.ABSENT: "no such key; a request with it may still be on its way",
    Standing.RUNNING: "it is running",
    Standing.DONE: "it is done",
    Standing.VOID: "it never happened and never will",
    Standing.DOUBT: "it was begun, and nobody knows whether it happened",
}
_FAILOVER = "the ledger failed over since then, and may have forgotten it"


def claim(
    store: Store, rules: Rules, want: Claim, *, wait: float
) -> Generator[Any, Any, Claim | Found]:
    """Get the permission to run, or what became of the key. Raises what `Ledger.claim` does."""
    scope, key, at = want.scope, want.key, born(want.key)
    new = RowOf(scope, key, Standing.RUNNING, want.fence, want.fingerprint, want.handler)
    for _ in range(ROUNDS):
        if want.handler is HandlerClass.ATOMIC:
            seen = yield from store.get(scope, key)
        else:
            seen = yield from store.put(
                new, at, lease=rules.lease, age=rules.horizon, lost=rules.lossless, wait=wait
            )
        if seen.mine:
            return want
        _refuse_the_future(rules, seen, at, want)
        if seen.waited:
            return Found(Standing.RUNNING, None, IN_FLIGHT_SECONDS, BECAUSE[Standing.RUNNING])
        row = seen.row
        event = requested(rules, seen, at, want.fingerprint)
        handler = want.handler if row is None or row.handler is None else row.handler
        standing = Standing.ABSENT if row is None else row.standing
        move = look(standing, event, handler, rules.table)
        if row is not None and row.fence == want.fence and standing is Standing.RUNNING:
            return want  # it was taken over, and the answer was lost, before it was tried again
        if move.says is Says.RUN and row is not None:
            if (yield from store.swap(row, new, lease=rules.lease, steady=True)):
                return want
        elif move.says is Says.RUN:
            if move.to is Standing.ABSENT:
                return want  # its row comes with its own commit
        elif (yield from _moved(store, seen, move, want, at, rules)):
            return _found(move, seen, want)
    raise hot(want)


def _moved(
    store: Store, seen: Seen, move: Move, want: Claim, at: int, rules: Rules
) -> Generator[Any, Any, bool]:
    """Write down where the key stands now, if that has changed; False: somebody came between."""
    row = seen.row
    if row is None:
        if move.to is Standing.ABSENT:
            return True
        left = RowOf(want.scope, want.key, move.to, want.fence)
        age = rules.horizon + rules.margin
        put = yield from store.put(left, at, lease=0, age=age, lost=True, wait=0.0)
        return put.mine
    if move.to is row.standing:
        return True
    return (yield from store.swap(row, row._replace(standing=move.to), steady=True))


def _found(move: Move, seen: Seen, want: Claim) -> Found:
    """What a request gets that may not run. Raises what it was refused for."""
    key, scope = want.key, want.scope
    if move.says is Says.TOO_OLD:
        raise KeyTooOld(
            f"key {key} is past the ledger's horizon, and may have been used and forgotten;"
            " ask what became of it, and use a new key for new work",
            key=key,
            scope=scope,
        )
    if move.says is Says.OTHER_PAYLOAD:
        raise OtherPayload(
            f"key {key} was used before with another payload; a new piece of work needs a new key",
            key=key,
            scope=scope,
        )
    reply = seen.row.reply if seen.row else None
    left = seen.row.lease_until - seen.now if seen.row else 0
    wait = max(left / 1000, 0.0) if move.to is Standing.RUNNING else None
    because = _FAILOVER if seen.row is None else BECAUSE[move.to]
    return Found(move.to, reply, wait, because)


def _refuse_the_future(rules: Rules, seen: Seen, at: int, want: Claim) -> None:
    if seen.row is None and at > seen.now + rules.skew:
        ahead = (at - seen.now) / 1000
        raise KeyFromTheFuture(
            f"key {want.key} is {ahead:.0f} s ahead of the ledger's clock; set the caller's clock right",
            key=want.key,
            scope=want.scope,
        )


def hot(claim: Claim) -> StillRunning:
    """What to raise when others came between each time."""
    return StillRunning(
        f"key {claim.key} was changed by others {ROUNDS} times in a row; try again",
        key=claim.key,
        scope=claim.scope,
        retry_after=IN_FLIGHT_SECONDS,
    )


def ask(
    store: Store, rules: Rules, want: Claim, *, void: bool, wait: float
) -> Generator[Any, Any, Answer]:
    """Tell where a key stands; with `void` see to it that what has not begun never does."""
    scope, key, at = want.scope, want.key, born(want.key)
    stone = RowOf(scope, key, Standing.VOID, want.fence)
    keeps = look(Standing.ABSENT, On.VOID, want.handler, rules.table).to is Standing.VOID
    for _ in range(ROUNDS):
        if void and keeps:
            age = rules.horizon + rules.margin
            seen = yield from store.put(stone, at, lease=0, age=age, lost=rules.lossless, wait=wait)
        else:
            seen = yield from store.get(scope, key)
        if seen.mine:
            return Answer(Standing.VOID, None, None, BECAUSE[Standing.VOID])
        if seen.waited:
            because = "a transaction that holds the key has not ended"
            return Answer(Standing.RUNNING, None, IN_FLIGHT_SECONDS, because)
        if void:
            _refuse_the_future(rules, seen, at, want)
        row = seen.row
        event = asked(rules, seen, at, void=void)
        handler = want.handler if row is None or row.handler is None else row.handler
        standing = Standing.ABSENT if row is None else row.standing
        move = look(standing, event, handler, rules.table)
        if (yield from _moved(store, seen, move, want, at, rules)):
            return _answer(move, seen)
    raise hot(want)


def _answer(move: Move, seen: Seen) -> Answer:
    row = seen.row
    if move.says is Says.TOO_OLD:
        because = "the key is past horizon and margin: what became of it was forgotten"
        return Answer(Standing.ABSENT, None, None, because)
    if move.says is Says.NEVER:
        return Answer(Standing.VOID, None, None, BECAUSE[Standing.VOID])
    if move.to is Standing.RUNNING and row is not None:
        left = (row.lease_until - seen.now) / 1000
        if left <= 0:
            because = "who ran it is gone; the next request with the key goes on with it"
            return Answer(move.to, None, IN_FLIGHT_SECONDS, because)
        return Answer(move.to, None, min(left, IN_FLIGHT_SECONDS), BECAUSE[move.to])
    because = _FAILOVER if row is None and move.to is Standing.DOUBT else BECAUSE[move.to]
    return Answer(move.to, row.reply if row else None, None, because)
