"""`Once` around FastAPI and Starlette, served by uvicorn: their own sessions, middleware, streams, errors."""

from __future__ import annotations

import asyncio
import http.client
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from brownout.errors import NoEffect
from brownout.fault import Cut, Drop, Duplicate, HttpFaults
from brownout.ledger import Ledger, Once, Outcomes, Standing
from tests.ledger.http.serve import served
from tests.ledger.http.speak import new_key, who
from tests.seen import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from starlette.requests import Request

ALICE = {"who": "alice"}
ROUTES = {
    "POST /pay/{order}": "atomic",
    "POST /now": "atomic",
    "POST /forgets": "atomic",
    "POST /mail": "opaque",
    "POST /fails": "opaque",
    "POST /nothing": "opaque",
    "POST /stream": "resumable",
}


class Shop:
    """A service of each framework, a database, and the gate that a test may hold its handlers at."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "shop.db"
        self.ledger = Ledger(f"sqlite:///{self.path}")
        self.ledger.create()
        self.engine = create_engine(f"sqlite:///{self.path}", connect_args={"timeout": 10})
        event.listen(self.engine, "connect", _explicit)
        event.listen(self.engine, "begin", _immediate)
        with closing(sqlite3.connect(self.path)) as db:
            db.execute("CREATE TABLE paid (what text)")
        self.began = threading.Semaphore(0)
        self.go = threading.Event()
        self.mails: list[str] = []
        self.go.set()
        self.url = ""
        self.place: HttpFaults
        # Certificates take long to read. And servers close a connection whose handler has raised.
        self.client = httpx2.Client(verify=False, limits=httpx2.Limits(max_keepalive_connections=0))

    def paid(self, what: str) -> int:
        with closing(sqlite3.connect(self.path)) as db:
            return int(db.execute("SELECT count(*) FROM paid WHERE what = ?", [what]).fetchone()[0])

    def effects(self, key: str) -> int:
        """How often it was done. A task in the background may be done after the answer has come."""
        until(lambda: self.paid(key) + self.mails.count(key))
        return self.paid(key) + self.mails.count(key)

    def hold(self) -> None:
        """In a handler's thread."""
        self.began.release()
        assert self.go.wait(20)

    async def ahold(self) -> None:
        await asyncio.to_thread(self.hold)

    def post(self, path: str, key: str = "", what: str = "x", **more: Any) -> httpx2.Response:
        headers = {"idempotency-key": key or new_key(), **ALICE, **more.pop("headers", {})}
        return self.client.post(
            self.url + path, headers=headers, json={"what": what}, timeout=20, **more
        )

    def outcomes(self) -> Outcomes:
        return Outcomes(self.url, headers=ALICE)


def _explicit(connection: Any, _: Any) -> None:
    connection.isolation_level = None


def _immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def fastapi_app(shop: Shop) -> Any:
    app = FastAPI()

    @app.middleware("http")
    async def mark(request: Request, call_next: Any) -> Any:  # as many services have one
        response = await call_next(request)
        response.headers["x-mark"] = "1"
        return response

    def session() -> Iterator[Session]:
        with Session(shop.engine) as found, found.begin():
            yield found  # committed after the answer, as FastAPI ends its dependencies

    needed: Any = Depends(session)  # FastAPI does not find a local one in an annotation

    @app.post("/pay/{order}", status_code=201)
    def pay(order: str, payment: dict[str, str], db: Session = needed) -> dict[str, str]:
        shop.ledger.enlist(db)
        db.execute(text("INSERT INTO paid VALUES (:what)"), payment)
        shop.hold()
        if payment["what"] == "too much":
            raise HTTPException(402, "too much")
        if payment["what"] == "broken":
            raise OSError("broken")
        return {"order": order}

    @app.post("/now", status_code=201)
    async def now(payment: dict[str, str]) -> dict[str, str]:
        with Session(shop.engine) as db, db.begin():
            shop.ledger.enlist(db)
            db.execute(text("INSERT INTO paid VALUES (:what)"), payment)
        await shop.ahold()
        return {"paid": payment["what"]}

    @app.post("/forgets")
    def forgets(payment: dict[str, str], db: Session = needed) -> dict[str, str]:
        db.execute(text("INSERT INTO paid VALUES (:what)"), payment)
        return payment

    @app.post("/mail")
    async def mail(payment: dict[str, str], later: BackgroundTasks) -> dict[str, str]:
        await shop.ahold()
        later.add_task(shop.mails.append, payment["what"])
        return payment

    @app.post("/fails")
    async def fails(payment: dict[str, str]) -> None:
        shop.mails.append(payment["what"])
        raise OSError("half done")

    @app.post("/nothing")
    async def nothing(payment: dict[str, str]) -> None:
        raise NoEffect("the mail server can't be reached")

    @app.post("/stream")
    async def stream(payment: dict[str, str]) -> StreamingResponse:
        await shop.ahold()
        return StreamingResponse(_parts(shop, payment["what"]), media_type="application/x")

    return app


async def _parts(shop: Shop, what: str) -> AsyncIterator[bytes]:
    shop.mails.append(what)
    for n in range(5):
        yield bytes(range(256)) * (100 if what == "large" else 2)
        await asyncio.sleep(0)
        assert n < 5


def starlette_app(shop: Shop) -> Any:
    """The same routes, by hand."""

    async def pay(request: Request) -> Response:
        what = (await request.json())["what"]

        def work() -> None:
            with Session(shop.engine) as db, db.begin():
                shop.ledger.enlist(db)
                db.execute(text("INSERT INTO paid VALUES (:what)"), {"what": what})
                shop.hold()
                if what == "broken":
                    raise OSError("broken")
                if what == "too much":
                    raise PermissionError

        try:
            await asyncio.to_thread(work)
        except PermissionError:
            return JSONResponse({"detail": "too much"}, 402)
        return JSONResponse({"order": request.path_params.get("order", "")}, 201)

    async def forgets(request: Request) -> Response:
        what = (await request.json())["what"]
        with Session(shop.engine) as db:
            db.execute(text("INSERT INTO paid VALUES (:what)"), {"what": what})
            response = JSONResponse({"what": what})
            await response(request.scope, request.receive, request._send)
            db.commit()
        return Response()

    async def mail(request: Request) -> Response:
        await shop.ahold()
        shop.mails.append((await request.json())["what"])
        return JSONResponse({"what": "x"})

    async def fails(request: Request) -> Response:
        shop.mails.append((await request.json())["what"])
        raise OSError("half done")

    async def nothing(request: Request) -> Response:
        raise NoEffect

    async def stream(request: Request) -> Response:
        what = (await request.json())["what"]
        await shop.ahold()
        return StreamingResponse(_parts(shop, what), media_type="application/x")

    async def mark(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-mark"] = "1"
        return response

    handlers = {
        "/pay/{order}": pay, "/now": pay, "/forgets": forgets, "/mail": mail, "/fails": fails,
        "/nothing": nothing, "/stream": stream,
    }  # fmt: skip
    routes = [Route(path, handler, methods=["POST"]) for path, handler in handlers.items()]
    return Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=mark)])


@pytest.fixture(scope="module", params=[fastapi_app, starlette_app], ids=["fastapi", "starlette"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    app = request.param(shop)
    once = Once(app, ledger=shop.ledger, principal=who, routes=ROUTES)
    shop.place = HttpFaults(once, name="shop")
    with served(shop.place, lifespan="on") as shop.url:
        yield shop
    shop.client.close()
    shop.ledger.close()
    shop.engine.dispose()


@pytest.fixture
def shop(running: Shop) -> Iterator[Shop]:
    running.go.set()
    running.began = threading.Semaphore(0)
    running.mails.clear()
    yield running
    running.go.set()


# -------------------------------------------------------------------------------------- once, and again


@pytest.mark.parametrize("path", ["/pay/7", "/now", "/mail", "/stream"])
def test_what_is_done_is_done_once_and_told_again(shop: Shop, path: str) -> None:
    key = new_key()
    one = shop.post(path, key, what=key)
    two = shop.post(path, key, what=key)
    assert one.status_code == two.status_code
    assert one.is_success
    assert one.content == two.content
    assert (one.headers["outcome"], two.headers["outcome"]) == ("done", "done")
    assert "idempotent-replayed" not in one.headers
    assert two.headers["idempotent-replayed"] == "true"
    assert one.headers["x-mark"] == two.headers["x-mark"] == "1"
    assert one.headers["content-type"] == two.headers["content-type"]
    assert shop.effects(key) == 1


@pytest.mark.parametrize(
    ("path", "number"),
    [("/pay/7", 8), ("/pay/7", 50), ("/now", 8), ("/mail", 50), ("/stream", 8)],
)
def test_of_many_at_the_same_time_one_runs(shop: Shop, path: str, number: int) -> None:
    key = new_key()
    shop.go.clear()
    with ThreadPoolExecutor(number) as pool:
        headers = {"prefer": "wait=20"}
        told = [pool.submit(shop.post, path, key, key, headers=headers) for _ in range(number)]
        assert shop.began.acquire(timeout=20)
        refused = shop.post(path, key, what=key)
        assert (refused.status_code, refused.headers["outcome"]) == (409, "running")
        shop.go.set()
        answers = [one.result() for one in told]
    assert len({(answer.status_code, answer.content) for answer in answers}) == 1
    assert answers[0].is_success
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert shop.effects(key) == 1


def test_a_large_stream_comes_whole_and_is_kept_by_its_digest(shop: Shop) -> None:
    key = new_key()
    one, two = (shop.post("/stream", key, what="large") for _ in range(2))
    assert one.content == bytes(range(256)) * 500
    assert (two.status_code, two.content) == (200, b"")
    assert two.headers["outcome"] == "done;body=dropped"
    assert shop.mails == ["large"]


# -------------------------------------------------------------------------------------------- it fails


def test_an_atomic_handler_that_raises_is_rolled_back(shop: Shop) -> None:
    key = new_key()
    broken = shop.post("/pay/7", key, what="broken")
    assert (broken.status_code, broken.headers.get("outcome")) == (500, None)
    assert shop.paid("broken") == 0
    assert shop.outcomes().ask(key, void=True, seconds=5).standing is Standing.VOID
    assert shop.post("/pay/7", key, what="broken").status_code == 410


def test_a_no_holds_and_nothing_was_done(shop: Shop) -> None:
    key = new_key()
    one, two = (shop.post("/pay/7", key, what="too much") for _ in range(2))
    assert one.status_code == two.status_code == 402
    assert one.json() == two.json() == {"detail": "too much"}
    assert two.headers["idempotent-replayed"] == "true"
    assert shop.paid("too much") == 0


def test_a_handler_that_forgets_to_enlist_is_found_and_rolled_back(shop: Shop) -> None:
    key = new_key()
    wrong = shop.post("/forgets", key, what=key)
    assert (wrong.status_code, wrong.headers["outcome"]) == (500, "doubt")
    assert wrong.json()["type"] == "urn:brownout:problem:not-enlisted"
    assert shop.paid(key) == 0
    assert shop.post("/forgets", key, what=key).json()["type"].endswith(":in-doubt")


def test_an_opaque_handler_that_raises_is_in_doubt(shop: Shop) -> None:
    key = new_key()
    failed = shop.post("/fails", key, what=key)
    assert (failed.status_code, failed.headers["outcome"]) == (500, "doubt")
    again = shop.post("/fails", key, what=key)
    assert (again.status_code, again.headers["outcome"]) == (409, "doubt")
    assert shop.mails == [key]


def test_no_effect_is_certain_through_a_framework(shop: Shop) -> None:
    key = new_key()
    for _ in range(2):
        failed = shop.post("/nothing", key)
        assert (failed.status_code, failed.headers["outcome"]) == (503, "not-started")


# -------------------------------------------------------------------------------------- the wire fails


LOST = [
    (path, fault)
    for path in ("/pay/7", "/now", "/mail", "/stream")
    for fault in (Cut(at="reply"), Cut(at="reply", after_bytes=1), Cut(how="close", at="reply"))
]


@pytest.mark.parametrize(("path", "fault"), [*LOST, ("/pay/7", Drop(stream="downstream"))], ids=str)
def test_a_lost_answer_is_found_again(shop: Shop, path: str, fault: Any) -> None:
    key = new_key()
    with shop.place.make(fault), pytest.raises(httpx2.TransportError):
        shop.client.post(
            shop.url + path,
            headers={"idempotency-key": key, **ALICE},
            json={"what": key},
            timeout=1.0 if isinstance(fault, Drop) else 20.0,
        )
    told = shop.outcomes().ask(key, void=True, seconds=10)
    assert told.standing is Standing.DONE
    assert told.reply is not None
    again = shop.post(path, key, what=key)
    assert again.content == told.reply.body
    assert again.headers["idempotent-replayed"] == "true"
    assert shop.effects(key) == 1


@pytest.mark.parametrize("path", ["/pay/7", "/now", "/mail", "/stream"])
def test_a_call_that_the_network_doubles_is_run_once(shop: Shop, path: str) -> None:
    key = new_key()
    with shop.place.make(Duplicate(times=3)):
        assert shop.post(path, key, what=key).is_success
    assert shop.effects(key) == 1


@pytest.mark.parametrize("path", ["/pay/7", "/now", "/mail", "/stream"])
def test_a_caller_that_hangs_up_ends_nothing(shop: Shop, path: str) -> None:
    key = new_key()
    shop.go.clear()
    address = urlsplit(shop.url)
    assert address.hostname
    client = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
    body = f'{{"what": "{key}"}}'
    headers = {"idempotency-key": key, "content-type": "application/json", **ALICE}
    client.request("POST", path, body, headers)
    assert shop.began.acquire(timeout=20)
    client.close()
    shop.go.set()
    answer = shop.client.post(
        shop.url + path, headers={**headers, "prefer": "wait=20"}, content=body, timeout=20
    )
    assert answer.is_success
    assert answer.headers["idempotent-replayed"] == "true"
    assert shop.effects(key) == 1


def test_what_is_voided_while_it_waits_is_done_or_never(shop: Shop) -> None:
    """The void comes in the midst of an atomic handler's transaction: it waits for the end of that."""
    key = new_key()
    shop.go.clear()
    with ThreadPoolExecutor() as pool:
        paying = pool.submit(shop.post, "/pay/7", key, what=key)
        assert shop.began.acquire(timeout=20)
        voiding = pool.submit(shop.outcomes().ask, key, void=True, seconds=10)
        shop.go.set()
        assert paying.result().status_code == 201
        assert voiding.result().standing is Standing.DONE
    assert shop.paid(key) == 1


def test_fastapi_refuses_a_body_before_its_handler_and_the_key_stays_free(shop: Shop) -> None:
    key = new_key()
    wrong = shop.client.post(
        shop.url + "/pay/7", headers={"idempotency-key": key, **ALICE}, json=["nonsense"]
    )
    assert wrong.status_code in {422, 500}  # starlette has no models
    assert shop.post("/pay/7", key, what=key).status_code == 201
