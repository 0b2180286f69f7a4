"""What a ledger does with a key: read, look the event up in the table, and put or swap the row.

Each is a generator of what the store's `run` or `arun` carries out, so that both have one text. A swap
that fails had somebody else come first: then it is looked at anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

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
    InDoubt,
    KeyFromTheFuture,
    KeyTooOld,
    OtherPayload,
    StillRunning,
    Voided,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from brownout._core.ledger import Reply, Row, Rules, Seen, Store

ROUNDS = 16  # a row that changes under us so often is somebody's hot loop
IN_FLIGHT_SECONDS = 1.0  # when to ask again about a transaction, whose end nobody knows

_BECAUSE = {
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
    lost = look(Standing.ABSENT, On.REQUEST_LOST, want.handler, rules.table).says is Says.RUN
    new = RowOf(scope, key, Standing.RUNNING, want.fence, want.fingerprint, want.handler)
    for _ in range(ROUNDS):
        if want.handler is HandlerClass.ATOMIC:
            seen = yield from store.get(scope, key)
        else:
            seen = yield from store.put(
                new, at, lease=rules.lease, age=rules.horizon, lost=lost, wait=wait
            )
        if seen.mine:
            return want
        _refuse_the_future(rules, seen, at, want)
        if seen.waited:
            return Found(Standing.RUNNING, None, IN_FLIGHT_SECONDS, _BECAUSE[Standing.RUNNING])
        row = seen.row
        event = requested(rules, seen, at, want.fingerprint)
        handler = want.handler if row is None or row.handler is None else row.handler
        standing = Standing.ABSENT if row is None else row.standing
        move = look(standing, event, handler, rules.table)
        if move.says is Says.RUN and row is not None:
            if (yield from store.swap(row, new, lease=rules.lease, steady=True)):
                return want
        elif move.says is Says.RUN:
            if move.to is Standing.ABSENT:
                return want  # its row comes with its own commit
        elif (yield from _moved(store, seen, move, want, at, rules)):
            return _found(move, seen, want)
    raise StillRunning(
        f"key {key} was changed by others {ROUNDS} times in a row; try again",
        key=key,
        scope=scope,
        retry_after=IN_FLIGHT_SECONDS,
    )


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
    because = _FAILOVER if seen.row is None else _BECAUSE[move.to]
    return Found(move.to, reply, wait, because)


def _refuse_the_future(rules: Rules, seen: Seen, at: int, want: Claim) -> None:
    if seen.row is None and at > seen.now + rules.skew:
        ahead = (at - seen.now) / 1000
        raise KeyFromTheFuture(
            f"key {want.key} is {ahead:.0f} s ahead of the ledger's clock; set the caller's clock right",
            key=want.key,
            scope=want.scope,
        )


def complete(
    store: Store, rules: Rules, claim: Claim, reply: Reply
) -> Generator[Any, Any, Reply | None]:
    """Keep the reply, or tell what the successor's was (None: lost). Raises what `Ledger.complete` does."""
    running = RowOf(claim.scope, claim.key, Standing.RUNNING, claim.fence)
    done = RowOf(
        claim.scope,
        claim.key,
        Standing.DONE,
        claim.fence,
        claim.fingerprint,
        claim.handler,
        0,
        reply,
    )
    if (yield from store.swap(running, done)):
        return reply
    for _ in range(ROUNDS):
        seen = yield from store.get(claim.scope, claim.key)
        row = seen.row
        standing = Standing.ABSENT if row is None else row.standing
        same = row is not None and row.fence == claim.fence
        move = look(standing, On.COMPLETE if same else On.COMPLETE_LATE, claim.handler, rules.table)
        if move.says is Says.KEPT and row is not None:
            if (yield from store.swap(row, done)):
                return reply
            continue
        if move.says is Says.VALUE and row is not None:
            return row.reply
        _late(claim, standing)
    raise _hot(claim)


def _hot(claim: Claim) -> StillRunning:
    return StillRunning(
        f"key {claim.key} was changed by others {ROUNDS} times in a row; try again",
        key=claim.key,
        scope=claim.scope,
        retry_after=IN_FLIGHT_SECONDS,
    )


def _late(claim: Claim, standing: Standing) -> NoReturn:
    """Whoever comes back after its successor is told so."""
    about = {"key": claim.key, "scope": claim.scope}
    if standing is Standing.RUNNING:
        raise StillRunning(
            f"key {claim.key} was taken over while this attempt was away:"
            " what its successor answers holds",
            **about,
            retry_after=IN_FLIGHT_SECONDS,
        )
    if standing is Standing.VOID:
        raise Voided(f"key {claim.key}: {_BECAUSE[standing]}", **about)
    raise InDoubt(
        f"key {claim.key} is {standing.value} now, after this attempt had it:"
        " its row was lost, or settled by somebody else",
        **about,
    )


def renew(store: Store, rules: Rules, claim: Claim) -> Generator[Any, Any, bool]:
    """Make the lease last anew; False: the key is somebody else's, or settled."""
    running = _running(claim)
    return (yield from store.swap(running, running, lease=rules.lease))


def end(store: Store, rules: Rules, claim: Claim, event: On) -> Generator[Any, Any, bool]:
    """The handler is at an end without a reply: it raised, or says that it had no effect."""
    for standing in (Standing.RUNNING, Standing.DOUBT):
        old = _running(claim)._replace(standing=standing)
        found = look(standing, event, claim.handler, rules.table)
        if found.to is Standing.ABSENT:
            swapped = yield from store.swap(old, None)
        elif found.to is standing is Standing.DOUBT:
            return False
        else:  # one that stays RUNNING has its lease over now: whoever asks next runs it
            swapped = yield from store.swap(old, old._replace(standing=found.to), lease=0)
        if swapped:
            return True
        if claim.handler is not HandlerClass.OPAQUE:
            return False
    return False


def _running(claim: Claim) -> Row:
    fingerprint, handler = claim.fingerprint, claim.handler
    return RowOf(claim.scope, claim.key, Standing.RUNNING, claim.fence, fingerprint, handler)


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
            seen = yield from store.put(stone, at, lease=0, age=age, lost=False, wait=wait)
        else:
            seen = yield from store.get(scope, key)
        if seen.mine:
            return Answer(Standing.VOID, None, None, _BECAUSE[Standing.VOID])
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
    raise _hot(want)


def _answer(move: Move, seen: Seen) -> Answer:
    row = seen.row
    if move.says is Says.TOO_OLD:
        because = "the key is past horizon and margin: what became of it was forgotten"
        return Answer(Standing.ABSENT, None, None, because)
    if move.says is Says.NEVER:
        return Answer(Standing.VOID, None, None, _BECAUSE[Standing.VOID])
    if move.to is Standing.RUNNING and row is not None:
        left = (row.lease_until - seen.now) / 1000
        if left <= 0:
            because = "who ran it is gone; the next request with the key goes on with it"
            return Answer(move.to, None, IN_FLIGHT_SECONDS, because)
        return Answer(move.to, None, min(left, IN_FLIGHT_SECONDS), _BECAUSE[move.to])
    because = _FAILOVER if row is None and move.to is Standing.DOUBT else _BECAUSE[move.to]
    return Answer(move.to, row.reply if row else None, None, because)
