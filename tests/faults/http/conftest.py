"""A real server with the middleware, the three forms before it, and real clients of both libraries."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
import uvicorn

from brownout.fault import http

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from brownout.fault.http.place import Place

BODY = bytes(range(250)) * 4
WAIT_SECONDS = 5.0


class Shop:
    """The application: it counts what it has executed."""

    def __init__(self) -> None:
        self.executed: list[bytes] = []
        self.ended = 0  # handlers that came to their end

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        self.executed.append(body)
        answer = body if scope["path"] == "/echo" else BODY
        headers = [(b"content-length", b"%d" % len(answer)), (b"x-shop", b"yes")]
        if scope["path"] == "/chunked":
            del headers[0]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        half = len(answer) // 2
        await send({"type": "http.response.body", "body": answer[:half], "more_body": True})
        await send({"type": "http.response.body", "body": answer[half:]})
        self.ended += 1

    def until(self, what: Callable[[], bool]) -> bool:
        end = time.monotonic() + WAIT_SECONDS
        while not (found := what()) and time.monotonic() < end:
            time.sleep(0.005)
        return found


@contextmanager
def served(app: Any) -> Iterator[str]:
    """By uvicorn, in a thread of its own; gives "host:port"."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])))
        thread.start()
        try:
            yield f"127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


class Stage:
    """The shop, the middleware around it and the proxy before it, all of them running."""

    def __init__(self, shop: Shop, inside: http.HttpFaults, address: str, proxy: Any) -> None:
        self.shop = shop
        self.inside = inside
        self.address = address
        self.proxy = proxy


@pytest.fixture(scope="module")  # other tests look whether a proxy is left running
def stage() -> Iterator[Stage]:
    shop = Shop()
    inside = http.HttpFaults(shop, name="shop")
    with served(inside) as address, http.running(address) as proxy:
        yield Stage(shop, inside, address, proxy)


class Caller:
    """A client of one kind, and the place before or behind it."""

    def __init__(self, stage: Stage, form: str, library: Any, *, asynchronous: bool) -> None:
        self.shop = stage.shop
        self.library = library
        self._asynchronous = asynchronous
        self.place: Place = stage.inside if form == "asgi" else stage.proxy
        self._url = f"http://{stage.proxy.listen if form == 'proxy' else stage.address}"
        kind = "AsyncHTTPTransport" if asynchronous else "HTTPTransport"
        self._transport = getattr(library, kind)(verify=False)  # certificates take long to read
        if form == "transport":
            self._transport = self.place = http.HttpTransport(self._transport)
        stage.shop.executed.clear()
        stage.shop.ended = 0

    def call(self, method: str = "GET", path: str = "/", seconds: float = 5.0, **more: Any) -> Any:
        url = self._url + path
        if not self._asynchronous:
            with self.library.Client(transport=self._transport, timeout=seconds) as client:
                return client.request(method, url, **more)

        async def called() -> Any:
            made = self.library.AsyncClient(transport=self._transport, timeout=seconds)
            async with made as client:
                return await client.request(method, url, **more)

        return asyncio.run(called())

    def saw(self, **how: Any) -> str:
        """As the table of the reference has it: the exception, or the status."""
        try:
            answer = self.call(**how)
        except self.library.TransportError as error:
            return f"{type(error).__name__}: {error}"
        return f"{answer.status_code}"


FORMS = ["asgi", "transport", "proxy"]
CLIENTS = [(httpx, False), (httpx, True), (httpx2, False), (httpx2, True)]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def callers(stage: Stage, form: str) -> list[Caller]:
    """One of each kind."""
    return [
        Caller(stage, form, library, asynchronous=asynchronous) for library, asynchronous in CLIENTS
    ]


@pytest.fixture
def one(stage: Stage, form: str) -> Caller:
    """One kind of client will do."""
    return Caller(stage, form, httpx, asynchronous=False)
