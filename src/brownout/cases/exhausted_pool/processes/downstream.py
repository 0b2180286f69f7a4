"""The downstream: quotes from a few bounded workers, behind a bounded queue. Stands alone.

One process, two instances that share nothing: one for the chain with brownout, one for the chain
without. `GET /quote/<n>` takes a worker for about 40 ms; four workers can answer 100 a second. When
the queue is full it says 503 at once. `GET /health` is answered without a worker, as health checks are.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from .child import Child, run
from .price import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS = 4
QUEUE = 14
SERVICE_SECONDS = 0.04
JITTER = 0.25
COUNT_SECONDS = 0.1


class Workers:
    """Bounded workers behind a bounded queue, and the load on them: received, served, shed, waiting."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._queue: deque[Callable[[], None]] = deque()
        self._busy = 0
        self.counts = {"received": 0, "served": 0, "shed": 0, "waiting": 0}

    def offer(self, done: Callable[[], None]) -> bool:
        """Take a piece of work, and call `done` when it is; False when the queue is full."""
        self.counts["received"] += 1
        if self._busy < WORKERS:
            self._start(done)
        elif len(self._queue) < QUEUE:
            self._queue.append(done)
            self.counts["waiting"] = max(self.counts["waiting"], len(self._queue))
        else:
            self.counts["shed"] += 1
            return False
        return True

    def _start(self, done: Callable[[], None]) -> None:
        self._busy += 1
        seconds = SERVICE_SECONDS * self._chance.uniform(1 - JITTER, 1 + JITTER)
        asyncio.get_running_loop().call_later(seconds, self._end, done)

    def _end(self, done: Callable[[], None]) -> None:
        self.counts["served"] += 1
        self._busy -= 1
        if self._queue:
            self._start(self._queue.popleft())
        done()

    def take(self) -> dict[str, int]:
        """The counts since they were last taken."""
        counts, self.counts = self.counts, dict.fromkeys(self.counts, 0)
        counts["waiting"] = max(counts["waiting"], len(self._queue))
        return counts


class Conversation(asyncio.Protocol):
    """One kept-alive connection: GET requests without a body, one after the other."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._text = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request whose head is complete."""
        self._text += data
        while b"\r\n\r\n" in self._text:
            head, _, self._text = self._text.partition(b"\r\n\r\n")
            self._ask(head.split(b" ", 2)[1].decode("latin-1"))

    def _ask(self, path: str) -> None:
        kind, _, item = path.strip("/").partition("/")
        if kind == "health":
            self._answer("200 OK", {"status": "ok"})
        elif kind != "quote" or not item.isdigit():
            self._answer("404 Not Found", {})
        elif not self._workers.offer(lambda: self._answer("200 OK", {"price": quoted(int(item))})):
            self._answer("503 Service Unavailable", {}, "Retry-After: 1\r\n")

    def _answer(self, status: str, body: dict[str, object], more: str = "") -> None:
        assert self._transport is not None
        if self._transport.is_closing():  # the caller left; the work was done for nobody
            return
        text = json.dumps(body)
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}"
        self._transport.write(f"{head}Content-Length: {len(text)}\r\n\r\n{text}".encode())


async def main(child: Child) -> None:
    """Serve both instances, and record the load on each."""
    loop = asyncio.get_running_loop()
    instances: dict[str, Workers] = {}
    ports: dict[str, int] = {}
    for index, chain in enumerate(("with", "without")):
        workers = Workers(random.Random(child.spec["seed"] + index))
        server = await loop.create_server(partial(Conversation, workers), "127.0.0.1", 0)
        instances[chain] = workers
        ports[chain] = server.sockets[0].getsockname()[1]
    child.tell(ready=ports)
    while True:
        await asyncio.sleep(COUNT_SECONDS)
        for chain, workers in instances.items():
            child.record("load", at=time.monotonic(), chain=chain, **workers.take())


if __name__ == "__main__":
    run(main)
