"""An HTTP call of an ASGI app, without a server; and a handler that is told what to do."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING, Any

from brownout._core.key import minted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def new_key(at: float | None = None) -> str:
    """A key of that time, in seconds since 1970."""
    return minted(int((time.time() if at is None else at) * 1000), os.urandom(10))


class Call:
    """One call: what it says, and what it is told. It leaves when `leaves` is set."""

    def __init__(
        self,
        line: str = "POST /mail",
        body: bytes = b"{}",
        *,
        key: str | None = "",
        who: str = "alice",
        parts: int = 1,
        **headers: str,
    ) -> None:
        method, _, target = line.partition(" ")
        path, _, query = target.partition("?")
        self.key = new_key() if key == "" else key
        pairs = [(n.replace("_", "-").encode(), v.encode("latin-1")) for n, v in headers.items()]
        pairs.append((b"who", who.encode()))
        if self.key is not None:
            pairs.append((b"idempotency-key", self.key.encode()))
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": pairs,
            "extensions": {"http.response.pathsend": {}, "tls": {}},
        }
        size = max(1, -(-len(body) // parts))
        pieces = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
        self._messages = [
            {"type": "http.request", "body": one, "more_body": at < len(pieces) - 1}
            for at, one in enumerate(pieces)
        ]
        self.leaves = asyncio.Event()
        self.sent: list[dict[str, Any]] = []
        self.gone = False  # sending to it fails

    async def receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop(0)
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if self.gone:
            raise OSError("the caller has left")
        self.sent.append(dict(message))

    async def of(self, app: Any) -> Call:
        await app(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        [status] = [m["status"] for m in self.sent if m["type"] == "http.response.start"]
        return int(status)

    @property
    def headers(self) -> dict[str, str]:
        [start] = [m for m in self.sent if m["type"] == "http.response.start"]
        return {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]}

    @property
    def body(self) -> bytes:
        assert not self.sent[-1].get("more_body")
        return b"".join(m.get("body", b"") for m in self.sent)

    @property
    def outcome(self) -> str:
        return self.headers.get("outcome", "")

    @property
    def replayed(self) -> bool:
        return self.headers.get("idempotent-replayed") == "true"

    @property
    def told(self) -> dict[str, Any]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    @property
    def problem(self) -> str:
        """The end of the type of the problem it is told."""
        assert self.headers["content-type"] == "application/problem+json"
        told = self.told
        assert told["status"] == self.status
        assert told["title"]
        assert told["detail"]
        return str(told["type"]).removeprefix("urn:brownout:problem:")


class Handler:
    """Counts what it has done, reads its body, and answers by `does`."""

    def __init__(self) -> None:
        self.done: list[bytes] = []
        self.does: Callable[..., Awaitable[None]] = answering(201, b'{"sent": true}')
        self.before: Callable[[], Awaitable[object]] | None = None
        self.started = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            body += message["body"]
            more = message["more_body"]
        self.started.set()
        if self.before is not None:
            await self.before()
        self.done.append(body)
        await self.does(scope, receive, send)


def answering(
    status: int = 200, *parts: bytes, raises: BaseException | None = None, **headers: str
) -> Callable[..., Awaitable[None]]:
    """Answers so, in parts, and raises then."""

    async def does(scope: Any, receive: Any, send: Any) -> None:
        pairs = [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()]
        pairs.append((b"content-type", b"application/json"))
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        for at, part in enumerate(parts or (b"",)):
            more = at < len(parts) - 1
            await send({"type": "http.response.body", "body": part, "more_body": more})
        if raises is not None:
            raise raises

    return does


def raising(error: BaseException) -> Callable[..., Awaitable[None]]:
    async def does(scope: Any, receive: Any, send: Any) -> None:
        raise error

    return does


def who(scope: Any) -> str | None:
    names = [value.decode() for key, value in scope["headers"] if key == b"who"]
    return names[0] if names else None
