"""Clients of HTTP: what each one's exceptions say, and what the server had really done."""

from __future__ import annotations

import asyncio
import io
import time
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import httpx
import pytest
import requests
import urllib3

from brownout import Guard, OutcomeClass, Shown
from brownout.ext import aiohttp as ext_aiohttp
from brownout.ext import httpx as ext_httpx
from brownout.ext import requests as ext_requests
from brownout.ext import urllib3 as ext_urllib3
from brownout.ext.reply import answer
from brownout.ext.trail import tell
from tests.ext.clients.conftest import free_port
from tests.ext.clients.http_server import Server, full, serving
from tests.ext.clients.matrix import Trial, check, together, tried

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

SECONDS = 5.0
SHORT_SECONDS = 0.5  # where it is silence that is waited out
SMALL = b"amount=10"
BIG = b"x" * (24 << 20)
DEAD = free_port()
_ids = count()
_names = count()


class Ask(NamedTuple):
    """What is to be asked: of a URL, after another request on the same connection if `warm`."""

    url: str
    body: bytes = SMALL
    method: str = "POST"
    warm: str = ""
    leave_seconds: float | None = None  # an `asyncio.timeout` around it
    default: bool = False  # the client as it comes, sending again by itself
    seconds: float = SECONDS
    connect_seconds: float = SECONDS  # urllib3 sends under it too


def own() -> Guard:
    return Guard(f"own {next(_names)}", breaker=None)


def with_httpx(ask: Ask) -> None:
    transport = ext_httpx.Transport(httpx.HTTPTransport(verify=False), guard=own())
    with httpx.Client(
        transport=transport, timeout=httpx.Timeout(ask.seconds, connect=ask.connect_seconds)
    ) as client:
        if ask.warm:
            client.post(ask.warm, content=SMALL)
            time.sleep(0.2)
        client.request(ask.method, ask.url, content=ask.body).raise_for_status()


async def with_httpx_async(ask: Ask) -> None:
    transport = ext_httpx.Transport(httpx.AsyncHTTPTransport(verify=False), guard=own())
    span = httpx.Timeout(ask.seconds, connect=ask.connect_seconds)
    seconds = None if ask.leave_seconds else span
    async with httpx.AsyncClient(transport=transport, timeout=seconds) as client:
        if ask.warm:
            await client.post(ask.warm, content=SMALL)
            await asyncio.sleep(0.2)
        async with asyncio.timeout(ask.leave_seconds):
            answered = await client.request(ask.method, ask.url, content=ask.body)
        answered.raise_for_status()


def with_requests(ask: Ask) -> None:
    with requests.Session() as session:
        session.trust_env = False
        for scheme in ("http://", "https://"):
            session.mount(scheme, ext_requests.Adapter(guard=own()))
        if ask.warm:
            session.post(ask.warm, data=SMALL, timeout=ask.seconds, verify=False)
            time.sleep(0.2)
        spans = (ask.connect_seconds, ask.seconds)
        found = session.request(ask.method, ask.url, data=ask.body, timeout=spans, verify=False)
        found.raise_for_status()


def with_urllib3(ask: Ask) -> None:
    more: dict[str, Any] = {} if ask.default else {"retries": False}
    span = urllib3.Timeout(connect=ask.connect_seconds, read=ask.seconds)
    manager = urllib3.PoolManager(timeout=span, cert_reqs="CERT_NONE", **more)
    with ext_urllib3.watch(manager):
        if ask.warm:
            manager.request("POST", ask.warm, body=SMALL)
            time.sleep(0.2)
        found = manager.request(ask.method, ask.url, body=ask.body)
        if found.status >= 400:
            shown = answer(found.status, found.headers) or Shown.of(OutcomeClass.SUCCESS)
            error = RuntimeError(found.status)
            tell(error, shown)
            raise error


async def with_aiohttp(ask: Ask) -> None:
    span = aiohttp.ClientTimeout(
        total=None, sock_connect=ask.connect_seconds, sock_read=ask.seconds
    )
    if ask.leave_seconds:
        span = aiohttp.ClientTimeout(total=None)
    elif ask.body is BIG:
        span = aiohttp.ClientTimeout(total=2 * ask.seconds)
    given = ext_aiohttp.guarded(own(), resend=ask.default)
    body: Any = io.BytesIO(ask.body) if ask.body is BIG else ask.body
    await asking_aiohttp(ask, body, aiohttp.ClientSession(timeout=span, **given))


async def asking_aiohttp(ask: Ask, body: Any, session: aiohttp.ClientSession) -> None:
    async with session:
        if ask.warm:
            async with session.post(ask.warm, data=SMALL, ssl=False) as response:
                await response.read()
            await asyncio.sleep(0.2)
        async with asyncio.timeout(ask.leave_seconds):
            async with session.request(ask.method, ask.url, data=body, ssl=False) as response:
                await response.read()
                response.raise_for_status()


CLIENTS: dict[str, tuple[Callable[[Ask], Any], Any]] = {
    "httpx": (with_httpx, ext_httpx.classify),
    "httpx, async": (with_httpx_async, ext_httpx.classify),
    "requests": (with_requests, ext_requests.classify),
    "urllib3": (with_urllib3, ext_urllib3.classify),
    "aiohttp": (with_aiohttp, ext_aiohttp.classify),
}
ASYNC = ("httpx, async", "aiohttp")
RESENDS = ("urllib3", "aiohttp")


class Stage:
    """The servers, and a trial's own path."""

    def __init__(self, server: Server, full: str, tls_silent: str, no_tls: str) -> None:
        self.server = server
        self.at = {
            "refused": f"http://127.0.0.1:{DEAD}",
            "SYN lost": f"http://{full}",
            "TLS never answers": f"https://{tls_silent}",
            "not TLS": f"https://{no_tls}",
            "name unknown": "http://nx.invalid",
        }


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    kept: list[socket.socket] = []

    def no_tls(one: socket.socket) -> None:
        one.sendall(b"HTTP/1.0 400 no\r\n\r\n")
        one.close()

    server = Server()
    with full() as backlog, serving(kept.append) as silent, serving(no_tls) as plain:
        yield Stage(server, backlog, silent, plain)
    server.close()
    for one in kept:
        one.close()


LATE = {"seconds": SHORT_SECONDS}
SILENT = {**LATE, "connect_seconds": SHORT_SECONDS}
FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "name unknown": ("", {}),
    "refused": ("", {}),
    "SYN lost": ("", SILENT),
    "TLS never answers": ("", SILENT),
    "not TLS": ("", {}),
    "peer stops reading the body": ("never_read", {"body": BIG, **SILENT}),
    "reset in the midst of the body": ("reset_mid_body", {"body": BIG}),
    "closed in the midst of the body": ("close_mid_body", {"body": BIG}),
    "reset, not done": ("lost_reset", {}),
    "closed, not done": ("lost_close", {}),
    "reset, done": ("done_reset", {}),
    "closed, done": ("done_close", {}),
    "silence": ("silent", LATE),
    "reply cut inside its headers": ("half_headers", {}),
    "garbage": ("garbage", {}),
    "body of the reply cut": ("half_body", {}),
    "body of the reply reset": ("half_body_reset", {}),
    "body of the reply stalls": ("half_body_silent", LATE),
    "idle connection closed earlier": ("ok", {"warm": "idle_close"}),
    "reset exactly as the request arrives": ("race_reset", {"warm": "ok"}),
    "closed exactly as the request arrives": ("race_close", {"warm": "ok"}),
    "left by its caller while connecting": ("", {"leave_seconds": 0.2}),
    "left by its caller while it waits": ("silent", {"leave_seconds": 1.5}),
    "400": ("status_400", {}),
    "401": ("status_401", {}),
    "408": ("status_408", {}),
    "409, Outcome: running": ("status_409_running", {}),
    "429": ("status_429", {}),
    "500": ("status_500", {}),
    "502": ("status_502", {}),
    "503": ("status_503", {}),
    "503, Outcome: not-started": ("status_503_not-started", {}),
    "504": ("status_504", {}),
    "PUT by default: reset, done": ("done_reset", {"method": "PUT", "default": True}),
    "PUT by default: done, then down": ("done_reset_down", {"method": "PUT", "default": True}),
}


def play(stage: Stage, fault: str, client: str) -> tuple[Trial, int]:
    path, given = FAULTS[fault]
    id_ = str(next(_ids))
    server = Server() if path == "done_reset_down" else stage.server
    here = f"http://{server.address}"
    place = "SYN lost" if fault.startswith("left by its caller while conn") else fault
    url = f"{stage.at[place]}/x/{id_}" if not path else f"{here}/{path}/{id_}"
    given = dict(given)
    if "warm" in given:
        given["warm"] = f"{here}/{given['warm']}/warm"
    if path.startswith("race"):
        given["warm"] = f"{here}/{path}/warm"
    ask = Ask(url, **given)
    call, classify = CLIENTS[client]
    if client in ASYNC:

        async def asked() -> None:
            try:
                await call(ask)
            finally:
                if ask.body is BIG:  # until the server has ended what still waits to be sent
                    await asyncio.sleep(1.8)

        found = tried(asked, classify=classify)
    else:
        found = tried(partial(call, ask), classify=classify)
    return found, server.done[id_]


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.filterwarnings("ignore::brownout.ext.urllib3.ResendWarning")
def test_matrix(stage: Stage) -> None:
    cells = [
        (fault, client)
        for fault in FAULTS
        for client in CLIENTS
        if (client in ASYNC or not fault.startswith("left"))
        and (client in RESENDS or not fault.startswith("PUT"))
    ]
    results = together([partial(play, stage, *cell) for cell in cells])
    check("HTTP", dict(zip(cells, results, strict=True)))
