"""The ledger's row in the user's own transaction: the effect and its record are one commit.

The row's primary key decides between two attempts: the second waits for the first one's transaction, then
its own fails. On PostgreSQL that transaction can't be committed any more, whatever the handler does with
the exception; on SQLite it has been rolled back.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from brownout._core.ledger import born
from brownout.errors import (
    AlreadyTaken,
    ConfigurationError,
    KeyTooOld,
    LedgerUnavailable,
    NotEnlisted,
    StillRunning,
)
from brownout.ledger.sql import REPLY_TEXT, reply_parameters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from brownout._core.ledger import Claim, Reply
    from brownout.ledger.sql import Statements

_NAMED = re.compile(r"(?<!:):(\w+)")


def percent(text: str) -> str:
    """The statement as psycopg wants it: %(name)s."""
    return _NAMED.sub(r"%(\1)s", text)


class Enlisted(NamedTuple):
    """The transaction that a claim's row was put into."""

    open: Callable[[], bool]  # has it not ended yet?
    write: Callable[[str, dict[str, Any]], Any]  # a statement in it; an awaitable if `waits`
    waits: bool = False


class Kind(NamedTuple):
    """How to speak to a connection: what `execute` gives, and whether its transaction is still open."""

    execute: Callable[[str, dict[str, Any]], Any]
    open: Callable[[], bool]
    sqlite: bool
    waits: bool


def enlist(claim: Claim, connection: Any) -> Awaitable[None] | None:
    """Put the claim's row into the transaction of `connection`, before anything else is written."""
    kind = _kind(connection)
    texts = _texts(sqlite=kind.sqlite)
    asked: dict[str, Any] = {
        "key": claim.key,
        "scope": claim.scope,
        "fence": claim.fence,
        "fingerprint": claim.fingerprint,
        "born": born(claim.key),
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
        raise KeyTooOld(
            f"key {claim.key} has been collected while its handler waited; roll back",
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


# ------------------------------------------------------------------------------- kinds of connections


def _kind(connection: Any) -> Kind:
    modules = {cls.__module__.partition(".")[0] for cls in type(connection).__mro__}
    if "sqlite3" in modules:
        return _of_sqlite(connection)
    if "psycopg" in modules and hasattr(connection, "pgconn"):
        return _of_psycopg(connection)
    if "sqlalchemy" in modules and hasattr(connection, "execute"):
        return _of_sqlalchemy(connection)
    raise ConfigurationError(
        f"a {type(connection).__module__}.{type(connection).__qualname__} can't be enlisted;"
        " give a connection of sqlite3 or psycopg 3, or a session or connection of SQLAlchemy,"
        " inside of its transaction"
    )


def _of_sqlite(connection: Any) -> Kind:
    def execute(text: str, parameters: dict[str, Any]) -> list[Any]:
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")
        found: list[Any] = connection.execute(text, parameters).fetchall()
        return found

    return Kind(execute, lambda: bool(connection.in_transaction), sqlite=True, waits=False)


def _of_psycopg(connection: Any) -> Kind:
    import psycopg
    from psycopg.rows import tuple_row

    idle = psycopg.pq.TransactionStatus.IDLE
    waits = isinstance(connection, psycopg.AsyncConnection)
    if connection.autocommit and connection.info.transaction_status == idle:
        raise ConfigurationError(
            "this connection commits each statement by itself; enlist inside of"
            " `with connection.transaction():`"
        )
    ended = {idle, psycopg.pq.TransactionStatus.UNKNOWN}

    def is_open() -> bool:
        return not connection.closed and connection.info.transaction_status not in ended

    if waits:

        async def aexecute(text: str, parameters: dict[str, Any]) -> list[Any]:
            cursor = connection.cursor(row_factory=tuple_row)
            await cursor.execute(percent(text), parameters)
            found: list[Any] = await cursor.fetchall()
            return found

        return Kind(aexecute, is_open, sqlite=False, waits=True)

    def execute(text: str, parameters: dict[str, Any]) -> list[Any]:
        cursor = connection.cursor(row_factory=tuple_row)
        cursor.execute(percent(text), parameters)
        found: list[Any] = cursor.fetchall()
        return found

    return Kind(execute, is_open, sqlite=False, waits=False)


def _of_sqlalchemy(connection: Any) -> Kind:
    from sqlalchemy import BigInteger, LargeBinary, Text, bindparam
    from sqlalchemy import text as plain
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

    waits = isinstance(connection, AsyncConnection | AsyncSession | async_scoped_session)
    inner: Any = getattr(connection, "sync_session", None) or getattr(
        connection, "sync_connection", connection
    )
    types = {int: BigInteger, bytes: LargeBinary, str: Text}

    def sql(text: str, parameters: dict[str, Any]) -> Any:
        """Some drivers take a whole number for a short one, unless they are told."""
        kinds: list[Any] = [
            bindparam(name, type_=types[type(value)]) for name, value in parameters.items()
        ]
        return plain(text).bindparams(*kinds)

    bind: Any = inner.get_bind() if hasattr(inner, "get_bind") else inner
    transaction: list[Any] = []

    def is_open() -> bool:
        with suppress(Exception):
            now: Any = inner.get_transaction()
            return now is not None and bool(transaction) and now is transaction[0]
        return False

    if waits:

        async def aexecute(text: str, parameters: dict[str, Any]) -> list[Any]:
            found = (await connection.execute(sql(text, parameters), parameters)).all()
            transaction[:] = [inner.get_transaction()]
            return list(found)

        return Kind(aexecute, is_open, bind.dialect.name == "sqlite", waits=True)

    def execute(text: str, parameters: dict[str, Any]) -> list[Any]:
        found = connection.execute(sql(text, parameters), parameters).all()
        transaction[:] = [inner.get_transaction()]
        return list(found)

    return Kind(execute, is_open, bind.dialect.name == "sqlite", waits=False)
