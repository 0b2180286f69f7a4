"""A guarded client of httpx or httpx2, sync or async, that looks sync: so that a test is written once."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import httpx
import httpx2

from brownout import Guard, Retry
from brownout.ext.httpx import Transport
from tests import seen
from tests.seen import LIMIT_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KINDS = [(httpx, False), (httpx, True), (httpx2, False), (httpx2, True)]


class Client:
    """A guarded client that looks sync, whatever it is."""

    def __init__(
        self,
        lib: Any,
        is_async: bool,
        guard: Guard,
        *,
        told: Any = None,
        per_host: bool = False,
        **how: Any,
    ) -> None:
        self.lib, self.is_async = lib, is_async
        how.setdefault("verify", False)  # CA files take long to read
        inner = (lib.AsyncHTTPTransport if is_async else lib.HTTPTransport)(**how)
        options = {} if told is None else {"deadline_headers": told}
        self.transport = Transport(inner, guard=guard, per_host=per_host, **options)
        make = lib.AsyncClient if is_async else lib.Client
        self.client, self.plain = make(transport=self.transport), make(transport=inner)
        self.runner = asyncio.Runner() if is_async else None
        self.run(self.client.__aenter__() if is_async else self.client.__enter__())

    def run(self, answer: Any) -> Any:
        if self.runner is None:
            return answer
        return self.runner.run(answer, context=copy_context())  # with this thread's deadline

    def request(self, method: str, url: str, **how: Any) -> Any:
        return self.run(self.client.request(method, url, **how))

    def get(self, url: str, **how: Any) -> Any:
        return self.request("GET", url, **how)

    def together(
        self, urls: list[str], meanwhile: Callable[[], object], first: str = "", **how: Any
    ) -> list[Any]:
        """GET all at once, and do something when all are under way; answers or exceptions.

        `first` is got before them, by nobody's guard, and takes a connection of the same pool.
        """
        if self.runner is not None:
            ends: list[Any] = self.run(self._gather(urls, meanwhile, first, how))
            return ends
        with ThreadPoolExecutor(len(urls) + 1) as pool:
            if first:
                pool.submit(self.plain.get, first, timeout=LIMIT_SECONDS)
                until(lambda: self.transport._inner._pool.connections)
            futures = [pool.submit(self.client.get, url, **how) for url in urls]
            meanwhile()
            return [future.exception() or future.result() for future in futures]

    async def _gather(self, urls: list[str], meanwhile: Any, first: str, how: Any) -> list[Any]:
        before = (
            asyncio.create_task(self.plain.get(first, timeout=LIMIT_SECONDS)) if first else None
        )
        await asyncio.sleep(0)
        tasks = [asyncio.create_task(self.client.get(url, **how)) for url in urls]
        await asyncio.to_thread(meanwhile)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        if before is not None:
            await before
        return ends

    def body(self, *parts: bytes) -> Any:
        """A body that can be read only once."""
        if not self.is_async:
            return iter(parts)

        async def read() -> Any:
            for part in parts:
                yield part

        return read()

    def close(self) -> None:
        none = (None, None, None)
        self.run(self.client.__aexit__(*none) if self.is_async else self.client.__exit__(*none))
        if self.runner is not None:
            self.runner.close()


@contextmanager
def client_of(kind: Any, guard: Guard, **how: Any) -> Iterator[Client]:
    lib, is_async = kind
    client = Client(lib, is_async, guard, **how)
    try:
        yield client
    finally:
        client.close()


def classes(guard: Guard) -> dict[str, int]:
    """What all attempts of a guard showed, by class."""
    guard._target.fold(time.monotonic())  # what held attempts showed waits for it
    return seen.classes(guard)


def generous(**how: Any) -> Guard:
    """A guard with budget for a few retries."""
    retry = Retry(attempts=3, budget=1.0, backoff=0.01)
    guard = Guard("t", **{"timeout": 5.0, "retry": retry, **how})
    guard._target.budget.balance = 10.0
    return guard
