"""What an error of redis-py means: the server's own words, and what is left of the connection."""

from __future__ import annotations

import redis

from brownout import OutcomeClass, Shown
from brownout.ext.trail import Classifier, certain, lost

__all__ = ["READS", "SCRIPTS", "answered", "broken", "classify", "connecting"]

READS = frozenset(
    "AUTH BITCOUNT CLIENT DBSIZE DISCARD ECHO EXISTS GET GETRANGE HELLO HEXISTS HGET HGETALL HKEYS HLEN HMGET"  # noqa: SIM905
    " HVALS INFO KEYS LINDEX LLEN LRANGE MEMORY MGET OBJECT PING PTTL READONLY ROLE SCAN SCARD SELECT"
    " SISMEMBER SMEMBERS STRLEN TIME TTL TYPE UNWATCH WATCH XLEN XRANGE ZCARD ZCOUNT ZRANGE ZRANK"
    " ZSCORE".split()
)
SCRIPTS = frozenset({"EVAL", "EVALSHA", "FCALL"})
_FULL = ("LOADING", "OOM", "BUSY", "max number of clients")
_UNFIT = ("READONLY", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "MISCONF", "TRYAGAIN")
_POOL = ("Too many connections", "No connection available")


def answered(error: BaseException, *, alone: bool) -> Shown:
    """What an error shows that the server answered with.

    `alone`: it was asked one plain command, so that nothing else was done. A script may have done its first
    half, and beside one command of a pipeline the others are done.
    """
    text = str(error)
    name = type(error).__name__
    if (
        name == "BusyLoadingError"
        or any(word in text for word in _FULL)
        or name == "OutOfMemoryError"
    ):
        shown = certain(OutcomeClass.OVERLOAD)
    elif name in {"ReadOnlyError", "MasterDownError", "ClusterDownError", "TryAgainError"} or (
        text.startswith(_UNFIT)
    ):
        shown = certain(OutcomeClass.FAILURE)
    else:
        shown = Shown.of(OutcomeClass.SUCCESS)
    whole = alone or name in {"BusyLoadingError", "ExecAbortError", "NoScriptError"}
    return shown if whole else lost(shown.class_)


def broken(error: BaseException) -> Shown:
    """What it shows that no answer came to what was sent, or begun to be sent."""
    silent = isinstance(error, (redis.TimeoutError, TimeoutError)) or not isinstance(
        error, Exception
    )
    return lost(OutcomeClass.UNKNOWN if silent else OutcomeClass.FAILURE)


def connecting(error: BaseException) -> Shown:
    """What it shows that there was no connection to send it on."""
    if "max number of clients" in str(error) or isinstance(error, redis.BusyLoadingError):
        return certain(OutcomeClass.OVERLOAD)
    silent = isinstance(error, (redis.TimeoutError, TimeoutError)) or not isinstance(
        error, Exception
    )
    return certain(OutcomeClass.UNKNOWN if silent else OutcomeClass.CONNECT)


def _meaning(error: BaseException) -> Shown | None:
    """What an exception says by itself; of a client that is not watched, the server's own words."""
    if not isinstance(error, redis.RedisError):
        return None
    if isinstance(error, redis.MaxConnectionsError) or str(error).startswith(_POOL):
        return certain(OutcomeClass.LOCAL)
    if isinstance(error, redis.WatchError):  # the transaction was not begun: something had changed
        return Shown.of(OutcomeClass.SUCCESS)
    if isinstance(error, redis.DataError):  # it can't be written as a command
        return certain(OutcomeClass.LOCAL)
    if isinstance(error, (redis.ResponseError, redis.BusyLoadingError)):
        return answered(error, alone=not str(error).startswith("Command #"))
    # The same class tells of a connection that was refused and of an answer that was lost.
    return broken(error)


classify = Classifier("redis", _meaning)
