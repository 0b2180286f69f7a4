"""What a ledger does when a handler is at an end, or shows that it lives: as `operations` does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from brownout._core.ledger import Claim, HandlerClass, Says, Standing, born, look
from brownout._core.ledger import Event as On
from brownout._core.ledger import Row as RowOf
from brownout.errors import InDoubt, NotEnlisted, StillRunning, Voided
from brownout.ledger.operations import BECAUSE, IN_FLIGHT_SECONDS, ROUNDS, hot

if TYPE_CHECKING:
    from collections.abc import Generator

    from brownout._core.ledger import Reply, Row, Rules, Store


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
    raise hot(claim)


def keep(
    store: Store, rules: Rules, claim: Claim, reply: Reply
) -> Generator[Any, Any, Reply | None]:
    """Add the reply to an atomic handler's row, or tell what another attempt's was (None: lost)."""
    if claim.enlisted is not None and (yield from store.keep_reply(claim, reply)):
        return reply
    seen = yield from store.get(claim.scope, claim.key)
    if seen.row is not None and seen.row.standing is Standing.DONE:
        return seen.row.reply
    if reply.status >= 400:
        return reply  # it was rolled back: nothing happened, and a retry may do better
    if claim.enlisted is None:  # it may have committed something else: never run it again
        doubt = _running(claim)._replace(standing=Standing.DOUBT)
        age = rules.horizon + rules.margin
        yield from store.put(doubt, born(claim.key), lease=0, age=age, lost=True, wait=0.0)
    what = "did not enlist" if claim.enlisted is None else "did not commit the ledger's row"
    raise NotEnlisted(
        f"the atomic handler of key {claim.key} answered {reply.status} and {what}: its effect, if it"
        " had one, is not protected; call ledger.enlist(connection) first in its transaction",
        key=claim.key,
        scope=claim.scope,
    )


def _late(claim: Claim, standing: Standing) -> NoReturn:
    """Whoever comes back after its successor is told so."""
    about: Any = {"key": claim.key, "scope": claim.scope}
    if standing is Standing.RUNNING:
        raise StillRunning(
            f"key {claim.key} was taken over while this attempt was away:"
            " what its successor answers holds",
            **about,
            retry_after=IN_FLIGHT_SECONDS,
        )
    if standing is Standing.VOID:
        raise Voided(f"key {claim.key}: {BECAUSE[standing]}", **about)
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
