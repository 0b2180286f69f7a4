"""psycopg 3: what became of a transaction whose connection broke.

    with Connection.connect(dsn) as connection: ...            # in place of psycopg.Connection
    pool = ConnectionPool(dsn, connection_class=Connection)    # AsyncConnection likewise
    guard.call(pay, order, classify=classify)

A connection of these classes knows at each step whether it is in a transaction, or is handing over its
COMMIT, and says so on the exception; any guard that such an exception passes through knows then whether
the work was done. Of other connections `classify` knows the server's own codes, and of what has none only
that no connection was made: all else is unknown.

psycopg itself sends nothing twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from brownout.ext.psycopg.meaning import classify, shown
from brownout.ext.psycopg.step import Step
from brownout.ext.sql import Place
from brownout.ext.trail import tell

if TYPE_CHECKING:
    from typing import Self

__all__ = ["AsyncConnection", "Connection", "classify"]


class Connection(psycopg.Connection[Any]):
    """A psycopg Connection whose exceptions tell whether the work was done."""

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> Self:
        """Connect, with the arguments of psycopg's own."""
        try:
            return super().connect(*args, **kwargs)
        except BaseException as error:
            tell(error, shown(error, Place.CONNECTING))
            raise

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Carry out one exchange with the server."""
        step = Step(self, gen)
        try:
            value = super().wait(gen, *args, **kwargs)
        except BaseException as error:
            step.failed(error)
            raise
        step.done()
        return value


class AsyncConnection(psycopg.AsyncConnection[Any]):
    """A psycopg AsyncConnection whose exceptions tell whether the work was done."""

    @classmethod
    async def connect(cls, *args: Any, **kwargs: Any) -> Self:
        """Connect, with the arguments of psycopg's own."""
        try:
            return await super().connect(*args, **kwargs)
        except BaseException as error:
            tell(error, shown(error, Place.CONNECTING))
            raise

    async def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Carry out one exchange with the server."""
        step = Step(self, gen)
        try:
            value = await super().wait(gen, *args, **kwargs)
        except BaseException as error:
            step.failed(error)
            raise
        step.done()
        return value
