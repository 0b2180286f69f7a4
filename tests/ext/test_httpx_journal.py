"""A client's calls with an Idempotency-Key are written down as any guarded call with a key."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx2
import pytest

from brownout import Guard, Key
from brownout.ext.httpx import Transport

if TYPE_CHECKING:
    from pathlib import Path


def handler(request: httpx2.Request) -> httpx2.Response:
    if request.url.path == "/lost":
        raise httpx2.ReadTimeout("no answer", request=request)
    if request.url.path == "/refused":
        raise httpx2.ConnectError("refused", request=request)
    return httpx2.Response(int(request.url.path[1:]))


async def ahandler(request: httpx2.Request) -> httpx2.Response:
    return handler(request)


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_what_is_unknown_stands_in_the_journal(tmp_path: Path, colour: str) -> None:
    guard = Guard("pay", timeout=1.0, journal=f"sqlite:///{tmp_path}/unknown.db", breaker=None)
    keys = {path: Key.new() for path in ("/200", "/404", "/500", "/lost", "/refused")}

    async def post() -> None:
        transport = Transport(httpx2.MockTransport(ahandler), guard=guard)
        async with httpx2.AsyncClient(transport=transport, base_url="http://pay") as client:
            for path, key in keys.items():
                try:
                    await client.post(path, headers={"Idempotency-Key": key})
                except httpx2.TransportError:
                    assert path in {"/lost", "/refused"}

    if colour == "async":
        asyncio.run(post())
    else:
        transport = Transport(httpx2.MockTransport(handler), guard=guard)
        with httpx2.Client(transport=transport, base_url="http://pay") as client:
            for path, key in keys.items():
                try:
                    client.post(path, headers={"Idempotency-Key": key})
                except httpx2.TransportError:
                    assert path in {"/lost", "/refused"}
    unknown = {outcome.key for outcome in guard.unknowns()}
    assert unknown == {keys["/500"], keys["/lost"]}
