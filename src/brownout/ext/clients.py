"""Which clients are installed, and which of them send again by themselves what may have been done.

It is asked of the installed libraries, not of a list: a default changes from one version to the next.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CLIENTS", "Client", "installed"]

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class Client(NamedTuple):
    """A client that is installed: what its default set-up sends again ("" for nothing), and what to do."""

    name: str
    version: str
    resends: str
    advice: str


def installed() -> list[Client]:
    """Those that are installed, by name. It imports only what has a default to be asked for."""
    found: list[Client] = []
    for name, (ask, advice) in CLIENTS.items():
        try:
            number = version(name)
        except PackageNotFoundError:
            continue
        try:
            resends = ask() if ask is not None else ""
        except Exception as error:  # another version, or one that does not import
            resends = f"nobody knows what: {str(error) or type(error).__name__}"
        found.append(Client(name, number, resends, advice if resends else ""))
    return found


def _redis() -> str:
    times = 0
    for module in ("redis", "redis.asyncio"):
        retry: Any = inspect.signature(import_module(module).Redis).parameters["retry"].default
        times = max(times, getattr(retry, "_retries", 0))
    return f"every command, up to {times} times more" if times else ""


def _urllib3() -> str:
    retry: Any = import_module("urllib3.util").Retry
    methods = ", ".join(sorted(set(retry.DEFAULT_ALLOWED_METHODS) - _SAFE))
    times = retry.DEFAULT.total
    return f"{methods}, up to {times} times more" if times and methods else ""


def _aiohttp() -> str:
    client = import_module("aiohttp.client")
    methods = ", ".join(sorted(set(client.IDEMPOTENT_METHODS) - _SAFE))
    return f"{methods}, once more, when a kept connection breaks" if methods else ""


def _grpc() -> str:
    return "what a retryPolicy in the channel's service config names; without one nothing"


CLIENTS: dict[str, tuple[Callable[[], str] | None, str]] = {
    "aiohttp": (_aiohttp, "ClientSession(**brownout.ext.aiohttp.guarded(guard, resend=False))"),
    "asyncpg": (None, ""),
    "grpcio": (
        _grpc,
        "brownout.ext.grpc.guarded(target, guard=...), and no retryPolicy for keyed calls",
    ),
    "httpx": (None, ""),
    "httpx2": (None, ""),
    "psycopg": (None, ""),
    "redis": (_redis, "retry=Retry(NoBackoff(), 0), and brownout.ext.redis.watch(client)"),
    "requests": (None, ""),
    "sqlalchemy": (None, ""),
    "urllib3": (_urllib3, "PoolManager(retries=False), and brownout.ext.urllib3.watch(manager)"),
}
