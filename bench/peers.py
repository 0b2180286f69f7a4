"""Other libraries' stacks, the nearest to a full guard that each can be put together to.

A peer is imported by name, so that the bench runs without it. One that is missing, or doesn't work here, is
said to be not measured, and why.
"""

from __future__ import annotations

import asyncio
import threading
from functools import wraps
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[Any], Any]

SECONDS = 5.0
AT_ONCE = 100
FAILED = ConnectionError


class Peer(NamedTuple):
    """A stack: the packages it is made of, and what makes it. A full guard has more by what it `lacks`."""

    name: str
    packages: tuple[str, ...]
    make: Make
    lacks: str = ""


class Missing(NamedTuple):
    """A peer that was not measured."""

    name: str
    reason: str


async def _aplain(x: int) -> int:
    return x


def _plain(x: int) -> int:
    return x


def made(peer: Peer, fn: Any, loop: asyncio.Runner) -> Any:
    """A function as the peer guards it. Some need a running loop to be made on."""

    async def make() -> Any:
        return peer.make(fn)

    return loop.run(make())


def working(peer: Peer, loop: asyncio.Runner, *, is_async: bool) -> str:
    """Why a peer can't be measured here; "" if it can."""
    for package in peer.packages:
        try:
            version(package)
        except PackageNotFoundError:
            return f"{package} is not installed"
    try:
        call = made(peer, _aplain if is_async else _plain, loop)
        answer = loop.run(asyncio.wait_for(call(1), SECONDS)) if is_async else call(1)
    except Exception as error:
        return f"it does not work here: {type(error).__name__}: {error}"
    return "" if answer == 1 else f"it does not work here: 1 became {answer!r}"


# ------------------------------------------------------------ what the standard library adds to them


def _timed(fn: Any) -> Any:
    @wraps(fn)
    async def call(*args: Any) -> Any:
        async with asyncio.timeout(SECONDS):
            return await fn(*args)

    return call


def _limited(fn: Any) -> Any:
    permits = asyncio.Semaphore(AT_ONCE)

    @wraps(fn)
    async def call(*args: Any) -> Any:
        async with permits:
            return await fn(*args)

    return call


def _limited_threads(fn: Any) -> Any:
    permits = threading.BoundedSemaphore(AT_ONCE)

    @wraps(fn)
    def call(*args: Any) -> Any:
        with permits:
            return fn(*args)

    return call


# ------------------------------------------------------------------------------------ the stacks


def _tenacity(fn: Any) -> Any:
    lib = import_module("tenacity")
    again = lib.retry(
        stop=lib.stop_after_attempt(3),
        wait=lib.wait_exponential_jitter(multiplier=0.05, max=2),
        retry=lib.retry_if_exception_type(FAILED),
        reraise=True,
    )
    return again(fn)


def _stamina(fn: Any) -> Any:
    return import_module("stamina").retry(on=FAILED, attempts=3)(fn)


def _backoff(fn: Any) -> Any:
    lib = import_module("backoff")
    return lib.on_exception(lib.expo, FAILED, max_tries=3)(fn)


def _circuit(fn: Any) -> Any:
    lib = import_module("circuitbreaker")
    breaker = lib.CircuitBreaker(
        failure_threshold=5, recovery_timeout=30, expected_exception=FAILED
    )
    return breaker(fn)


def _pybreaker(fn: Any) -> Any:
    return import_module("pybreaker").CircuitBreaker(fail_max=5, reset_timeout=30)(fn)


def _hyx(fn: Any) -> Any:
    timed = import_module("hyx.timeout").timeout(SECONDS)(fn)
    limited = import_module("hyx.bulkhead").bulkhead(AT_ONCE, 2 * AT_ONCE)(timed)
    breaker = import_module("hyx.circuitbreaker").consecutive_breaker(FAILED, 5, 30)
    return import_module("hyx.retry").retry(on=FAILED, attempts=3)(breaker(limited))


def _pyresilience(*, timed: bool) -> Make:
    def make(fn: Any) -> Any:
        lib = import_module("pyresilience")
        return lib.resilient(
            retry=lib.RetryConfig(max_attempts=3, retry_on=(FAILED,)),
            timeout=lib.TimeoutConfig(seconds=SECONDS) if timed else None,
            circuit_breaker=lib.CircuitBreakerConfig(failure_threshold=5),
            bulkhead=lib.BulkheadConfig(max_concurrent=AT_ONCE),
        )(fn)

    return make


def _nopanic(*, timed: bool) -> Make:
    def make(fn: Any) -> Any:
        lib = import_module("nopanic")
        policies = [lib.retry(attempts=3, on=FAILED), lib.circuit_breaker(), lib.bulkhead(AT_ONCE)]
        if timed:
            policies.append(lib.timeout(SECONDS))
        return lib.compose(*policies)(fn)

    return make


def _interlock(*, timed: bool) -> Make:
    def make(fn: Any) -> Any:
        lib = import_module("interlock")
        stack = lib.Pipeline.builder().retry(attempts=3)
        stack = stack.circuit_breaker(lib.CircuitBreaker(name="bench")).bulkhead(AT_ONCE)
        return (stack.timeout(SECONDS) if timed else stack).build()(fn)

    return make


ASYNC = [
    Peer(
        "backoff + circuitbreaker + asyncio",
        ("backoff", "circuitbreaker"),
        lambda fn: _backoff(_circuit(_limited(_timed(fn)))),
    ),
    Peer("nopanic", ("nopanic",), _nopanic(timed=True)),
    Peer("pyresilience", ("pyresilience",), _pyresilience(timed=True)),
    Peer("hyx", ("hyx",), _hyx),
    Peer(
        "stamina + circuitbreaker + asyncio",
        ("stamina", "circuitbreaker"),
        lambda fn: _stamina(_circuit(_limited(_timed(fn)))),
    ),
    Peer(
        "tenacity + circuitbreaker + asyncio",
        ("tenacity", "circuitbreaker"),
        lambda fn: _tenacity(_circuit(_limited(_timed(fn)))),
    ),
    Peer("interlock-cb", ("interlock-cb", "tenacity"), _interlock(timed=True)),
]
# Their time-outs of a sync call need a thread a call, or a pool: measured apart.
_UNTIMED = "no time-out"
SYNC = [
    Peer("pyresilience", ("pyresilience",), _pyresilience(timed=False), _UNTIMED),
    Peer("nopanic", ("nopanic",), _nopanic(timed=False), _UNTIMED),
    Peer(
        "backoff + circuitbreaker + semaphore",
        ("backoff", "circuitbreaker"),
        lambda fn: _backoff(_circuit(_limited_threads(fn))),
        _UNTIMED,
    ),
    Peer(
        "stamina + circuitbreaker + semaphore",
        ("stamina", "circuitbreaker"),
        lambda fn: _stamina(_circuit(_limited_threads(fn))),
        _UNTIMED,
    ),
    Peer(
        "tenacity + pybreaker + semaphore",
        ("tenacity", "pybreaker"),
        lambda fn: _tenacity(_pybreaker(_limited_threads(fn))),
        _UNTIMED,
    ),
    Peer("interlock-cb", ("interlock-cb", "tenacity"), _interlock(timed=False), _UNTIMED),
    Peer("pyresilience, by a thread", ("pyresilience",), _pyresilience(timed=True)),
    Peer("nopanic, by a thread", ("nopanic",), _nopanic(timed=True)),
    Peer("interlock-cb, by a thread", ("interlock-cb", "tenacity"), _interlock(timed=True)),
]
ONE_COLOUR = [
    Missing("hyx, sync", "it is async only"),
    Missing("pybreaker, async", "it is sync only, but for Tornado"),
]


def found(
    loop: asyncio.Runner,
) -> tuple[list[tuple[Peer, bool]], list[Missing], dict[str, str]]:
    """The peers that work here (and whether async), those that don't, and the packages' versions."""
    works: list[tuple[Peer, bool]] = []
    missing: list[Missing] = []
    versions: dict[str, str] = {}
    for is_async, peers in ((True, ASYNC), (False, SYNC)):
        for peer in peers:
            reason = working(peer, loop, is_async=is_async)
            if reason:
                missing.append(Missing(f"{peer.name}, {'async' if is_async else 'sync'}", reason))
                continue
            works.append((peer, is_async))
            versions.update((package, version(package)) for package in peer.packages)
    return works, [*missing, *ONE_COLOUR], dict(sorted(versions.items()))
