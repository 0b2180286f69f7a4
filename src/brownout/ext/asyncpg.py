"""asyncpg: what became of a transaction whose connection broke.

    connection = await connect(dsn)          # in place of asyncpg's own; create_pool likewise
    await guard.acall(pay, order, classify=classify)

A connection of this class knows at each step whether it is in a transaction, or is handing over its
COMMIT, and says so on the exception; any guard that such an exception passes through knows then whether
the work was done. Of other connections `classify` knows the server's own codes: all else is unknown.

asyncpg itself sends nothing twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import asyncpg.pool  # pyright: ignore[reportMissingTypeStubs]
import asyncpg.transaction  # pyright: ignore[reportMissingTypeStubs]

from brownout import OutcomeClass, Shown
from brownout.ext.sql import Place, Session, answered, interrupted
from brownout.ext.trail import Classifier, lost, same, tell

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Connection", "Pool", "classify", "connect", "create_pool"]

_STEPS = (
    "query",
    "bind_execute",
    "bind_execute_many",
    "bind",
    "execute",
    "copy_in",
    "copy_out",
    "prepare",
)
_QUIET = ("prepare", "bind", "copy_out")
_TEXT_FIRST = ("query",)


class _Watched:
    """The driver's protocol, where all that is sent passes through."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._session = Session()
        for name in _STEPS:
            if hasattr(protocol, name):
                setattr(self, name, self._step(name, getattr(protocol, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    def _step(self, name: str, do: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def step(*args: Any, **kwargs: Any) -> Any:
            text = _text(name, args)
            place = self._place(text)
            try:
                value = await do(*args, **kwargs)
            except BaseException as error:
                tell(error, _shown(error, place))
                raise
            idle = not self._protocol.is_in_transaction()
            self._session.done(place, text, idle=idle)
            return value

        return step

    def _place(self, text: str | None) -> Place:
        if not self._protocol.is_connected():
            return Place.HERE
        inside = text is None or self._protocol.is_in_transaction()
        return self._session.place(text, in_transaction=inside)


def _text(name: str, args: tuple[Any, ...]) -> str | None:
    """The statement's text; None: it changes nothing."""
    if name in _QUIET:
        return None
    if not args:
        return "?"
    return str(args[0] if name in _TEXT_FIRST else getattr(args[0], "query", "?"))


def _shown(error: BaseException, place: Place) -> Shown:
    if place is Place.HERE:
        return interrupted(place)
    code = getattr(error, "sqlstate", None)
    if isinstance(code, str):
        return answered(code, place)
    if isinstance(error, (asyncpg.DataError, asyncpg.InterfaceError)):
        # It found that out while it wrote the statement, or before; but also when a reply makes no sense.
        outright = isinstance(error, asyncpg.DataError) or "operation" in str(error)
        return interrupted(Place.HERE) if outright else interrupted(place)
    return interrupted(place, timed_out=_timed_out(error))


def _timed_out(error: BaseException) -> bool:
    return isinstance(error, TimeoutError) or not isinstance(error, Exception)


def _meaning(error: BaseException) -> Shown | None:
    """What an exception says by itself."""
    if not isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError)):
        return None
    code = getattr(error, "sqlstate", None)
    if isinstance(code, str):
        return answered(code, Place.COMMITTING)
    return lost(OutcomeClass.LOCAL)


classify = Classifier("asyncpg", _meaning)


class Connection(asyncpg.Connection):  # type: ignore[misc]
    """An asyncpg Connection whose exceptions tell whether the work was done."""

    def __init__(self, protocol: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(protocol, *args, **kwargs)
        self._protocol = _Watched(protocol)

    def transaction(self, *args: Any, **kwargs: Any) -> Any:
        """Make a transaction, with the arguments of asyncpg's own."""
        block = super().transaction(*args, **kwargs)
        block.__class__ = _Transaction
        return block


class _Transaction(asyncpg.transaction.Transaction):  # type: ignore[misc]
    """Where a block fails since its connection broke, its end fails too: that tells of the first."""

    __slots__ = ()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        except asyncpg.InterfaceError as second:
            if error is not None:
                same(second, error)
            raise


class Pool(asyncpg.pool.Pool):  # type: ignore[misc]
    """An asyncpg Pool that tells its own exhaustion from the database's silence."""

    __slots__ = ()

    async def _acquire(self, timeout: float | None) -> Any:
        try:
            return await super()._acquire(timeout)  # pyright: ignore[reportUnknownVariableType]
        except BaseException as error:
            if getattr(error.__cause__, "brownout_shown", None) is None:
                tell(error, interrupted(Place.POOL))
            raise


def _connecting(error: BaseException) -> Shown:
    code = getattr(error, "sqlstate", None)
    if isinstance(code, str):
        return answered(code, Place.CONNECTING)
    return interrupted(Place.CONNECTING, timed_out=_timed_out(error))


async def connect(*args: Any, **kwargs: Any) -> Any:
    """Connect, with the arguments of asyncpg's own; gives a Connection of this module."""
    try:
        given = {"connection_class": Connection, **kwargs}
        return await asyncpg.connect(*args, **given)  # pyright: ignore[reportUnknownVariableType]
    except BaseException as error:
        tell(error, _connecting(error))
        raise


def create_pool(*args: Any, **kwargs: Any) -> Pool:
    """Make a pool, with the arguments of asyncpg's own; its connections are of this module."""
    given = {"connection_class": Connection, "connect": connect, **kwargs}
    pool: Any = asyncpg.create_pool(*args, **given)
    pool.__class__ = Pool
    return pool  # type: ignore[no-any-return]
