"""One exchange of a psycopg connection with its server, and where that is.

All that is sent passes through the connection's `wait`, as a generator of the driver's own; which one it is,
and with which text, tells what is being asked.
"""

from __future__ import annotations

from typing import Any, cast

import psycopg
from psycopg import sql

from brownout.ext.psycopg.meaning import shown
from brownout.ext.sql import Place, Session
from brownout.ext.trail import tell

_IDLE = psycopg.pq.TransactionStatus.IDLE
_ACTIVE = psycopg.pq.TransactionStatus.ACTIVE
_OK = psycopg.pq.ConnStatus.OK
_QUIET = ("_rollback_gen", "_enter_gen", "_describe_gen", "_close_gen", "_set_autocommit_gen",
          "_set_isolation_level_gen", "_set_read_only_gen", "_set_deferrable_gen")  # fmt: skip


class Step:
    """One exchange with the server, as the driver's generator has it."""

    def __init__(self, connection: Any, generator: Any) -> None:
        self._session: Session = _session(connection)
        self._pgconn = pgconn = connection.pgconn
        self._text, quiet, commit = _read(generator, connection)
        status = pgconn.transaction_status
        if pgconn.status != _OK:
            self.place = Place.HERE  # it was gone before
        elif commit or pgconn.pipeline_status:
            # In a pipeline it is the server that is ahead: nobody knows which statement it has come to.
            self.place = Place.COMMITTING
        else:
            alone = connection.autocommit and status in {_IDLE, _ACTIVE} and not quiet
            self.place = self._session.place(self._text, in_transaction=not alone)

    def done(self) -> None:
        """It was answered well."""
        idle = self._pgconn.transaction_status == _IDLE
        self._session.done(self.place, self._text, idle=idle)

    def failed(self, error: BaseException) -> None:
        """It was not."""
        tell(error, shown(error, self.place, self._text))


def _session(connection: Any) -> Session:
    kept: Any = vars(connection)  # pyright: ignore[reportUnknownVariableType]
    return cast("Session", kept.setdefault("_brownout", Session()))


def _read(generator: Any, connection: Any) -> tuple[str | None, bool, bool]:
    """The statement's text (None: there is none), whether it is harmless, and whether it commits."""
    code, frame = getattr(generator, "gi_code", None), getattr(generator, "gi_frame", None)
    if code is None or frame is None:
        return "?", False, True  # not as we know it: rather unknown than wrong
    given: dict[str, Any] = frame.f_locals
    name = code.co_name
    if name in {"_execute_gen", "_stream_send_gen"}:
        return _text(given.get("query"), connection), False, False
    if name == "_exit_gen":  # of a transaction's block
        transaction = given.get("self")
        commit = given.get("exc_val") is None and getattr(transaction, "_outer_transaction", True)
        return None, True, bool(commit)
    if name in {"_commit_gen", "_tpc_prepare_gen", "_tpc_finish_gen"}:
        return None, False, True
    if name in _QUIET or name.startswith(("_fetch", "_scroll")):
        return None, True, False
    return "?", False, False  # executemany, copy, and what is new


def _text(query: Any, connection: Any) -> str:
    if isinstance(query, bytes):
        return query.decode("utf-8", "replace")
    if isinstance(query, sql.Composable):
        return query.as_string(connection)
    return query if isinstance(query, str) else str(query)
