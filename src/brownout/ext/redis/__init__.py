"""redis-py, sync and asyncio: what became of a command whose connection broke.

    client = watch(redis.Redis(retry=Retry(NoBackoff(), 0)))    # or redis.asyncio's; once a client
    guard.call(client.incr, "orders", classify=classify)

The connections of a watched client know whether a command was sent, and say so on the exception, to any guard
that it passes through. redis-py's own `ConnectionError` is the same for a refused connection and for a lost
answer.

By default redis-py sends a command up to ten times by itself: an INCR whose answer is lost counts twice, and
its caller sees a success. `watch` warns of that; the verdict of a watched client takes in all its tries.
"""

# The base of a watched connection is known when one is made.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import redis
import redis.asyncio

from brownout import OutcomeClass
from brownout.ext.redis.connection import Watched, WatchedAsync
from brownout.ext.redis.meaning import classify
from brownout.ext.resend import ResendWarning, warn
from brownout.ext.trail import certain, tell

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ResendWarning", "classify", "watch"]

C = TypeVar("C")
_KEPT = ("_available_connections", "_in_use_connections", "_connections")


def watch(client: C) -> C:
    """Watch a Redis client's connections, and give it back. A second time changes nothing.

    Warns (ResendWarning) of a client that sends again by itself. Raises TypeError for what is no
    `redis.Redis` or `redis.asyncio.Redis`; a cluster's client moves commands from node to node by itself.
    """
    given: Any = client
    asynchronous = isinstance(client, redis.asyncio.Redis)
    if not (asynchronous or isinstance(client, redis.Redis)):
        raise TypeError(f"watch({client!r:.80}): give a redis.Redis or a redis.asyncio.Redis")
    pool: Any = given.connection_pool
    kind = _kind(pool.connection_class, asynchronous=asynchronous)
    if pool.connection_class is not kind:
        pool.connection_class = kind
        pool.get_connection = _getting(pool.get_connection, asynchronous=asynchronous)
        known = [one for name in _KEPT for one in getattr(pool, name, ()) if one is not None]
        for connection in [*known, given.connection]:
            if connection is not None:
                own: Any = type(connection)
                connection.__class__ = _kind(own, asynchronous=asynchronous)
    times = _retries(given.get_retry())
    if times:
        name = "redis.asyncio" if asynchronous else "redis"
        warn(
            given,
            f"this client of {name} sends a command up to {times} times more by itself: what was done already"
            " is done again. For keyed work make it with retry=Retry(NoBackoff(), 0); a guard tries again"
            " where that does no harm",
        )
    return client


def _retries(retry: Any) -> int | str:
    if retry is None:
        return 0
    times = getattr(retry, "_retries", 0)
    return "any number of" if times < 0 else int(times)


@cache
def _kind(base: Any, *, asynchronous: bool) -> Any:  # a class of redis-py's, made one of ours
    hooks = WatchedAsync if asynchronous else Watched
    return base if issubclass(base, hooks) else type(f"Watched{base.__name__}", (hooks, base), {})


def _getting(get: Callable[..., Any], *, asynchronous: bool) -> Callable[..., Any]:
    """How a pool hands out a connection: what goes wrong there, if nothing else is known, is our own."""
    own = certain(OutcomeClass.LOCAL)

    async def get_async(*args: Any, **kwargs: Any) -> Any:
        try:
            return await get(*args, **kwargs)
        except BaseException as error:
            tell(error, own)
            raise

    def get_sync(*args: Any, **kwargs: Any) -> Any:
        try:
            return get(*args, **kwargs)
        except BaseException as error:
            tell(error, own)
            raise

    return get_async if asynchronous else get_sync
