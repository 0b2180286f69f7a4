"""Who is killed: a worker that runs handlers of all classes, and the world in which they have effects."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg

from brownout import errors
from brownout._core.ledger import TABLE, Event, Move, Says
from brownout.ledger import Answer, Ledger, Standing, current
from tests.ledger.servers import PostgresServer, RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HANDLERS = ["atomic", "resumable", "opaque"]
LEASE_SECONDS = 0.25
VOID_SECONDS = 0.5
PAUSE_SECONDS = 0.004
A, R, D, V = Standing.ABSENT, Standing.RUNNING, Standing.DONE, Standing.VOID
# what the table says instead, when a rule is switched off; some are not the table's
RULES: dict[str, dict[tuple[Standing, Event], Move]] = {
    "opaque-runs-once": {(R, Event.REQUEST_OVER): Move(R, Says.RUN)},
    "void-only-absent": {
        (R, Event.VOID_OVER): Move(V, Says.NEVER), (V, Event.COMPLETE): Move(V, Says.FENCED),
    },
    "kept-on-raise": {(R, Event.RAISE): Move(A, Says.KEPT)},
    "fence": {
        (R, Event.COMPLETE_LATE): Move(D, Says.KEPT), (D, Event.COMPLETE_LATE): Move(D, Says.KEPT),
    },
    "one-commit": {},
    "child-keys": {},
}  # fmt: skip
INSERT = "INSERT INTO biz VALUES ('{}')"


class Place:
    """Where it happens: the ledger, the business's table, and a file for effects outside of both."""

    def __init__(self, url: str, folder: Path, server: PostgresServer | RedisServer | None) -> None:
        self.url = url
        self.file = folder / "effects"
        self.children = folder / "children"  # of the downstream: each effect with its child key
        self.server = server
        self.without = ""
        self.handlers = HANDLERS[1:] if url.startswith("unix") else HANDLERS

    def ledger(self) -> Ledger:
        ledger = Ledger(
            self.url, scope="pay", lease_seconds=LEASE_SECONDS, lossless_failover=True
        )  # servers keep their logs
        table = {**TABLE, **RULES.get(self.without, {})}
        ledger._rules = ledger._rules._replace(table=table)
        return ledger

    @property
    def sqlite(self) -> str:
        return self.url.removeprefix("sqlite:///")

    def create(self) -> None:
        ledger = self.ledger()
        ledger.create()
        ledger.close()
        self.file.touch()
        self.children.touch()
        if self.url.startswith("sqlite"):
            with contextlib.closing(sqlite3.connect(self.sqlite)) as lite:
                lite.execute("CREATE TABLE biz (k text)")
        elif self.url.startswith("postgres"):
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute("CREATE TABLE biz (k text)")

    def restart(self) -> bool:
        """Shoot the server, and start it again."""
        if isinstance(self.server, PostgresServer):
            self.server.immediate()
        elif self.server is not None:
            self.server.shoot()
            self.server.start()
        return self.server is not None

    def effects(self) -> Counter[str]:
        """What really happened."""
        found = Counter(self.file.read_text().split())
        found.update(self.children.read_text().split()[::2])
        query = "SELECT k FROM biz"
        if self.url.startswith("sqlite"):
            with contextlib.closing(sqlite3.connect(self.sqlite)) as lite:
                found.update(name for (name,) in lite.execute(query))
        elif self.url.startswith("postgres"):
            with psycopg.connect(self.url) as connection:
                found.update(name for (name,) in connection.execute(query))
        return found


class Work:
    """What a worker does, in its own process."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.ledger = place.ledger()
        self.runs = 0
        self.effects = os.open(place.file, os.O_WRONLY | os.O_APPEND)
        self.charges = os.open(place.children, os.O_WRONLY | os.O_APPEND)
        self.lock = os.open(place.file, os.O_RDONLY)
        if "atomic" in place.handlers:
            self.atomic = self.ledger.once("atomic")(self._atomic)
            self.aatomic = self.ledger.once("atomic")(self._aatomic)
        self.resumable = self.ledger.once("resumable")(self._resumable)
        self.opaque = self.ledger.once("opaque")(self._opaque)
        self.aresumable = self.ledger.once("resumable")(self._aresumable)
        self.aopaque = self.ledger.once("opaque")(self._aopaque)

    def value(self) -> str:
        """Another one for each run: two runs that answer are found out."""
        self.runs += 1
        return f"{os.getpid()}-{self.runs}"

    # ------------------------------------------------------------------------------------ handlers

    def _atomic(self, key: str) -> str:
        if self.place.url.startswith("sqlite"):
            with contextlib.closing(sqlite3.connect(self.place.sqlite)) as lite, lite:
                if self.place.without == "one-commit":
                    lite.execute(INSERT.format(key))
                    lite.commit()
                    pause()
                    self.ledger.enlist(lite)
                    return self.value()
                self.ledger.enlist(lite)
                pause()
                lite.execute(INSERT.format(key))
        else:
            with psycopg.connect(self.place.url) as connection:
                self.ledger.enlist(connection)
                pause()
                connection.execute(INSERT.format(key))
        return self.value()

    async def _aatomic(self, key: str) -> str:
        if self.place.url.startswith("sqlite"):
            return self._atomic(key)
        async with await psycopg.AsyncConnection.connect(self.place.url) as connection:
            waiting = self.ledger.enlist(connection)
            assert waiting is not None
            await waiting
            pause()
            await connection.execute(INSERT.format(key))
        return self.value()

    def _resumable(self, key: str) -> str:
        claim = current.get()
        assert claim is not None
        pause()
        child = claim.child("charge")
        self.downstream(self.value() if self.place.without == "child-keys" else child, key)
        pause()
        return self.value()

    async def _aresumable(self, key: str) -> str:
        return self._resumable(key)

    def downstream(self, child: str, key: str) -> None:
        """Somebody else's service, which knows keys: each has one effect.

        The effect and what it is known by are one write: a kill between two would make it a liar.
        """
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        try:
            if child not in self.place.children.read_text().split():
                os.write(self.charges, f"{key} {child}\n".encode())
        finally:
            fcntl.flock(self.lock, fcntl.LOCK_UN)

    def _opaque(self, key: str) -> str:
        if random.random() < 0.1:
            raise errors.NoEffect
        pause()
        os.write(self.effects, f"{key}\n".encode())
        if random.random() < 0.1:
            raise KeyError(key)
        pause()
        return self.value()

    async def _aopaque(self, key: str) -> str:
        return self._opaque(key)

    # -------------------------------------------------------------------------------------- asking

    def serve(self, how: str, key: str, handler: str) -> tuple[str, str]:
        with meaning() as said:
            if how == "do":
                return "ok", getattr(self, handler)(key)
            return told(self.ledger.ask(key, void=how == "void", seconds=VOID_SECONDS))
        return said[0], ""

    async def aserve(self, how: str, key: str, handler: str) -> tuple[str, str]:
        with meaning() as said:
            if how == "do":
                return "ok", await getattr(self, f"a{handler}")(key)
            return told(await self.ledger.aask(key, void=how == "void", seconds=VOID_SECONDS))
        return said[0], ""


def pause() -> None:
    time.sleep(random.random() * PAUSE_SECONDS)


def told(answer: Answer) -> tuple[str, str]:
    if answer.standing is Standing.DONE:
        return "ok", "" if answer.reply is None else answer.reply.body.decode().strip('"')
    return answer.standing.value, ""


@contextlib.contextmanager
def meaning() -> Iterator[list[str]]:
    """What an exception tells the caller."""
    said: list[str] = []
    try:
        yield said
    except errors.Voided:
        said.append("void")
    except errors.StillRunning:
        said.append("running")
    except errors.InDoubt:
        said.append("doubt")
    except errors.ReplyLost:
        said.append("ok")
    except errors.LedgerUnavailable:
        said.append("unavailable")
    except (errors.NoEffect, KeyError, psycopg.Error, sqlite3.Error) as error:
        said.append(type(error).__name__)


class Worker:
    """A forked worker; what was imported before, it has."""

    def __init__(self, place: Place, *, asynchronous: bool) -> None:
        asks, self._asks = os.pipe()
        self.said, says = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _work(place, asks, says, asynchronous=asynchronous)
        os.close(asks)
        os.close(says)
        os.set_blocking(self.said, False)
        self.ready = False
        self.asked: tuple[str, float] | None = None
        self.dies_at = self.stops_at = self._goes_on_at = 0.0
        self._gone = False
        self._text = ""

    def ask(self, how: str, key: str, handler: str) -> None:
        self.asked = key, time.monotonic()
        with contextlib.suppress(OSError):
            os.write(self._asks, f"{how} {key} {handler}\n".encode())

    def answers(self) -> list[tuple[str, float, str, str]]:
        """The answer to what was asked: key, when that was, what it says, and the value."""
        with contextlib.suppress(OSError):
            self._text += os.read(self.said, 65_536).decode()
        *lines, self._text = self._text.split("\n")
        found = []
        for line in lines:
            if line == "ready":
                self.ready = True
            elif self.asked is not None:
                says, _, value = line.partition(" ")
                found.append((*self.asked, says, value))
                self.asked = None
        return found

    def alive(self) -> bool:
        if self._goes_on_at and time.monotonic() > self._goes_on_at:
            os.kill(self.pid, signal.SIGCONT)
            self._goes_on_at = 0.0
        if not self._gone:
            self._gone = os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return not self._gone

    def stop(self, seconds: float) -> None:
        """As a long collection of garbage does, or a machine that is moved."""
        self.stops_at = 0.0
        if self.alive():
            os.kill(self.pid, signal.SIGSTOP)
            self._goes_on_at = time.monotonic() + seconds

    def kill(self) -> None:
        self.dies_at = 0.0
        if not self._gone:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._gone = True
        for pipe in (self._asks, self.said):
            with contextlib.suppress(OSError):
                os.close(pipe)


def _work(place: Place, asks: int, says: int, *, asynchronous: bool) -> NoReturn:
    """Serve until killed."""
    try:
        random.seed()
        work = Work(place)
        serve: Any = work.serve
        if asynchronous:
            runner = asyncio.Runner()

            def serve(*what: str) -> tuple[str, str]:
                return runner.run(work.aserve(*what))

        os.write(says, b"ready\n")
        with os.fdopen(asks) as lines:
            for line in lines:
                answer = " ".join(serve(*line.split()))
                os.write(says, f"{answer}\n".encode())
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    raise AssertionError
