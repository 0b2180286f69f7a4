"""How a slot of each library's pool is taken and given back, by methods that its manual tells of.

The pool is handed in; no library is imported. What it is is seen by the methods that it has.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from brownout.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["TAKE_SECONDS", "Slots", "slots_of"]

TAKE_SECONDS = 3.0
KNOWN = (
    "sqlalchemy.Engine (or its QueuePool), psycopg_pool.ConnectionPool and AsyncConnectionPool, "
    "asyncpg.Pool, httpx.Client and AsyncClient"
)


class Slots(NamedTuple):
    """A pool, as faults use it. `take` waits until it is given one; both from any thread but the loop's."""

    of: str
    take: Callable[[], Any]
    give: Callable[[Any], object]
    closed: Callable[[], bool]
    loop: asyncio.AbstractEventLoop | None = None  # where the pool is used
    end: Callable[[], None] = lambda: None  # of what it takes to hold a slot


def slots_of(pool: Any) -> Slots:
    """The slots of a pool. Raises ConfigurationError for what is none that is known."""
    if _has(pool, "raw_connection", "pool", "dispose") and not _has(pool, "sync_engine"):
        return _sqlalchemy(pool.raw_connection, pool.pool)
    if _has(pool, "connect", "checkedout", "dispose"):
        return _sqlalchemy(pool.connect, pool)
    if _has(pool, "getconn", "putconn", "get_stats"):
        return _psycopg(pool)
    if _has(pool, "acquire", "release", "get_idle_size", "is_closing"):
        return _on_loop(
            "asyncpg",
            take=lambda: pool.acquire(timeout=TAKE_SECONDS),
            give=pool.release,
            closed=pool.is_closing,
        )
    if _has(pool, "build_request", "send", "is_closed"):
        return _httpx(pool)
    raise ConfigurationError(f"{type(pool).__name__}: no pool that is known; those are {KNOWN}")


def _has(pool: object, *names: str) -> bool:
    return all(hasattr(pool, name) for name in names)


def _sqlalchemy(take: Callable[[], Any], pool: Any) -> Slots:
    if not _has(pool, "checkedout"):
        raise ConfigurationError(
            f"{type(pool).__name__} has no limit, so it can't be used up: give the engine a QueuePool"
        )
    return Slots("SQLAlchemy", take, _close, lambda: False)


def _close(one: Any) -> None:
    one.close()


def _psycopg(pool: Any) -> Slots:
    if inspect.iscoroutinefunction(pool.getconn):
        return _on_loop(
            "psycopg_pool",
            take=lambda: pool.getconn(timeout=TAKE_SECONDS),
            give=pool.putconn,
            closed=lambda: bool(pool.closed),
        )
    return Slots(
        "psycopg_pool",
        lambda: pool.getconn(timeout=TAKE_SECONDS),
        pool.putconn,
        lambda: bool(pool.closed),
    )


def _httpx(client: Any) -> Slots:
    """A slot is a request in flight: one whose answer has begun and does not go on."""
    answers = _Answers()

    def request() -> Any:
        return client.build_request("GET", answers.url)

    if not inspect.iscoroutinefunction(client.send):
        return Slots(
            "httpx",
            lambda: client.send(request(), stream=True),
            _close,
            lambda: bool(client.is_closed),
            end=answers.close,
        )
    try:
        return _on_loop(
            "httpx",
            take=lambda: client.send(request(), stream=True),
            give=lambda answer: answer.aclose(),
            closed=lambda: bool(client.is_closed),
            end=answers.close,
        )
    except BaseException:
        answers.close()
        raise


def _on_loop(
    of: str,
    *,
    take: Callable[[], Awaitable[Any]],
    give: Callable[[Any], Awaitable[object]],
    closed: Callable[[], bool],
    end: Callable[[], None] = lambda: None,
) -> Slots:
    """A pool of asyncio: what is done to it is done on its loop."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            f"a pool of {of} for asyncio: make the fault on the loop that uses it, by `async with`"
        ) from None

    def there(do: Callable[[], Awaitable[Any]]) -> Any:
        async def done() -> Any:
            return await do()

        if loop.is_closed():
            return None
        future = asyncio.run_coroutine_threadsafe(done(), loop)
        try:
            return future.result(2 * TAKE_SECONDS)
        except TimeoutError:
            future.cancel()
            raise

    def given(one: Any) -> Any:
        return there(lambda: give(one))

    return Slots(
        of,
        lambda: there(take),
        given,
        lambda: loop.is_closed() or closed(),
        loop,
        end,
    )


class _Answers:
    """A server of this machine that begins an answer to every request, and never goes on with it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, name="brownout pool", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}/held"

    def _run(self) -> None:
        while True:
            try:
                one = self._listener.accept()[0]
            except OSError:  # closed
                return
            self._open.append(one)
            with suppress(OSError):
                one.settimeout(TAKE_SECONDS)
                head = b""
                while b"\r\n\r\n" not in head and len(head) < 65_536 and (data := one.recv(4096)):
                    head += data
                one.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n")

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which ends the accept
        self._thread.join(2 * TAKE_SECONDS)
        self._listener.close()
        while self._open:
            self._open.pop().close()
