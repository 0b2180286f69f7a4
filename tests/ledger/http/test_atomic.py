"""`Once` around an atomic handler: its effect and the ledger's row are one commit, in SQLite."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from brownout.errors import NoEffect, NotEnlisted
from brownout.ledger import Ledger, Once, Standing
from tests.ledger.http.speak import Call, Handler, answering, new_key, who

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

PAY = "POST /pay"


class Bank:
    """A database with payments, and the ledger in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bank.db"
        self.ledger = Ledger(f"sqlite:///{self.path}", lease_seconds=30.0)
        self.ledger.create()
        with closing(self.connect()) as db:
            db.execute("CREATE TABLE payments (key text)")
        self.handler = Handler()
        self.handler.does = self.pays(answering(201, b"paid"))
        self.app = self.once()

    def once(self, **more: Any) -> Once:
        given = {"principal": who, "routes": {PAY: "atomic", "POST /mail": "opaque"}, **more}
        return Once(self.handler, ledger=self.ledger, **given)

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=10.0, isolation_level=None)

    def paid(self) -> int:
        with closing(self.connect()) as db:
            return int(db.execute("SELECT count(*) FROM payments").fetchone()[0])

    def pays(
        self,
        answer: Callable[..., Any],
        *,
        enlists: bool = True,
        end: str = "COMMIT",
        first: bool = True,
        closes: bool = True,
    ) -> Callable[..., Any]:
        """A handler that pays, ends its transaction before (`first`) or after its answer."""

        async def does(scope: Any, receive: Any, send: Any) -> None:
            db = self.connect()
            try:
                db.execute("BEGIN IMMEDIATE")
                if enlists:
                    assert self.ledger.enlist(db) is None
                db.execute("INSERT INTO payments VALUES ('x')")
                if first and end:
                    db.execute(end)
                if first and closes:
                    db.close()
                await answer(scope, receive, send)
                if not first and end:
                    db.execute(end)
            finally:
                db.close()  # rolls back what is open

        return does

    async def call(self, key: str | None = "", app: Once | None = None, **more: Any) -> Call:
        return await Call(PAY, key=key, **more).of(app or self.app)

    async def ask(self, key: str | None, *, void: bool = False) -> Call:
        line = (
            f"POST /.well-known/outcome/{key}/void" if void else f"GET /.well-known/outcome/{key}"
        )
        return await Call(line, key=None).of(self.app)

    def standing(self, key: str | None) -> list[Standing]:
        return [row.standing for row in self.ledger.rows() if row.key == key]


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    made = Bank(tmp_path)
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


# -------------------------------------------------------------------------------------------- paid once


@pytest.mark.parametrize("first", [True, False], ids=["committed first", "committed at the end"])
@pytest.mark.parametrize("closes", [True, False], ids=["closed", "open"])
def test_a_payment_is_made_once_and_its_answer_told_again(
    bank: Bank, first: bool, closes: bool
) -> None:
    bank.handler.does = bank.pays(
        answering(201, b"pa", b"id", location="/1"), first=first, closes=closes
    )

    async def script() -> None:
        one = await bank.call()
        two = await bank.call(one.key)
        assert (one.status, one.body, one.outcome, one.replayed) == (201, b"paid", "done", False)
        assert (two.status, two.body, two.outcome, two.replayed) == (201, b"paid", "done", True)
        assert two.headers["location"] == "/1"
        assert bank.paid() == 1

    asyncio.run(script())


@played
async def test_nothing_goes_out_before_the_commit(bank: Bank) -> None:
    call = Call(PAY)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await answering(201, b"paid")(scope, receive, send)
        assert call.sent == []

    bank.handler.does = bank.pays(answer, first=False)
    await call.of(bank.app)
    assert call.body == b"paid"


@pytest.mark.parametrize("number", [8, 50])
def test_of_many_at_the_same_time_one_pays(bank: Bank, number: int) -> None:
    async def script() -> None:
        key = new_key()
        other = bank.once()  # another process, as far as it knows
        calls = [
            bank.call(key, app, prefer="wait=20")
            for _ in range(number)
            for app in (bank.app, other)
        ]
        told = await asyncio.gather(*calls)
        assert bank.paid() == 1
        assert {(call.status, call.body) for call in told} == {(201, b"paid")}
        assert sum(not call.replayed for call in told) == 1

    asyncio.run(script())


@played
async def test_two_processes_at_the_same_moment_pay_once(bank: Bank) -> None:
    """Both have seen no row, and both begin; the second's transaction fails, and it tells the first's."""
    other = bank.once()
    both = asyncio.Barrier(2)

    async def before() -> None:
        await both.wait()

    bank.handler.before = before
    key = new_key()
    told = await asyncio.gather(*(bank.call(key, app) for app in (bank.app, other)))
    assert len(bank.handler.done) == 2
    assert bank.paid() == 1
    assert [call.body for call in told] == [b"paid", b"paid"]
    assert sorted(call.replayed for call in told) == [False, True]


@played
async def test_another_payload_or_principal_pays_nothing_of_ours(bank: Bank) -> None:
    one = await bank.call()
    wrong = await bank.call(one.key, body=b"more")
    assert (wrong.status, wrong.problem) == (422, "other-payload")
    assert bank.paid() == 1
    await bank.call(one.key, who="bob")
    assert bank.paid() == 2


@played
async def test_what_is_voided_is_never_paid(bank: Bank) -> None:
    key = new_key()
    assert (await bank.ask(key, void=True)).outcome == "voided"
    late = await bank.call(key)
    assert (late.status, late.problem) == (410, "voided")
    assert bank.paid() == 0


def test_what_is_voided_while_the_handler_is_on_its_way_is_never_paid(bank: Bank) -> None:
    """It has looked, and found no row; the tombstone comes before its transaction."""

    async def script() -> None:
        go = asyncio.Event()
        bank.handler.before = go.wait
        key = new_key()
        paying = asyncio.create_task(bank.call(key))
        await bank.handler.started.wait()
        assert (await bank.ask(key, void=True)).outcome == "voided"
        go.set()
        told = await paying
        assert (told.status, told.problem, told.outcome) == (410, "voided", "voided")
        assert bank.paid() == 0

    asyncio.run(script())


# ------------------------------------------------------------------------------------------ not enlisted


@pytest.mark.parametrize("first", [True, False], ids=["committed first", "committed at the end"])
def test_a_handler_that_does_not_enlist_is_an_error_and_rolled_back_where_it_can_be(
    bank: Bank, first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    bank.handler.does = bank.pays(answering(201, b"paid"), enlists=False, first=first)

    async def script() -> None:
        call = await bank.call()
        assert (call.status, call.problem, call.outcome) == (500, "not-enlisted", "doubt")
        assert bank.standing(call.key) == [Standing.DOUBT]
        assert bank.paid() == first  # committed already: found, and said, never told as done
        again = await bank.call(call.key)
        assert (again.status, again.problem) == (409, "in-doubt")
        assert len(bank.handler.done) == 1

    with caplog.at_level(logging.ERROR, "brownout"):
        asyncio.run(script())
    assert "ledger.enlist(connection)" in caplog.text


@played
async def test_a_handler_that_goes_on_all_the_same_is_not_heard(bank: Bank) -> None:
    async def does(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            with pytest.raises(NotEnlisted):
                await send({"type": "http.response.body", "body": b"ok"})

    bank.handler.does = does
    call = await bank.call()
    assert (call.status, call.problem) == (500, "not-enlisted")


@pytest.mark.parametrize("parts", [[b"x" * 70_000], [b"x" * 40_000, b"x" * 40_000]])
def test_a_long_answer_without_a_row_is_stopped(bank: Bank, parts: list[bytes]) -> None:
    async def script() -> None:
        bank.handler.does = bank.pays(answering(200, *parts), enlists=False, first=False)
        call = await bank.call()
        assert call.problem == "not-enlisted"
        bank.handler.does = bank.pays(answering(200, *parts), first=False)
        call = await bank.call()
        assert (call.status, call.problem, call.outcome) == (500, "not-committed", "")
        assert bank.paid() == 0
        assert bank.standing(call.key) == []

    asyncio.run(script())


@pytest.mark.parametrize("end", ["ROLLBACK", ""], ids=["rolled back", "left open"])
@pytest.mark.parametrize("first", [True, False])
def test_a_success_that_was_not_committed_is_none(bank: Bank, end: str, first: bool) -> None:
    bank.handler.does = bank.pays(answering(201, b"paid"), end=end, first=first, closes=False)

    async def script() -> None:
        call = await bank.call()
        assert (call.status, call.problem, call.outcome) == (500, "not-committed", "")
        assert bank.paid() == 0
        bank.handler.does = bank.pays(answering(201, b"paid"))
        assert (await bank.call(call.key)).body == b"paid"
        assert bank.paid() == 1

    asyncio.run(script())


# ----------------------------------------------------------------------------------------------- it fails


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("status", [400, 402, 404, 409])
def test_a_no_that_was_decided_on_holds(bank: Bank, status: int, first: bool) -> None:
    """Nothing was committed; and a duplicate that comes later can't succeed, for the caller knows a no."""
    bank.handler.does = bank.pays(answering(status, b"no"), end="ROLLBACK", first=first)

    async def script() -> None:
        call = await bank.call()
        assert (call.status, call.body, call.outcome) == (status, b"no", "done")
        bank.handler.does = bank.pays(answering(201, b"paid"))
        again = await bank.call(call.key)
        assert (again.status, again.body, again.replayed) == (status, b"no", True)
        assert bank.paid() == 0

    asyncio.run(script())


@played
async def test_a_no_without_a_transaction_holds_as_well(bank: Bank) -> None:
    bank.handler.does = answering(404, b"no such order")
    call = await bank.call()
    assert call.status == 404
    bank.handler.does = bank.pays(answering(201, b"paid"))
    assert (await bank.call(call.key)).body == b"no such order"
    assert bank.paid() == 0


@played
async def test_a_no_that_was_committed_holds_with_what_was_committed(bank: Bank) -> None:
    bank.handler.does = bank.pays(answering(402, b"refused, and written down"))
    call = await bank.call()
    again = await bank.call(call.key)
    assert (call.body, again.body) == (b"refused, and written down",) * 2
    assert again.replayed
    assert bank.paid() == 1


@pytest.mark.parametrize("status", [401, 413, 422, 429])
def test_what_a_gate_says_before_the_handler_begins_is_not_kept(bank: Bank, status: int) -> None:
    async def script() -> None:
        bank.handler.does = answering(status, b"no")
        call = await bank.call()
        assert (call.status, call.body, call.outcome) == (status, b"no", "")
        bank.handler.does = bank.pays(answering(201, b"paid"))
        assert (await bank.call(call.key, body=b"mended")).body == b"paid"

    asyncio.run(script())


@pytest.mark.parametrize("enlists", [True, False])
@pytest.mark.parametrize("caught", [True, False])
def test_what_raises_is_rolled_back_and_may_be_tried_again(
    bank: Bank, enlists: bool, caught: bool
) -> None:
    """`caught`: the framework makes a 500 of it."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if caught:
            await answering(500, b"oh", raises=OSError("broken"))(scope, receive, send)
        raise OSError("broken")

    bank.handler.does = bank.pays(answer, enlists=enlists, first=False)

    async def script() -> None:
        call = Call(PAY)
        with pytest.raises(OSError, match="broken"):
            await call.of(bank.app)
        assert (call.status, call.outcome) == (500, "")
        assert bank.paid() == 0
        bank.handler.does = bank.pays(answering(201, b"paid"))
        assert (await bank.call(call.key)).body == b"paid"
        assert bank.paid() == 1

    asyncio.run(script())


def test_what_raises_after_its_commit_is_done(bank: Bank) -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        raise OSError("after the commit")

    bank.handler.does = bank.pays(answer, first=True)

    async def script() -> None:
        call = Call(PAY)
        with pytest.raises(OSError, match="after the commit"):
            await call.of(bank.app)
        assert (call.status, call.body, call.outcome) == (200, b"", "done;body=dropped")
        assert (await bank.ask(call.key)).told["outcome"] == "done"
        assert (await bank.call(call.key)).outcome == "done;body=dropped"
        assert bank.paid() == 1

    asyncio.run(script())


@played
async def test_no_effect_is_certain(bank: Bank) -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        raise NoEffect

    bank.handler.does = bank.pays(answer, first=False)
    call = await bank.call()
    assert (call.status, call.problem, call.outcome) == (503, "no-effect", "not-started")
    assert bank.paid() == 0
    assert bank.standing(call.key) == []


# ---------------------------------------------------------------------------------------- long answers


@played
async def test_a_stream_goes_out_as_soon_as_it_is_committed(bank: Bank) -> None:
    call = Call(PAY)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        assert [m.get("body") for m in call.sent] == [None, b"a"]
        await send({"type": "http.response.body", "body": b"b", "more_body": True})
        assert call.sent[-1]["body"] == b"b"
        await send({"type": "http.response.body", "body": b"c"})

    bank.handler.does = bank.pays(answer)
    await call.of(bank.app)
    assert call.body == b"abc"
    again = await bank.call(call.key)
    assert (again.status, again.body, again.replayed) == (200, b"abc", True)


@played
async def test_a_long_answer_is_kept_by_its_digest(bank: Bank) -> None:
    bank.handler.does = bank.pays(answering(200, b"x" * 60_000, b"y" * 60_000, location="/1"))
    call = await bank.call()
    assert len(call.body) == 120_000
    again = await bank.call(call.key)
    assert (again.status, again.body, again.outcome) == (200, b"", "done;body=dropped")
    assert again.headers["location"] == "/1"
    assert again.headers["dropped-digest"].startswith("sha-256=:")
    assert bank.paid() == 1


# ------------------------------------------------------------------------------ the caller, and the ledger


@played
async def test_a_caller_that_leaves_has_paid(bank: Bank) -> None:
    go = asyncio.Event()
    bank.handler.before = go.wait
    key = new_key()
    paying = asyncio.create_task(bank.call(key))
    await bank.handler.started.wait()
    paying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await paying
    go.set()
    assert (await bank.call(key, prefer="wait=10")).body == b"paid"
    assert bank.paid() == 1


def test_without_the_ledger_no_payment_begins(bank: Bank) -> None:
    async def script() -> None:
        with closing(bank.connect()) as db:
            db.execute("ALTER TABLE brownout_ledger RENAME TO gone")
        call = await bank.call()
        assert (call.status, call.problem, call.outcome) == (
            503,
            "ledger-unavailable",
            "not-started",
        )
        assert bank.paid() == 0
        reading = await Call("GET /payments", key=None).of(bank.app)
        assert reading.status == 201

    bank.handler.does = answering(201, b"paid")
    asyncio.run(script())


def test_a_no_that_can_t_be_recorded_is_not_told_as_certain(bank: Bank) -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        with closing(bank.connect()) as db:
            db.execute("ALTER TABLE brownout_ledger RENAME TO gone")
        await answering(402, b"no")(scope, receive, send)

    async def script() -> None:
        bank.handler.does = answer
        call = await bank.call()
        assert (call.status, call.problem, call.outcome) == (503, "not-recorded", "")

    asyncio.run(script())
