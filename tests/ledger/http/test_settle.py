"""From end to end: a caller over HTTP that got no answer, a server with `Once`, and what is settled."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from brownout import Guard, Key, Outcome
from brownout.cli import main
from brownout.errors import Voided
from brownout.ext.httpx import Transport
from brownout.ledger import Ledger, Once, Outcomes
from tests.ledger.http.serve import served
from tests.ledger.http.speak import who

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALICE = {"who": "alice"}


class Shop:
    """A server whose payments take their time, and one that accepts and says nothing."""

    def __init__(self, folder: Path) -> None:
        self.paid: list[str] = []
        self.seconds = 0.0
        self.journal = f"sqlite:///{folder}/unknown.db"
        self.url = self.silent = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.sleep(self.seconds)
        self.paid.append(dict(scope["headers"])[b"idempotency-key"].decode())
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"paid by card 4000"})

    def guard(self) -> Guard:
        ask = Outcomes(self.url, headers=ALICE, route="POST /pay")
        return Guard("pay", timeout=0.3, ask=ask, journal=self.journal, breaker=None)

    def post(self, guard: Guard, url: str, key: str) -> Outcome[Any]:
        """One payment, over a client that is not guarded itself."""

        def send() -> httpx2.Response:
            headers = {"Idempotency-Key": key, **ALICE}
            return httpx2.post(f"{url}/pay", headers=headers, content=b"{}", timeout=0.3)

        return guard.outcome(send, key=key)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop, ledger = Shop(tmp_path), Ledger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.create()
    once = Once(shop, ledger=ledger, principal=who, routes={"POST /pay": "opaque"})
    with socket.create_server(("127.0.0.1", 0)) as silent, served(once) as url:
        shop.url, shop.silent = url, f"http://127.0.0.1:{silent.getsockname()[1]}"
        yield shop
    ledger.close()


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_payment_whose_answer_did_not_come_is_settled(shop: Shop, colour: str) -> None:
    guard, key = shop.guard(), Key.new()
    shop.seconds = 0.6
    outcome = shop.post(guard, shop.url, key)
    assert outcome.unknown
    new = asyncio.run(guard.aresolve(outcome)) if colour == "async" else guard.resolve(outcome)
    assert new.value is not None
    assert (new.value.status, new.value.body) == (201, b"paid by card 4000")
    assert shop.paid == [key]
    assert guard.unknowns() == []


def test_a_payment_that_never_arrived_is_voided(shop: Shop) -> None:
    guard, key = shop.guard(), Key.new()
    outcome = shop.post(guard, shop.silent, key)
    assert outcome.unknown
    assert isinstance(guard.resolve(outcome, within=1.0).error, Voided)
    late = shop.post(guard, shop.url, key)  # the request that was on its way, say
    assert late.value is not None
    assert late.value.status_code == 410
    assert shop.paid == []


def test_the_adapter_and_the_next_life_of_the_caller(shop: Shop) -> None:
    guard, key = shop.guard(), Key.new()
    shop.seconds = 0.6
    transport = Transport(httpx2.HTTPTransport(), guard=guard)
    client = httpx2.Client(transport=transport, base_url=shop.url, headers=ALICE)
    with client, pytest.raises(httpx2.TimeoutException):
        client.post("/pay", headers={"Idempotency-Key": key})
    (outcome,) = shop.guard().unknowns()
    assert outcome.key == key
    assert shop.guard().resolve(outcome).succeeded
    assert shop.paid == [key]


def test_from_a_shell(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    guard, done, never = shop.guard(), Key.new(), Key.new()
    shop.seconds = 0.6
    shop.post(guard, shop.url, done)
    shop.post(guard, shop.silent, never)
    guard.unknowns()
    where = ["--journal", shop.journal, "--ask", shop.url, "--route", "POST /pay", "--json"]
    assert main(["unknown", "resolve", *where, "--within", "1s"]) == 1  # anonymous: all look absent
    first = json.loads(capsys.readouterr().out)["settled"]
    assert {one["outcome"] for one in first} == {"unknown"}
    where += ["--header", "who: alice"]
    assert main(["unknown", "resolve", *where, "--within", "1s"]) == 1
    told = {one["key"]: one["outcome"] for one in json.loads(capsys.readouterr().out)["settled"]}
    assert told == {done: "succeeded", never: "unknown"}
    assert main(["unknown", "void", never, *where, "--within", "1s"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["settled"][0]["outcome"] == "failed"
    assert "4000" not in out
    assert guard.unknowns() == []
    assert shop.paid == [done]
