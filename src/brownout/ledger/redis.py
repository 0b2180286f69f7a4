"""A ledger in Redis: processes everywhere share it, and what it promises is weaker.

A failover, or a restart without a log that is synced at each write, may forget rows: the server's run id
tells that it happened, and keys from before are in doubt then, where that matters. No row is ever part
of somebody's transaction, so nothing atomic is run by it. The server's clock is the only one. Rows end by
their TTL, which is refreshed and never shortened; those that run or are in doubt have none.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any, TypeVar

from brownout._core.ledger import Row, Seen, Standing, drive
from brownout.errors import ConfigurationError, LedgerError, LedgerUnavailable, WrongSchema
from brownout.ledger.lua import CREATE, GET, PUT, SWAP
from brownout.ledger.reply import packed, unpacked
from brownout.ledger.sql import HANDLERS, SCHEMA, STANDINGS

try:
    import redis
    from redis.exceptions import NoScriptError
except ImportError as missing:
    raise ConfigurationError("a ledger in Redis needs redis-py: pip install redis") from missing

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from concurrent.futures import ThreadPoolExecutor

    from brownout._core.ledger import Claim, Reply

T = TypeVar("T")

WAIT_SECONDS = 5.0
MOST_THREADS = 8  # for asyncio's callers
PREFIX = (
    "brownout:{ledger}:"  # one slot, so that a script may see a row and what is known of the server
)
ABOUT = f"{PREFIX}about"
_STANDING = {str(number).encode(): standing for standing, number in STANDINGS.items()}
_HANDLER = {str(number).encode(): handler for handler, number in HANDLERS.items()}


class RedisStore:
    """Rows in the Redis that `url` names, each a hash.

    `now`, for tests, is a clock in place of the server's, in seconds since 1970.
    """

    atomic = False

    def __init__(self, url: str, *, now: Callable[[], float] | None = None) -> None:
        self.keep = 0
        self._now = now
        self._pool: ThreadPoolExecutor | None = None
        self._pid = os.getpid()
        try:
            self._client: Any = redis.Redis.from_url(
                url,
                socket_timeout=WAIT_SECONDS,
                socket_connect_timeout=WAIT_SECONDS,
                retry=None,  # what it re-sends by itself nobody knows of; we do it, knowingly
                retry_on_error=[],
                decode_responses=False,
            )
        except ValueError as error:
            raise ConfigurationError(f"this is no URL of a Redis: {error}") from error

    # ---------------------------------------------------------------------------------- operations

    def get(self, scope: str, key: str) -> Generator[Any, Any, Seen]:
        """Read a row."""
        return _seen(scope, key, (yield GET, _name(scope, key), []))

    def put(
        self, row: Row, born: int, *, lease: int, age: int, lost: bool, wait: float
    ) -> Generator[Any, Any, Seen]:
        """Put a row where there is none."""
        asked = [*_written(row), born, lease, age, int(lost), self.keep]
        return _seen(row.scope, row.key, (yield PUT, _name(row.scope, row.key), asked))

    def swap(
        self, old: Row, new: Row | None, *, lease: int = 0, steady: bool = False
    ) -> Generator[Any, Any, bool]:
        """Put a row in the place of another."""
        until = old.lease_until if steady else ""
        asked: list[Any] = [STANDINGS[old.standing], old.fence, until]
        if new is None:
            asked.append(0)
        else:
            status = "" if new.reply is None else new.reply.status
            data = b"" if new.reply is None else packed(new.reply)
            asked += [*_written(new), lease, status, data, self.keep]
        return bool((yield SWAP, _name(old.scope, old.key), asked))

    def keep_reply(self, claim: Claim, reply: Reply) -> Generator[Any, Any, bool]:
        """No transaction brings rows here."""
        yield from ()
        return False

    def collect(self, horizon: int, most: int) -> Generator[Any, Any, int]:
        """Nothing is to be done: rows end by themselves, when their TTL does."""
        yield from ()
        return 0

    def list(self, standing: Standing | None, most: int) -> Generator[Any, Any, Sequence[Row]]:
        """Rows that stand so, the oldest first. It looks at every row there is."""
        found: list[Row] = []
        cursor: Any = 0
        while True:
            cursor, names = yield "SCAN", cursor, []
            for name in names:
                if name == ABOUT.encode():
                    continue
                key, _, scope = name[len(PREFIX) :].decode().partition(":")
                columns = yield "HMGET", name, ["s", "f", "h", "p", "l", "m"]
                seen = _seen(scope, key, [0, 0, 0, *columns, None, None])
                if seen.row is not None and standing in {None, seen.row.standing}:
                    found.append(seen.row)
            if not int(cursor):
                break
        found.sort(key=lambda row: row.key)
        return found[:most]

    # ------------------------------------------------------------------------------- carrying out

    def run(self, op: Generator[Any, Any, T]) -> T:
        """Carry an operation out."""
        return drive(op, self._twice)

    def _twice(self, what: Any) -> Any:
        """A connection that has broken is replaced once; an operation knows its own row by its fence."""
        try:
            return self._answer(what)
        except LedgerError:
            raise
        except redis.ConnectionError:
            pass
        except (redis.RedisError, OSError) as error:
            raise _unavailable(error) from error
        try:
            return self._answer(what)
        except (redis.RedisError, OSError) as error:
            raise _unavailable(error) from error

    def _answer(self, what: Any) -> Any:
        command, name, asked = what
        if command == "SCAN":
            return self._client.scan(name, match=f"{PREFIX}*", count=1000)
        if command == "HMGET":
            return self._client.hmget(name, asked)
        now = "" if self._now is None else int(self._now() * 1000)
        arguments = (2, name, ABOUT, now, *asked)
        try:
            return self._client.evalsha(_digest(command), *arguments)
        except NoScriptError:
            return self._client.eval(command, *arguments)

    async def arun(self, op: Generator[Any, Any, T]) -> T:
        """The same, in one of a few threads."""
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        if self._pool is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._pool = ThreadPoolExecutor(MOST_THREADS, "brownout-ledger")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.run, op)

    def create(self) -> None:
        """Note which server this is. Raises WrongSchema, and ConfigurationError if it evicts rows."""
        version = drive(_once((CREATE, ABOUT, [])), self._twice)[0]
        _check(version)
        try:
            policy = self._client.config_get("maxmemory-policy").get("maxmemory-policy")
        except redis.RedisError:
            return  # it may not be asked
        if policy not in {None, "noeviction"}:
            raise ConfigurationError(
                f"this Redis evicts keys when its memory is full (maxmemory-policy {policy}), the ledger's"
                " too: what was done would be done again; set noeviction, or take another Redis"
            )

    def close(self) -> None:
        """Let go of connections and threads."""
        self._client.close()
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)


def _once(what: Any) -> Generator[Any, Any, Any]:
    return (yield what)


_digests: dict[str, str] = {}


def _digest(script: str) -> str:
    found = _digests.get(script)
    if found is None:
        found = _digests[script] = hashlib.sha1(script.encode()).hexdigest()  # noqa: S324 - as Redis names it
    return found


def _name(scope: str, key: str) -> str:
    return f"{PREFIX}{key}:{scope}"


def _written(row: Row) -> list[Any]:
    return [STANDINGS[row.standing], row.fence, HANDLERS[row.handler], row.fingerprint]


def _check(version: Any) -> None:
    if int(version) != SCHEMA:
        raise WrongSchema(
            f"the ledger in Redis has schema {int(version)}, this brownout works with {SCHEMA};"
            " upgrade brownout here"
        )


def _seen(scope: str, key: str, told: Any) -> Seen:
    mine, now, since, standing, *rest = told
    if standing is None:
        _check(rest[0])
        return Seen(None, now, 0, since)
    fence, handler, fingerprint, until, made, status, data = rest
    reply = unpacked(int(status), data) if data else None
    row = Row(
        scope, key, _STANDING[standing], int(fence), fingerprint, _HANDLER[handler],
        int(until), reply, int(made),
    )  # fmt: skip
    return Seen(row, now, 0, since, bool(mine))


def _unavailable(error: BaseException) -> LedgerUnavailable:
    said = str(error).partition("\n")[0] or type(error).__name__
    return LedgerUnavailable(
        f"the ledger in Redis can't be used: {said}; see that the server runs, can be reached, and may be"
        " written"
    )
