"""Real servers for the matrix: each in a folder of its own, ended at once."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import redis

from tests.ext.clients.matrix import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running(command: list[str], answers: Callable[[], bool], **how: Any) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **how)
    try:
        assert until(lambda: process.poll() is not None or answers(), 20)
        yield
    finally:
        process.send_signal(signal.SIGQUIT)  # PostgreSQL: at once, whoever is connected
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """PostgreSQL, where a session may wait for a synchronous standby that never comes."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("postgresql is not installed")
    user = "postgres" if os.getuid() == 0 else None  # it refuses root
    how: dict[str, Any] = {"cwd": "/", "user": user, "group": user and pwd.getpwnam(user).pw_gid}
    data = tempfile.mkdtemp(prefix="brownout-postgres-", dir="/tmp" if user else None)
    if user:
        shutil.chown(data, user)
    port = free_port()
    options = {
        "listen_addresses": "127.0.0.1",
        "max_connections": "200",
        "synchronous_commit": "local",
        "synchronous_standby_names": "nobody",
    }
    given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]

    def answers() -> bool:
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        make = [str(programs[-1] / "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-N"]
        subprocess.run(make, check=True, capture_output=True, **how)
        command = [str(programs[-1] / "postgres"), "-D", data, "-p", str(port), "-k", data, "-F"]
        with running([*command, *given], answers, **how):
            yield f"127.0.0.1:{port}"
    finally:
        shutil.rmtree(data, ignore_errors=True)


@pytest.fixture(scope="module")
def cache() -> Iterator[str]:
    """Redis, that keeps nothing."""
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]

    def answers() -> bool:
        try:
            with redis.Redis(port=port) as one:
                return bool(one.ping())
        except redis.RedisError:
            return False

    with running(["redis-server", *options], answers, cwd="/tmp"):
        yield f"127.0.0.1:{port}"
