"""Sources of how old reads are: PostgreSQL, Redis, a heartbeat row, an HTTP `Age` header.

    from brownout.behind import Behind
    from brownout.ext.behind import postgres

    def asks(connection):
        return lambda query: connection.execute(query).fetchone()[0]

    behind = Behind(guard, postgres(asks(replica), asks(primary)))

It imports no driver: it is handed functions that ask, over connections of their own (a source asks on a
thread of its own), with a time-out of their own.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from brownout.behind import Positions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["age_header", "heartbeat", "postgres", "redis"]

LONGEST_HEADER = 10  # digits: RFC 9111 wants at most 2^31

_LSN = (
    "SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
    " ELSE pg_current_wal_lsn() END, '0/0')::bigint"
)
# By the replica's own word. What it received it may have replayed, and lack all the same what it did not
# receive: so a receiver that is gone, or has heard nothing for longer than a primary is ever silent (half of
# wal_sender_timeout, 30 s), counts from its last word on.
_REPLICA_AGE = """
SELECT CASE
  WHEN NOT pg_is_in_recovery() THEN 0
  WHEN NOT EXISTS (SELECT FROM pg_stat_wal_receiver)
    OR pg_last_wal_receive_lsn() IS DISTINCT FROM pg_last_wal_replay_lsn()
  THEN coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0)
  ELSE (SELECT CASE WHEN silent > 40 THEN silent ELSE 0 END FROM (SELECT coalesce(
    extract(epoch FROM clock_timestamp() - max(last_msg_receipt_time)), 0) AS silent
    FROM pg_stat_wal_receiver) AS heard)
END::float8
"""


def postgres(
    replica: Callable[[str], Any], primary: Callable[[str], Any] | None = None
) -> Callable[[], float]:
    """The age of reads from a PostgreSQL replica. Both run a query, and return its one value.

    With the primary by positions in the WAL, against a history of the primary's: also where a view of
    PostgreSQL's says 0 because its receiver stands still. Without it by the replica's own word
    (pg_last_xact_replay_timestamp), which is 0 for the first 40 s of a receiver that hangs.
    """
    if primary is None:
        return lambda: float(replica(_REPLICA_AGE))
    ask = primary
    return Positions(lambda: int(ask(_LSN)), lambda: int(replica(_LSN)))


def redis(
    replica: Callable[[], Mapping[str, Any]], primary: Callable[[], Mapping[str, Any]]
) -> Callable[[], float]:
    """The age of reads from a Redis replica, by offsets of replication against a history of the primary's.

    Both return INFO's section "replication" (`lambda: client.info("replication")`). What a replica says of
    itself (master_last_io_seconds_ago) is how long its link was silent, not how old its data is.
    """
    return Positions(
        lambda: int(primary()["master_repl_offset"]),
        lambda: int(_own_offset(replica())),
    )


def _own_offset(told: Mapping[str, Any]) -> Any:
    return told.get("slave_repl_offset", told["master_repl_offset"])  # the second: it was promoted


def heartbeat(
    read: Callable[[], float], *, write: Callable[[float], object] | None = None
) -> Callable[[], float]:
    """The age of a heartbeat row: `read` returns, from the copy, the wall seconds that are written in it.

    Works for any store. `write(now)` is called each time before, if it is given, and writes them into the
    original; else somebody else does, by a clock that goes as ours does. The age is then at most an interval
    too high: a row that was just written has not arrived.
    """

    def age() -> float:
        if write is not None:
            write(time.time())
        return max(0.0, time.time() - float(read()))

    return age


def age_header(value: str | None) -> float | None:
    """The age in seconds that an HTTP `Age` header tells (RFC 9111, 5.1); None if it makes no sense."""
    text = (value or "").partition(",")[0].strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= LONGEST_HEADER):
        return None
    return float(text)
