"""Ends that the ledger itself does not know: an atomic handler's without a row, and an answer's late end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from brownout._core.ledger import Reply, Row, Seen, Standing, born
from brownout.errors import InDoubt, StillRunning, Voided

if TYPE_CHECKING:
    from collections.abc import Generator

    from brownout._core.ledger import Claim
    from brownout.ledger.front import Ledger

__all__ = ["amend", "decline", "unrecorded"]

WAIT_SECONDS = 5.0  # for a transaction that holds the key
AGAIN_SECONDS = 1.0


async def decline(ledger: Ledger, claim: Claim, reply: Reply) -> Reply:
    """Keep an atomic handler's no, whose transaction was rolled back; tell what holds for the key.

    A caller takes a no for certain: without a row a late duplicate of its call could yet succeed. So the
    key is voided first, which is true whatever follows; then the tombstone takes the answer in.
    Raises StillRunning, Voided and InDoubt if somebody else was first, and what a ledger raises.
    """
    seen = await ledger.store.arun(_put(ledger, claim, Standing.VOID))
    about = {"key": claim.key, "scope": claim.scope}
    if seen.mine and seen.row is not None and seen.row.standing is Standing.DONE:
        return reply  # it was committed: its row has the answer
    if seen.mine:
        done = _row(claim, Standing.DONE)._replace(reply=reply.kept(ledger.most_kept_bytes))
        await ledger.store.arun(ledger.store.swap(_row(claim, Standing.VOID), done))
        return reply
    if seen.waited or seen.row is None or seen.row.standing is Standing.RUNNING:
        raise StillRunning(
            f"key {claim.key}: another attempt is at it", **about, retry_after=AGAIN_SECONDS
        )
    if seen.row.standing is Standing.VOID:
        raise Voided(f"key {claim.key}: it never happened and never will", **about)
    if seen.row.standing is Standing.DOUBT:
        raise InDoubt(f"key {claim.key}: nobody knows whether it happened", **about)
    return seen.row.reply or Reply(200, (), b"", whole=False)


async def amend(ledger: Ledger, claim: Claim, reply: Reply) -> None:
    """Keep the end of an answer that was too long to be kept when its work was recorded as done."""
    old = _row(claim, Standing.DONE)
    await ledger.store.arun(ledger.store.swap(old, old._replace(reply=reply)))


async def unrecorded(ledger: Ledger, claim: Claim) -> None:
    """An atomic handler may have committed without the row: it is in doubt, and is not run again."""
    await ledger.store.arun(_put(ledger, claim, Standing.DOUBT))


def _row(claim: Claim, standing: Standing) -> Row:
    return Row(claim.scope, claim.key, standing, claim.fence, claim.fingerprint, claim.handler)


def _put(ledger: Ledger, claim: Claim, standing: Standing) -> Generator[Any, Any, Seen]:
    age = int((ledger.horizon_seconds + ledger.margin_seconds) * 1000)
    row, at = _row(claim, standing), born(claim.key)
    return (yield from ledger.store.put(row, at, lease=0, age=age, lost=True, wait=WAIT_SECONDS))
