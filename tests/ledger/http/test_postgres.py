"""`Once` and PostgreSQL: duplicates and voids meet a transaction in flight, and the server is shot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from brownout.ledger import Ledger, Once, Standing
from tests.ledger.conftest import postgres_url
from tests.ledger.http.speak import Call, Handler, answering, new_key, who

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from tests.ledger.servers import PostgresServer

PAY = "POST /pay"


class Bank:
    def __init__(self, url: str) -> None:
        self.url = url
        self.ledger = Ledger(url)
        self.ledger.create()
        self.handler = Handler()
        self.handler.does = self.pays
        self.inside = asyncio.Event()  # the payment is written, and not committed
        self.go = asyncio.Event()
        self.end = "COMMIT"

    def once(self) -> Once:
        return Once(self.handler, ledger=self.ledger, principal=who, routes={PAY: "atomic"})

    async def pays(self, scope: Any, receive: Any, send: Any) -> None:
        async with await psycopg.AsyncConnection.connect(self.url) as db:
            enlisting = self.ledger.enlist(db)
            assert enlisting is not None
            await enlisting
            await db.execute("INSERT INTO biz VALUES ('x')")
            self.inside.set()
            await self.go.wait()
            await db.execute(self.end)
        await answering(201, b"paid")(scope, receive, send)

    def paid(self) -> int:
        with psycopg.connect(self.url) as db:
            found = db.execute("SELECT count(*) FROM biz").fetchone()
            assert found is not None
            return int(found[0])

    async def void(self, app: Once, key: str, wait: str = "wait=10") -> Call:
        line = f"POST /.well-known/outcome/{key}/void?route=POST%20/pay"
        return await Call(line, key=None, prefer=wait).of(app)


@pytest.fixture(scope="module")
def url(postgres: PostgresServer) -> str:
    return postgres_url(postgres)


@pytest.fixture
def bank(url: str) -> Iterator[Bank]:
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("DELETE FROM biz")
    made = Bank(url)
    yield made
    made.ledger.close()


def played(test: Callable[[Bank], Coroutine[Any, Any, None]]) -> Any:
    def run(bank: Bank) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                await test(bank)

        asyncio.run(bounded())

    run.__name__ = test.__name__
    return run


@played
async def test_a_second_process_waits_for_the_first_one_s_commit_and_tells_its_answer(
    bank: Bank,
) -> None:
    key = new_key()
    first = asyncio.create_task(Call(PAY, key=key).of(bank.once()))
    await bank.inside.wait()
    others = [asyncio.create_task(Call(PAY, key=key).of(bank.once())) for _ in range(5)]
    while len(bank.handler.done) < 6:  # noqa: ASYNC110 - each has begun, and waits for the row
        await asyncio.sleep(0)
    bank.go.set()
    told = [await first, *[await other for other in others]]
    assert {(call.status, call.body) for call in told} == {(201, b"paid")}
    assert sum(not call.replayed for call in told) == 1
    assert bank.paid() == 1


@pytest.mark.parametrize(("end", "outcome"), [("COMMIT", "done"), ("ROLLBACK", "voided")])
def test_a_void_waits_for_the_transaction_in_flight(bank: Bank, end: str, outcome: str) -> None:
    async def script() -> None:
        bank.end = end
        key = new_key()
        app, other = bank.once(), bank.once()
        paying = asyncio.create_task(Call(PAY, key=key).of(app))
        await bank.inside.wait()
        early = await bank.void(other, key, "wait=1")
        assert early.outcome == "running"  # never a wrong word
        voiding = asyncio.create_task(bank.void(other, key))
        await asyncio.sleep(0)
        bank.go.set()
        assert (await voiding).outcome == outcome
        paid = await paying
        assert (paid.status, bank.paid()) == ((201, 1) if end == "COMMIT" else (410, 0))
        assert (await bank.void(other, key)).outcome == outcome

    asyncio.run(script())


def test_a_server_that_is_shot_in_the_midst_of_a_payment_leaves_no_half(
    bank: Bank, postgres: PostgresServer
) -> None:
    async def script() -> None:
        key = new_key()
        call = Call(PAY, key=key)
        paying = asyncio.create_task(call.of(bank.once()))
        await bank.inside.wait()
        await asyncio.to_thread(postgres.immediate)
        bank.go.set()
        with pytest.raises(psycopg.Error):
            await paying
        assert call.status == 500
        assert call.outcome == ""  # a commit may have been under way
        assert bank.paid() == 0
        again = await Call(PAY, key=key).of(bank.once())
        assert (again.status, bank.paid()) == (201, 1)
        assert [row.standing for row in bank.ledger.rows() if row.key == key] == [Standing.DONE]

    asyncio.run(script())
