"""The ledger's row in the user's own transaction: the effect and its record are one commit.

The row's primary key decides between two attempts: the second waits for the first one's transaction, then
its own fails. On PostgreSQL that transaction can't be committed any more, whatever the handler does with
the exception; on SQLite it has been rolled back.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from brownout._core.ledger import born
from brownout.errors import (
    AlreadyTaken,
    LedgerUnavailable,
    NotEnlisted,
    StillRunning,
)
from brownout.ledger.connections import kind_of
from brownout.ledger.sql import REPLY_TEXT, reply_parameters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from brownout._core.ledger import Claim, Reply
    from brownout.ledger.connections import Kind
    from brownout.ledger.sql import Statements


class Enlisted(NamedTuple):
    """The transaction that a claim's row was put into."""

    open: Callable[[], bool]  # has it not ended yet?
    write: Callable[[str, dict[str, Any]], Any]  # a statement in it; an awaitable if `waits`
    waits: bool = False


def enlist(claim: Claim, connection: Any) -> Awaitable[None] | None:
    """Put the claim's row into the transaction of `connection`, before anything else is written."""
    kind = kind_of(connection)
    texts = _texts(sqlite=kind.sqlite)
    asked: dict[str, Any] = {
        "key": claim.key,
        "scope": claim.scope,
        "fence": claim.fence,
        "fingerprint": claim.fingerprint,
        "born": born(claim.key),
        "lost": int(claim.lossless),
    }
    text = texts.enlist_text
    if kind.sqlite:
        asked["now"] = int(time.time() * 1000)
        text = text.replace("INSERT", "INSERT OR ROLLBACK", 1)
    if kind.waits:
        return _await(claim, kind, text, asked)
    try:
        put = kind.execute(text, asked)
    except Exception as error:
        _explain(claim, error)
    _done(claim, kind, put)
    return None


async def _await(claim: Claim, kind: Kind, text: str, asked: dict[str, Any]) -> None:
    try:
        put = await kind.execute(text, asked)
    except Exception as error:
        _explain(claim, error)
    _done(claim, kind, put)


def _done(claim: Claim, kind: Kind, put: list[Any]) -> None:
    if not put:
        raise AlreadyTaken(
            f"key {claim.key} may not start any more: while its handler waited it was collected, or the"
            " ledger failed over; let this transaction be rolled back, and ask",
            key=claim.key,
            scope=claim.scope,
        )
    claim.enlisted = Enlisted(kind.open, kind.execute, kind.waits)


def _explain(claim: Claim, error: Exception) -> NoReturn:
    """Raise what the failure means; what is not about the ledger is the user's own."""
    about: Any = {"key": claim.key, "scope": claim.scope}
    cause = getattr(error, "orig", None) or error
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    name = getattr(cause, "sqlite_errorname", "") or ""
    if state == "23505" or name in {"SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE"}:
        raise AlreadyTaken(
            f"another attempt with key {claim.key} was first; let this transaction be rolled back,"
            " the ledger has the other's outcome",
            **about,
        ) from error
    if state == "55P03":
        raise StillRunning(
            f"another attempt with key {claim.key} has not ended yet; ask again", **about
        ) from error
    if name.startswith("SQLITE_BUSY"):
        raise LedgerUnavailable(
            "another writer has held the SQLite file for too long; nothing was written", **about
        ) from error
    raise error


def _texts(*, sqlite: bool) -> Statements:
    if sqlite:
        from brownout.ledger.sqlite import STATEMENTS

        return STATEMENTS
    from brownout.ledger.postgres import STATEMENTS as SERVER

    return SERVER


def finish(claim: Claim, kept: Reply, reply: Reply) -> Reply:
    """Put the reply into the row while its transaction is open. Raises NotEnlisted if that has failed."""
    transaction: Enlisted = claim.enlisted
    if not transaction.waits:  # from here nobody can wait for that one: the reply is not kept
        try:
            transaction.write(REPLY_TEXT, reply_parameters(claim, kept))
        except Exception as error:
            _failed(claim, reply, error)
    return reply


async def afinish(claim: Claim, kept: Reply, reply: Reply) -> Reply:
    """As `finish`, for asyncio."""
    transaction: Enlisted = claim.enlisted
    try:
        written = transaction.write(REPLY_TEXT, reply_parameters(claim, kept))
        if transaction.waits:
            await written
    except Exception as error:
        _failed(claim, reply, error)
    return reply


def _failed(claim: Claim, reply: Reply, error: Exception) -> None:
    """A statement in a transaction that has failed fails too; anything else costs no more than the reply."""
    cause = getattr(error, "orig", None) or error
    if getattr(cause, "sqlstate", None) == "25P02" and reply.status < 400:
        raise NotEnlisted(
            f"the transaction of key {claim.key} has failed, and its handler answered {reply.status};"
            " let exceptions leave the handler",
            key=claim.key,
            scope=claim.scope,
        ) from error
