"""Stores in trouble: it is certain that nothing was started, and said what to do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from brownout._core.ledger import minted
from brownout.errors import ConfigurationError, InDoubt, LedgerUnavailable, WrongSchema
from brownout.fault import Disk, Full
from brownout.fault.disk.serving import unfit
from brownout.ledger import Claim, Found, Ledger, Reply, Standing
from brownout.ledger import postgres as by_postgres
from tests.ledger.conftest import key, postgres_url, redis_url
from tests.ledger.servers import PostgresServer, RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

REPLY = Reply(201)


def new() -> str:
    return key(time.time())


def claimed(ledger: Ledger, name: str, handler: str = "opaque") -> Claim:
    claim = ledger.claim(name, b"", handler)
    assert isinstance(claim, Claim)
    return claim


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def lite(path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{path}")
    ledger.create()
    yield ledger
    ledger.close()


# ----------------------------------------------------------------------------------------- sqlite


def test_a_file_of_its_own_is_for_this_user_only(lite: Ledger, path: Path) -> None:
    claimed(lite, new())
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == dict.fromkeys(("ledger.db", "ledger.db-wal", "ledger.db-shm"), 0o600)


def test_the_mode_of_a_business_file_is_the_businesss(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE biz (k text)")
    path.chmod(0o640)
    ledger = Ledger(f"sqlite:///{path}")
    ledger.create()
    ledger.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_without_its_tables(path: Path) -> None:
    ledger = Ledger(f"sqlite:///{path}")
    with pytest.raises(WrongSchema, match="there is no ledger"):
        ledger.claim(new(), b"", "opaque")
    assert not path.exists()
    sqlite3.connect(path).execute("CREATE TABLE biz (k text)").connection.close()
    with pytest.raises(WrongSchema, match="no ledger's tables"):
        ledger.claim(new(), b"", "opaque")
    ledger.create()
    claimed(ledger, new())
    ledger.close()


def test_a_file_that_was_replaced_is_not_taken_for_the_old_one(lite: Ledger, path: Path) -> None:
    claimed(lite, new())
    for each in [*path.parent.iterdir()]:
        each.unlink()
    with pytest.raises(WrongSchema):
        lite.claim(new(), b"", "opaque")


def test_no_file_of_a_database(path: Path) -> None:
    path.write_text("not a database, and it is long enough to be looked at" * 10)
    ledger = Ledger(f"sqlite:///{path}")
    with pytest.raises(LedgerUnavailable, match="another path"):
        ledger.create()
    path.unlink()
    path.mkdir()
    with pytest.raises(LedgerUnavailable, match="Is a directory"):
        ledger.create()


def test_read_only() -> None:
    folder = Path(tempfile.mkdtemp(prefix="brownout-ledger-"))
    try:
        ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
        ledger.create()
        name = new()
        ledger.complete(claimed(ledger, name), REPLY)
        ledger.close()
        (folder / "ledger.db").chmod(0o444)
        folder.chmod(0o555)
        with nobody(), pytest.raises(LedgerUnavailable, match="writable for this user") as caught:
            ledger.claim(new(), b"", "opaque")
        assert caught.value.not_started
        ledger.close()
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Root may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_on_a_full_disk(tmp_path: Path) -> None:
    if problem := unfit():
        pytest.skip(f"no file system can be mounted here: {problem}")
    folder = tmp_path / "data"
    folder.mkdir()
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
    with Disk(folder) as disk:
        ledger.create()
        running = claimed(ledger, new())
        name = new()
        with disk.make(Full()):
            with pytest.raises(LedgerUnavailable, match="make room") as caught:
                ledger.claim(name, b"", "opaque")
            assert caught.value.not_started
            with pytest.raises(LedgerUnavailable) as told:
                ledger.complete(running, REPLY)
            assert not told.value.not_started
            assert (
                ledger.ask(running.key, void=False).standing is Standing.RUNNING
            )  # it can be read
        assert ledger.complete(running, REPLY) == REPLY
        claimed(ledger, name)
        ledger.close()


def test_a_writer_who_does_not_let_go(
    lite: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = claimed(lite, new())
    lite.complete(done, REPLY)
    lite.close()
    monkeypatch.setattr("brownout.ledger.sqlite.BUSY_SECONDS", 0.05)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailable, match="held it for too long") as caught:
            lite.claim(new(), b"", "opaque")
        assert caught.value.not_started
        # what only reads waits for nobody
        assert lite.ask(done.key, void=True).reply == REPLY
        assert lite.ask(new(), void=False).standing is Standing.ABSENT
        assert isinstance(lite.claim(done.key, b"", "opaque"), Found)
        assert asyncio.run(lite.aclaim(new(), b"", "atomic")).handler.value == "atomic"  # type: ignore[union-attr]
        began = time.monotonic()
        monkeypatch.undo()
        with pytest.raises(LedgerUnavailable, match="held it for too long"):
            lite.ask(new(), void=True, seconds=0.1)
        with pytest.raises(LedgerUnavailable, match="held it for too long"):
            asyncio.run(lite.aask(new(), void=True, seconds=0.1))
        assert time.monotonic() - began < 3
        other.execute("ROLLBACK")
    claimed(lite, new())


def test_a_fork_while_threads_are_at_work(lite: Ledger) -> None:
    """Parent and child go on, each with a connection of its own."""
    claimed(lite, new())
    before = len(lite.rows())
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            try:
                for _ in range(20):
                    lite.complete(claimed(lite, new()), REPLY)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    for _ in range(20):
        lite.complete(claimed(lite, new()), REPLY)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
    assert len(lite.rows()) == before + 80


# ---------------------------------------------------------------------------------------- servers


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def any_url(request: pytest.FixtureRequest, path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{path}"
    if request.param == "postgres":
        return postgres_url(request.getfixturevalue("postgres"))
    return redis_url(request.getfixturevalue("redis_server"))


def test_a_later_schema_is_left_alone(any_url: str) -> None:
    ledger = Ledger(any_url)
    ledger.create()
    ledger.create()
    claimed(ledger, new())
    ledger.close()
    if any_url.startswith("unix"):
        import redis

        with redis.Redis.from_url(any_url) as client:
            client.hset("brownout:{ledger}:about", "version", 2)
    elif any_url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(any_url.removeprefix("sqlite:///"))) as lite:
            lite.execute("UPDATE brownout_ledger_about SET version = 2")
            lite.commit()
    else:
        import psycopg

        with psycopg.connect(any_url, autocommit=True) as server:
            server.execute("UPDATE brownout_ledger_about SET version = 2")
    for attempt in (ledger.create, lambda: ledger.claim(new(), b"", "opaque")):
        with pytest.raises(WrongSchema, match="has schema 2, this brownout works with 1; upgrade"):
            attempt()
    ledger.close()


@pytest.mark.parametrize("kind", [PostgresServer, RedisServer])
def test_a_server_that_is_shot_and_comes_back(
    kind: type[PostgresServer | RedisServer],
) -> None:
    with kind() as server:
        ledger = Ledger(server.url, lossless_failover=True)  # it keeps its log
        ledger.create()
        running = claimed(ledger, new())
        done = claimed(ledger, new())
        ledger.complete(done, REPLY)
        server.shoot(signal.SIGQUIT if kind is PostgresServer else signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(LedgerUnavailable, match="can't be used") as caught:
                ledger.claim(new(), b"", "opaque")
            assert caught.value.not_started
            with pytest.raises(LedgerUnavailable) as told:
                ledger.complete(running, REPLY)
            assert (told.value.not_started, told.value.key) == (False, running.key)
            with pytest.raises(LedgerUnavailable):
                asyncio.run(ledger.aask(done.key, void=True))
        server.start()
        assert ledger.ask(done.key, void=True).reply == REPLY
        assert ledger.complete(running, REPLY) == REPLY
        claimed(ledger, new())
        ledger.close()


def test_connections_that_broke_while_nobody_used_them_cost_no_caller_anything(
    postgres: PostgresServer,
) -> None:
    ledger = Ledger(postgres_url(postgres))
    ledger.create()
    claim = claimed(ledger, new())
    postgres.immediate()
    assert ledger.complete(claim, REPLY) == REPLY
    ledger.close()


def test_a_server_that_says_nothing(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    monkeypatch.setattr(by_postgres, "ANSWER_SECONDS", 0.3)
    ledger = Ledger(postgres_url(postgres))
    ledger.create()
    claimed(ledger, new())
    with psycopg.connect(postgres.url) as connection:
        found = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE '%brownout_ledger%' AND pid <>"
            " pg_backend_pid()"
        ).fetchall()
    pids = [pid for (pid,) in found]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(LedgerUnavailable, match="said nothing"):
            ledger.claim(new(), b"", "opaque")
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    claimed(ledger, new())
    ledger.close()


def test_after_a_failover_what_is_older_is_in_doubt(postgres: PostgresServer) -> None:
    """As a standby's promotion does it: another timeline than the one that is on record."""
    import psycopg

    ledger = Ledger(postgres_url(postgres))
    ledger.create()
    done = claimed(ledger, new())
    ledger.complete(done, REPLY)
    atomic = claimed(ledger, new(), "atomic")
    old = [minted(int(time.time() * 1000) - 1000, os.urandom(10)) for _ in range(3)]
    with psycopg.connect(postgres.url) as connection:
        connection.execute("UPDATE brownout_ledger_about SET epoch = '00000000'")
        connection.commit()
        with ledger.running(atomic), pytest.raises(Exception, match="failed over"):
            ledger.enlist(connection)
    ledger.close()
    assert ledger.ask(old[0], void=False).standing is Standing.ABSENT
    answer = ledger.ask(old[0], void=True)
    assert (answer.standing, answer.fact) == (Standing.DOUBT, False)
    assert "failed over" in answer.because
    for name, handler in zip(old[1:], ("opaque", "resumable"), strict=True):
        found = ledger.claim(name, b"", handler)
        assert isinstance(found, Found)
        assert found.standing is Standing.DOUBT
    assert ledger.ask(done.key, void=True).reply == REPLY  # what is there is a fact
    time.sleep(0.002)
    fresh = new()
    claimed(ledger, fresh)
    trusting = Ledger(postgres.url, scope="other", lossless_failover=True)
    assert trusting.ask(old[0], void=True).standing is Standing.VOID
    ledger.close()
    trusting.close()


def test_redis_that_has_lost_everything(redis_server: RedisServer) -> None:
    import redis

    ledger = Ledger(redis_url(redis_server))
    ledger.create()
    time.sleep(0.002)
    claim = claimed(ledger, new())
    old = new()
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    time.sleep(0.002)
    assert ledger.ask(old, void=True).standing is Standing.DOUBT
    with pytest.raises(InDoubt):
        ledger.complete(claim, REPLY)
    claimed(ledger, new())


def test_redis_ends_rows_by_its_ttl_and_never_earlier(redis_server: RedisServer) -> None:
    import redis

    ledger = Ledger(redis_url(redis_server), horizon_seconds=100, margin_seconds=10)
    ledger.create()
    time.sleep(0.002)
    with redis.Redis.from_url(redis_server.url) as client:

        def ttl(name: str) -> float:
            return float(client.pttl(f"brownout:{{ledger}}:{name}:")) / 1000

        claim = claimed(ledger, new())
        assert ttl(claim.key) < 0  # it runs: for as long as it takes
        ledger.complete(claim, REPLY)
        assert 100 < ttl(claim.key) <= 110
        client.pexpire(f"brownout:{{ledger}}:{claim.key}:", 500_000)
        ledger.complete(claim, REPLY)
        assert ttl(claim.key) > 400
        stone = new()
        ledger.ask(stone, void=True)
        assert 100 < ttl(stone) <= 110
        ledger.doubt(other := claimed(ledger, new()))
        assert ttl(other.key) < 0


def test_redis_that_evicts_is_refused() -> None:
    with (
        RedisServer("--maxmemory-policy", "allkeys-lru") as server,
        pytest.raises(ConfigurationError, match="noeviction"),
    ):
        Ledger(server.url).create()


# ------------------------------------------------------------------------------------------ callers


def test_a_claim_that_is_cancelled_is_given_back(any_url: str) -> None:
    ledger = Ledger(any_url)
    ledger.create()
    time.sleep(0.002)
    name = new()

    async def main() -> Claim | Found:
        for _ in range(20):
            task = asyncio.ensure_future(ledger.aclaim(name, b"", "opaque"))
            await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        end = time.monotonic() + 5
        while True:
            found = await ledger.aclaim(name, b"", "opaque")
            if isinstance(found, Claim) or time.monotonic() > end:
                return found
            assert found.standing is Standing.RUNNING
            await asyncio.sleep(0.01)

    assert isinstance(asyncio.run(main()), Claim)
    ledger.close()


def test_a_heartbeat_keeps_what_runs_for_longer_than_its_lease(any_url: str) -> None:
    ledger = Ledger(any_url, lease_seconds=0.15)
    ledger.create()
    time.sleep(0.002)
    slow, dead = claimed(ledger, new()), claimed(ledger, new())
    with ledger.running(slow):
        time.sleep(0.5)
        assert ledger.ask(slow.key, void=True).standing is Standing.RUNNING
        assert ledger.ask(dead.key, void=True).standing is Standing.DOUBT
    assert ledger.complete(slow, REPLY) == REPLY
    ledger.close()


def test_a_paused_owner_comes_back_after_its_successor(any_url: str) -> None:
    ledger = Ledger(any_url, lease_seconds=0.05)
    ledger.create()
    time.sleep(0.002)
    name = new()
    paused = claimed(ledger, name, "resumable")
    time.sleep(0.1)
    successor = claimed(ledger, name, "resumable")
    assert ledger.complete(successor, REPLY) == REPLY
    assert ledger.complete(paused, Reply(500)) == REPLY
    assert not ledger.renew(paused)
    ledger.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://x", "give sqlite:///path"),
        ("sqlite://x", "sqlite:///relative/path"),
        ("sqlite:///", "sqlite:///relative/path"),
        ("unix", "no URL of a Redis"),
        ("", "give sqlite:///path"),
    ],
)
def test_urls_that_name_no_ledger(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Ledger(url)


def test_numbers_that_make_no_ledger() -> None:
    with pytest.raises(ConfigurationError, match=r"horizon_seconds.*lease_seconds"):
        Ledger("memory:", horizon_seconds=0, lease_seconds=float("inf"))
    with pytest.raises(ConfigurationError, match="at most 32 bytes"):
        Ledger("memory:").claim(new(), b"x" * 33, "opaque")
    with pytest.raises(ConfigurationError, match="no class of handlers"):
        Ledger("memory:").once("exactly")
    with pytest.raises(ConfigurationError, match="no transaction can take in"):
        Ledger("memory:").once("atomic")
