"""The shop: answers `/catalog` by itself and `/quote/<n>` from its downstream, through a pool of connections.

Its health check says ok as long as it runs, as most do. Bare, the shop has a time-out of 2 s and turns
every error into a 502. With brownout the same client goes through a guard (target `downstream`), and
what can't be had in time is answered with the list price: the shop's own degraded answer, flagged.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import TYPE_CHECKING, Any

import httpx2
import uvicorn

from .child import Child, run
from .price import CATALOG, listed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BARE_TIMEOUT_SECONDS = 2.0
TIMEOUT_SECONDS = 0.3
DEADLINE_SECONDS = 0.7  # the caller waits for 0.9 s
Body = dict[str, Any]


def bare(onward: str, pool: int) -> Callable[[int], Awaitable[tuple[int, Body]]]:
    """Ask the downstream as many services do: a pool, a time-out, an error for an error."""
    limits = httpx2.Limits(max_connections=pool, max_keepalive_connections=pool)
    client = httpx2.AsyncClient(base_url=onward, timeout=BARE_TIMEOUT_SECONDS, limits=limits)

    async def quote(item: int) -> tuple[int, Body]:
        try:
            answer = await client.get(f"/quote/{item}")
            answer.raise_for_status()
        except httpx2.HTTPError as error:
            return 502, {"error": type(error).__name__}
        return 200, answer.json()

    return quote


def guarded(onward: str, pool: int) -> Callable[[int], Awaitable[tuple[int, Body]]]:
    """Ask the downstream under a guard; whatever it can't give in time, answer from the list."""
    import brownout
    import brownout.ext.httpx

    guard = brownout.Guard(
        "downstream",
        timeout=TIMEOUT_SECONDS,
        retry=brownout.Retry(attempts=2, budget=0.1),
        breaker=brownout.Breaker(wait=0.5, wait_most=1.0, ramp=1.0),
        # Asked on the same way as the quotes: only a crash takes it along.
        health=f"{onward}/health",
    )
    limits = httpx2.Limits(max_connections=pool, max_keepalive_connections=pool)
    transport: Any = brownout.ext.httpx.Transport(
        httpx2.AsyncHTTPTransport(limits=limits), guard=guard
    )
    client = httpx2.AsyncClient(base_url=onward, transport=transport, timeout=None)  # the guard's
    brownout.watch()

    async def quote(item: int) -> tuple[int, Body]:
        try:
            with brownout.deadline(DEADLINE_SECONDS):
                answer = await client.get(f"/quote/{item}", extensions={"operation": "quote"})
            answer.raise_for_status()
        except (httpx2.HTTPError, brownout.BrownoutError) as error:
            return 200, {"price": listed(item), "degraded": True, "why": type(error).__name__}
        return 200, answer.json()

    return quote


def application(quote: Callable[[int], Awaitable[tuple[int, Body]]]) -> Any:
    """The shop as an ASGI application."""

    async def app(scope: Body, _receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        kind, _, item = scope["path"].strip("/").partition("/")
        if kind == "quote" and item.isdigit():
            status, body = await quote(int(item))
        elif kind == "catalog":
            status, body = 200, {"items": CATALOG}
        elif kind == "health":
            status, body = 200, {"status": "ok"}
        else:
            status, body = 404, {}
        text = json.dumps(body).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    return app


async def main(child: Child) -> None:
    """Serve on a port that the kernel chooses."""
    onward = f"http://127.0.0.1:{child.spec['downstream']}"
    ask = bare if child.spec["bare"] else guarded
    app = application(ask(onward, child.spec["pool"]))
    assert not child.spec["bare"] or "brownout" not in sys.modules
    # The protocol is named, since asyncio sets TCP_NODELAY only then; else head and body lie 40 ms apart.
    place = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    place.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_level="warning", lifespan="off", loop="asyncio", http="h11", access_log=False
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[place]))
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    if server.started:
        child.tell(ready=place.getsockname()[1])
    await serving


if __name__ == "__main__":
    run(main)
