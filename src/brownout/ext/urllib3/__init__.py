"""urllib3: what became of a request whose connection broke.

    manager = watch(urllib3.PoolManager(retries=False))    # or a ProxyManager, or one connection pool
    guard.call(manager.request, "PUT", url, classify=classify)

The connections of a watched manager know whether a request was sent, and say so on the exception, to any
guard that it passes through. The classes do not: a PUT that was done ends in `ConnectionRefusedError` where
urllib3 tried again by itself, and by default it does so three times, also for PUT and DELETE. `watch` warns.

Of which backend an attempt is, is told by brownout.ext.requests only: a guard around a manager hands no
attempt to its connections.

An answer that is cut inside its headers, for urllib3 a 200 with an empty body, is an error here.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import urllib3
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.util import Retry

from brownout.ext.reply import SAFE
from brownout.ext.resend import ResendWarning, warn
from brownout.ext.trail import tell
from brownout.ext.urllib3.connection import kind
from brownout.ext.urllib3.meaning import carry, classify

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ResendWarning", "classify", "resends", "watch"]

M = TypeVar("M")


def watch(manager: M) -> M:
    """Watch a manager's or a pool's connections, and give it back. A second time changes nothing.

    Warns (ResendWarning) where PUT, DELETE or another method that is not safe is sent again by default.
    Raises TypeError for anything else. Connections that are open already are not watched: do it first.
    """
    if isinstance(manager, urllib3.PoolManager):
        watch_manager(manager)
        retries = manager.connection_pool_kw.get("retries")
    elif isinstance(manager, HTTPConnectionPool):
        if kind(manager.ConnectionCls) is not manager.ConnectionCls:
            manager.ConnectionCls = kind(manager.ConnectionCls)
            manager.urlopen = _carrying(manager.urlopen)  # type: ignore[method-assign]
        retries = manager.retries
    else:
        raise TypeError(f"watch({manager!r:.80}): give a PoolManager, or one of its pools")
    methods = resends(retries)
    if methods:
        warn(
            manager,
            f"this {type(manager).__name__} of urllib3 sends {methods} again by itself, also what was done"
            " already. For keyed work make it with retries=False; a guard tries again where that does no"
            " harm",
        )
    return manager


def watch_manager(manager: Any) -> None:
    """Let a manager make watched connections from now on."""
    classes = manager.pool_classes_by_scheme
    watched: dict[str, Any] = {
        scheme: type(
            f"Watched{pool.__name__}",
            (pool,),
            {"ConnectionCls": kind(pool.ConnectionCls), "urlopen": _carrying(pool.urlopen)},
        )
        for scheme, pool in classes.items()
    }
    if any(kind(pool.ConnectionCls) is not pool.ConnectionCls for pool in classes.values()):
        manager.pool_classes_by_scheme = watched
        manager.clear()


def _carrying(urlopen: Callable[..., Any]) -> Callable[..., Any]:
    """A pool's way to ask; what it raises hides what its connection raised, sometimes as an argument only."""

    @wraps(urlopen)
    def carrying(*args: Any, **kwargs: Any) -> Any:
        try:
            return urlopen(*args, **kwargs)
        except urllib3.exceptions.HTTPError as error:
            if not carry(error):
                shown = classify(error)
                if shown is not None:
                    tell(error, shown, changes=False)
            raise

    return carrying


def resends(retries: Any) -> str:
    """Which methods that are not safe are sent again after they may have been done; "" for none."""
    retry = Retry.from_int(retries, redirect=False)
    counts = [retry.total if each is None else each for each in (retry.read, retry.other)]
    if not retry.total or not any(counts):
        return ""
    allowed = retry.allowed_methods
    return "any method" if not allowed else ", ".join(sorted(set(allowed) - SAFE))
