"""The caller: makes the load's calls to its shop, with a guard (target `shop`) or with a time-out only.

For each line `{"id", "path"}` on the load's connection it makes one call, and answers with a line
`{"id", "status", "body", "degraded"}`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .child import Child, run
from .fetch import Answer, Client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TIMEOUT_SECONDS = 0.9  # the load's deadline is 1 s
BARE_TIMEOUT_SECONDS = 2.0


class ServerError(Exception):
    """The shop answered with a 5xx: it failed."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"the shop answered {answer.status}")
        self.answer = answer


def bare(client: Client) -> Callable[[str], Awaitable[Answer]]:
    """As many services do it: a time-out, and nothing else."""

    async def fetch(path: str) -> Answer:
        async with asyncio.timeout(BARE_TIMEOUT_SECONDS):
            return await client.get(path)

    return fetch


def guarded(client: Client, port: int) -> Callable[[str], Awaitable[Answer]]:
    """The same under a guard. Each route is an operation of its own, since each has its own usual."""
    import brownout

    shop = brownout.Guard("shop", timeout=TIMEOUT_SECONDS, health=f"http://127.0.0.1:{port}/health")
    brownout.watch()

    async def page(path: str) -> Answer:
        answer = await client.get(path)
        if answer.status >= 500:
            raise ServerError(answer)
        return answer

    async def fetch(path: str) -> Answer:
        try:
            return await shop.acall(page, path, operation=path.split("/")[1])
        except ServerError as error:
            return error.answer
        except brownout.Refused as refused:
            return Answer(503, {"error": str(refused)})

    return fetch


async def _answer(
    fetch: Callable[[str], Awaitable[Answer]], asked: dict[str, Any], writer: asyncio.StreamWriter
) -> None:
    try:
        answer = await fetch(asked["path"])
    except TimeoutError as error:
        answer = Answer(504, {"error": str(error)})
    except (OSError, EOFError) as error:
        answer = Answer(502, {"error": str(error)})
    body: Any = answer.body
    degraded = isinstance(body, dict) and body.get("degraded") is True
    told: dict[str, Any] = {
        "id": asked["id"],
        "status": answer.status,
        "body": answer.body,
        "degraded": degraded,
    }
    writer.write(json.dumps(told).encode() + b"\n")


async def main(child: Child) -> None:
    """Serve the load's connection."""
    client = Client(child.spec["shop"])
    fetch = bare(client) if child.spec["bare"] else guarded(client, child.spec["shop"])
    assert not child.spec["bare"] or "brownout" not in sys.modules

    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    calls: set[asyncio.Task[None]] = set()

    def over(call: asyncio.Task[None]) -> None:
        calls.discard(call)
        error = None if call.cancelled() else call.exception()
        if error is not None and not broken.done():  # an error that nobody expects ends the process
            broken.set_exception(error)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):  # at the end; asyncio would write about it at length
            while line := await reader.readline():
                call = asyncio.create_task(_answer(fetch, json.loads(line), writer))
                calls.add(call)
                call.add_done_callback(over)
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    child.tell(ready=server.sockets[0].getsockname()[1])
    await broken


if __name__ == "__main__":
    run(main)
