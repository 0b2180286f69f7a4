"""The ledger in SQL: one text for SQLite and PostgreSQL, whoever carries it out.

An operation yields `(statement, parameters)` and gets the rows. Parameters are written :name. The key
comes first in the primary key: new rows are put at its end, and old ones are collected as one range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from brownout._core.ledger import (
    SKEW_SECONDS,
    Claim,
    HandlerClass,
    Reply,
    Row,
    Seen,
    Standing,
    key_before,
)
from brownout.ledger.reply import packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

SCHEMA = 1
SKEW = int(SKEW_SECONDS * 1000)

STANDINGS = {Standing.RUNNING: 1, Standing.DONE: 2, Standing.VOID: 3, Standing.DOUBT: 4}
HANDLERS = {None: 0, HandlerClass.ATOMIC: 1, HandlerClass.RESUMABLE: 2, HandlerClass.OPAQUE: 3}
_STANDING = {number: standing for standing, number in STANDINGS.items()}
_HANDLER = {number: handler for handler, number in HANDLERS.items()}

_COLUMNS = "standing, fence, handler, fingerprint, lease_until, made, status, reply"

REPLY_TEXT = """UPDATE brownout_ledger SET status = :status, reply = :reply
WHERE key = :key AND scope = :scope AND standing = 2 AND fence = :fence RETURNING 1"""
ABOUT = "SELECT version FROM brownout_ledger_about"


def tables(*, blob: str, whole: str, tail: str) -> list[str]:
    """What version 1 is made by. `blob` and `whole` are the database's types, `tail` ends the table."""
    return [
        f"""CREATE TABLE brownout_ledger (
  key text NOT NULL, scope text NOT NULL, standing smallint NOT NULL, fence {whole} NOT NULL,
  handler smallint NOT NULL, fingerprint {blob} NOT NULL, lease_until {whole} NOT NULL,
  made {whole} NOT NULL, status integer, reply {blob}, PRIMARY KEY (key, scope)){tail}""",
        "CREATE INDEX brownout_ledger_doubts ON brownout_ledger (key) WHERE standing = 4",
        f"""CREATE TABLE brownout_ledger_about (
  id integer PRIMARY KEY CHECK (id = 1), version integer NOT NULL, collected {whole} NOT NULL,
  epoch text NOT NULL, since {whole} NOT NULL)""",
        "INSERT INTO brownout_ledger_about VALUES (1, 1, 0, '', 0)",
    ]


class Statements:
    """The operations of a store, for a database with the clock `now`, in milliseconds.

    `epoch` is an expression that changes when a failover may have forgotten something.
    """

    def __init__(self, now: str, epoch: str = "''") -> None:
        self.keep = 0
        clock = f"(SELECT {now} AS now, collected, since, epoch FROM brownout_ledger_about)"
        self.put_text = f"""INSERT INTO brownout_ledger
  (key, scope, standing, fence, handler, fingerprint, lease_until, made)
SELECT :key, :scope, :standing, :fence, :handler, :fingerprint,
  CASE WHEN :lease > 0 THEN a.now + :lease ELSE 0 END, a.now FROM {clock} a
WHERE :born >= a.now - :age AND :born <= a.now + {SKEW} AND :born > a.collected
  AND (:lost = 1 OR :born >= a.since)
ON CONFLICT DO NOTHING RETURNING lease_until"""
        columns = ", ".join(f"l.{name}" for name in _COLUMNS.split(", "))
        self.get_text = f"""SELECT a.now, a.collected, a.since, {columns}
FROM {clock} a LEFT JOIN brownout_ledger l ON l.key = :key AND l.scope = :scope"""
        swap = f"""UPDATE brownout_ledger SET standing = :standing, fence = :fence, handler = :handler,
  fingerprint = :fingerprint, lease_until = {now} + :lease, status = :status, reply = :reply
WHERE key = :key AND scope = :scope AND standing = :was AND fence = :had"""
        self.swap_texts = f"{swap} RETURNING 1", f"{swap} AND lease_until = :until RETURNING 1"
        self.delete_text = """DELETE FROM brownout_ledger
WHERE key = :key AND scope = :scope AND standing = :was AND fence = :had RETURNING 1"""
        self.enlist_text = f"""INSERT INTO brownout_ledger
  (key, scope, standing, fence, handler, fingerprint, lease_until, made)
SELECT :key, :scope, 2, :fence, 1, :fingerprint, 0, a.now FROM {clock} a
WHERE :born > a.collected AND (:lost = 1 OR (:born >= a.since AND a.epoch = {epoch})) RETURNING 1"""
        self.until_text = f"""UPDATE brownout_ledger_about SET collected =
  CASE WHEN {now} - :horizon - 1 > collected THEN {now} - :horizon - 1 ELSE collected END
RETURNING collected"""
        self.collect_text = """DELETE FROM brownout_ledger WHERE (key, scope) IN (
  SELECT key, scope FROM brownout_ledger WHERE key < :before AND standing IN (2, 3)
  ORDER BY key LIMIT :most) RETURNING 1"""
        self.epoch_text = f"""UPDATE brownout_ledger_about
SET since = CASE WHEN epoch = '' THEN since ELSE {now} END, epoch = :epoch WHERE epoch <> :epoch"""
        bare = _COLUMNS.replace(", status, reply", "")
        listed = f"SELECT scope, key, {bare} FROM brownout_ledger"
        self.list_text = f"{listed} ORDER BY key LIMIT :most"
        self.list_standing_text = f"{listed} WHERE standing = :standing ORDER BY key LIMIT :most"
        self.list_doubts_text = f"{listed} WHERE standing = 4 ORDER BY key LIMIT :most"

    def get(self, scope: str, key: str) -> Generator[Any, Any, Seen]:
        """Read a row, and the store's clock."""
        found = yield self.get_text, {"key": key, "scope": scope}
        now, collected, since, *columns = found[0]
        return Seen(_row(scope, key, columns), now, collected, since)

    def put(
        self, row: Row, born: int, *, lease: int, age: int, lost: bool, wait: float
    ) -> Generator[Any, Any, Seen]:
        """Put a row where there is none."""
        put = yield (
            self.put_text,
            {
                **_written(row),
                "lease": lease,
                "born": born,
                "age": age,
                "lost": int(lost),
                "wait": wait,
            },
        )
        if put:
            until = put[0][0]
            return Seen(row._replace(lease_until=until), until - lease, mine=True)
        seen = yield from self.get(row.scope, row.key)
        # with this very fence: it was put, and the answer lost, before it was tried again
        return seen._replace(mine=seen.row is not None and seen.row.fence == row.fence)

    def swap(
        self, old: Row, new: Row | None, *, lease: int = 0, steady: bool = False
    ) -> Generator[Any, Any, bool]:
        """Put a row in the place of another."""
        which = {
            "key": old.key,
            "scope": old.scope,
            "was": STANDINGS[old.standing],
            "had": old.fence,
        }
        if new is None:
            return bool((yield self.delete_text, which))
        status, reply = _kept(new.reply)
        asked = {**_written(new), **which, "lease": lease, "status": status, "reply": reply}
        if steady:
            asked["until"] = old.lease_until
        return bool((yield self.swap_texts[steady], asked))

    def keep_reply(self, claim: Claim, reply: Reply) -> Generator[Any, Any, bool]:
        """Add the reply to the row that was committed with the handler's transaction; False: no such row."""
        return bool((yield REPLY_TEXT, reply_parameters(claim, reply)))

    def collect(self, horizon: int, most: int) -> Generator[Any, Any, int]:
        """Delete what is done or void, of keys older than `horizon`; such keys are refused from then on."""
        until = (yield self.until_text, {"horizon": horizon})[0][0]
        gone = yield self.collect_text, {"before": key_before(until + 1), "most": most}
        return len(gone)

    def list(self, standing: Standing | None, most: int) -> Generator[Any, Any, Sequence[Row]]:
        """Rows that stand so, the oldest first."""
        if standing is None:
            found = yield self.list_text, {"most": most}
        elif standing is Standing.DOUBT:
            found = yield self.list_doubts_text, {"most": most}  # by its own index
        else:
            number = STANDINGS.get(standing, 0)
            found = yield self.list_standing_text, {"standing": number, "most": most}
        return [
            row for scope, key, *rest in found if (row := _row(scope, key, [*rest, None, None]))
        ]


def _written(row: Row) -> dict[str, Any]:
    return {
        "key": row.key,
        "scope": row.scope,
        "standing": STANDINGS[row.standing],
        "fence": row.fence,
        "handler": HANDLERS[row.handler],
        "fingerprint": row.fingerprint,
    }


def reply_parameters(claim: Claim, reply: Reply) -> dict[str, Any]:
    """What REPLY_TEXT needs."""
    which = {"key": claim.key, "scope": claim.scope, "fence": claim.fence}
    return {**which, "status": reply.status, "reply": packed(reply)}


def _kept(reply: Reply | None) -> tuple[int | None, bytes | None]:
    return (None, None) if reply is None else (reply.status, packed(reply))


def _row(scope: str, key: str, columns: Sequence[Any]) -> Row | None:
    standing, fence, handler, fingerprint, lease_until, made, status, reply = columns
    if standing is None:
        return None
    said = None if reply is None else unpacked(status, bytes(reply))
    what, how = _STANDING[standing], _HANDLER[handler]
    return Row(scope, key, what, fence, bytes(fingerprint), how, lease_until, said, made)
