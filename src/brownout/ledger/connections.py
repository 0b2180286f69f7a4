"""The connections that a ledger's row can be put through: whose they are, and how to speak to them.

No library is imported that has not made the connection.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from brownout.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

_NAMED = re.compile(r"(?<!:):(\w+)")


def percent(text: str) -> str:
    """The statement as psycopg wants it: %(name)s."""
    return _NAMED.sub(r"%(\1)s", text)


class Kind(NamedTuple):
    """How to speak to a connection: what `execute` gives, and whether its transaction is still open."""

    execute: Callable[[str, dict[str, Any]], Any]
    open: Callable[[], bool]
    sqlite: bool
    waits: bool


def kind_of(connection: Any) -> Kind:
    """Whose connection it is. Raises ConfigurationError for one that can't take a row in."""
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

    def is_open() -> bool:
        with suppress(Exception):  # it was closed, or is another thread's
            return bool(connection.in_transaction)
        return False

    return Kind(execute, is_open, sqlite=True, waits=False)


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

    waits = any("asyncio" in cls.__module__ for cls in type(connection).__mro__)
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
