"""SQLAlchemy 2: what became of a transaction whose connection broke, with any driver.

    engine = watch(create_engine(url))      # an AsyncEngine likewise; once an engine
    guard.call(pay, order, classify=classify)

The engine's own events tell where each connection is: in a transaction, handing over its COMMIT, or
outside of a transaction. So the exception says whether the work was done, to any guard that it passes
through. What is lost in a transaction is certain with PostgreSQL and SQLite; elsewhere a statement may
commit by itself (DDL of MySQL and Oracle), and stays unknown.

SQLAlchemy sends no statement twice.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import sqlalchemy
from sqlalchemy import event

from brownout.ext.sql import Place, Session
from brownout.ext.sqlalchemy.meaning import classify, shown
from brownout.ext.trail import lost, mark, tell, trail

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import ExceptionContext

__all__ = ["classify", "watch"]

E = TypeVar("E")
_ROLLS_BACK = ("postgresql", "sqlite")  # all of a transaction, DDL too


class _Session(Session):
    """One connection of the pool; it is told of a COMMIT before it is made, and never after."""

    __slots__ = ("before", "place_now")

    def __init__(self) -> None:
        super().__init__()
        self.place_now = Place.HERE
        self.before: float | None = None  # the trail's mark before a COMMIT that is under way


def watch(engine: E) -> E:
    """Watch an Engine or AsyncEngine, and give it back. A second time changes nothing.

    Raises TypeError for anything else.
    """
    inner: Any = getattr(engine, "sync_engine", engine)
    if not isinstance(inner, sqlalchemy.Engine):
        raise TypeError(f"watch({engine!r:.80}): give an Engine or an AsyncEngine")
    listeners: dict[str, Callable[..., Any]] = {
        "before_cursor_execute": _begin_statement,
        "after_cursor_execute": _end_statement,
        "commit": _commit,
        "rollback": _rollback,
        "prepare_twophase": _two_phases,
        "commit_twophase": _two_phases,
        "handle_error": _failed,
    }
    for name, listener in listeners.items():
        if not event.contains(inner, name, listener):
            event.listen(inner, name, listener)
    connect = inner.dialect.connect
    if not hasattr(connect, "brownout"):
        inner.dialect.connect = _connecting(connect)  # type: ignore[method-assign]
    return engine


def _connecting(connect: Callable[..., Any]) -> Callable[..., Any]:
    """The driver's way to connect; its own exceptions, a TimeoutError say, are told to no listener."""

    @wraps(connect)
    def connected(*args: Any, **kwargs: Any) -> Any:
        try:
            return connect(*args, **kwargs)
        except BaseException as error:
            tell(error, shown(error, Place.CONNECTING))
            raise

    connected.brownout = True  # type: ignore[attr-defined]
    return connected


# Not in the connection's own `info`: to ask a broken one for that fails.
_sessions: WeakKeyDictionary[Any, _Session] = WeakKeyDictionary()


def _session(connection: Any) -> _Session:
    try:
        return _sessions[connection]
    except KeyError:
        return _sessions.setdefault(connection, _Session())


def _autocommit(connection: Any) -> bool:
    """Whether each statement is its own transaction; True where nobody can say."""
    raw = connection.connection.dbapi_connection
    try:
        return bool(connection.dialect.detect_autocommit_setting(raw))
    except Exception:
        found = getattr(raw, "autocommit", None)
        return found if isinstance(found, bool) else True


def _begin_statement(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
    session = _session(connection)
    session.before = None
    alone = _autocommit(connection)
    if alone and connection.dialect.name == "sqlite" and not connection.connection.isolation_level:
        alone = not connection.connection.in_transaction
    session.place_now = session.place(statement, in_transaction=not alone)


def _end_statement(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
    session = _session(connection)
    session.done(session.place_now, statement, idle=False)


def _commit(connection: Any) -> None:
    session = _session(connection)
    session.place_now = Place.COMMITTING
    session.before = trail().at
    if session.changed:
        mark()  # taken back if it fails for certain
    session.changed = False


def _rollback(connection: Any) -> None:
    session = _session(connection)
    session.changed, session.before = False, None
    session.place_now = Place.IN_TRANSACTION


def _two_phases(connection: Any, *_: Any) -> None:
    _commit(connection)


def _failed(context: ExceptionContext) -> None:
    connection, original = context.connection, context.original_exception
    if connection is None or connection.invalidated:
        found = shown(original, Place.CONNECTING)
    else:
        session = _session(connection)
        found = shown(original, session.place_now)
        if session.place_now is Place.IN_TRANSACTION and context.dialect.name not in _ROLLS_BACK:
            found = lost(found.class_) if context.is_disconnect else found
        if session.before is not None and found.certainty is not lost().certainty:
            trail().at = session.before
        session.before = None
    tell(original, found)
    if context.sqlalchemy_exception is not None:
        tell(context.sqlalchemy_exception, found)
