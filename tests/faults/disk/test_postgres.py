"""PostgreSQL on a dying disk: one range of one table hangs, and the rest of the database is well."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from brownout.fault import Disk, Hang

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 20_000


@pytest.fixture
def database(fuse: None) -> Iterator[tuple[Disk, int]]:
    """A server whose whole folder is shadowed, run by a user without rights."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("postgresql is not installed")
    user = pwd.getpwnam("postgres")
    how: dict[str, Any] = {"cwd": "/", "user": user.pw_uid, "group": user.pw_gid}
    with tempfile.TemporaryDirectory(prefix="brownout-postgres-", dir="/tmp") as home:
        os.chown(home, user.pw_uid, user.pw_gid)
        data = Path(home, "data")
        data.mkdir()
        os.chown(data, user.pw_uid, user.pw_gid)
        with Disk(data) as disk, socket.socket() as sock:
            make = [
                str(programs[-1] / "initdb"),
                "-D",
                str(data),
                "-U",
                "postgres",
                "-A",
                "trust",
                "-N",
            ]
            subprocess.run(make, check=True, capture_output=True, timeout=50, **how)
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
            sock.close()
            options = ["-F", "-k", str(data), "-c", "listen_addresses=127.0.0.1"]
            options += ["-c", "shared_buffers=1MB", "-c", "autovacuum=off"]
            server = subprocess.Popen(
                [programs[-1] / "postgres", "-D", data, "-p", str(port), *options],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                **how,
            )
            try:
                yield disk, port
            finally:
                server.send_signal(signal.SIGQUIT)
                try:
                    server.wait(20)
                except subprocess.TimeoutExpired:
                    server.kill()
                    server.wait()
                    raise
        shutil.rmtree(data, ignore_errors=True)


def connect(port: int) -> psycopg.Connection[Any]:
    end = time.monotonic() + 20
    while True:
        try:
            return psycopg.connect(f"host=127.0.0.1 port={port} user=postgres", autocommit=True)
        except psycopg.OperationalError:
            assert time.monotonic() < end, "PostgreSQL does not answer"
            time.sleep(0.05)


@pytest.mark.timeout(120)
def test_one_table_on_a_dying_disk(database: tuple[Disk, int]) -> None:
    disk, port = database
    with connect(port) as db:
        db.execute("create table t (id int primary key, text text)")
        db.execute(
            "insert into t select n, repeat(n::text, 100) from generate_series(1, %s) n", [ROWS]
        )
        db.execute("create table other (id int)")
        db.execute("checkpoint")
        row = db.execute("select pg_relation_filepath('t')").fetchone()
        assert row
        table = str(row[0])
        fault = Hang(seconds=1, match=f"{table}$", bytes_from=800 * 8192, bytes_to=802 * 8192)
        lost = "select min(id) from t where ctid >= '(800,0)' and ctid < '(801,0)'"
        row = db.execute(lost).fetchone()
        assert row
        bad = row[0]
        # By the index, through all 128 buffers, so that the bad row is in none of them any more.
        db.execute("set enable_seqscan=off")
        db.execute("set enable_bitmapscan=off")
        db.execute("select sum(length(text)) from t where id < 10000")
        with disk.make(fault) as made:
            db.execute("set statement_timeout = '200ms'")
            began = time.monotonic()
            with pytest.raises(
                psycopg.Error, match=r"could not read block 800.*Input/output error"
            ):
                db.execute("select * from t where id=%s", [bad])
            assert time.monotonic() - began >= 1  # its time-out does not end it
            assert db.execute("select id from t where id=5").fetchone() == (5,)
            db.execute("insert into other values (1)")  # writes succeed, and so does a health check
            assert db.execute("select 1").fetchone() == (1,)
            assert [each.what for each in made.log] == [f"hung read {table}"]
        assert db.execute("select id from t where id=%s", [bad]).fetchone() == (bad,)
