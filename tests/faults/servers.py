"""Real servers in processes of their own, on free ports: what faults are made at, and callers call."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest

from tests.seen import until

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 20.0
END_SECONDS = 10.0  # after a polite word; then it is killed
WEB = """
import http.server, sys, time
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    slow = 0
    def do_GET(self):
        if self.path == "/slow":
            Answer.slow += 1
            time.sleep(30)
        self.send_response(200)
        self.send_header("slow", str(self.slow))
        self.send_header("content-length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 1000)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


class Server(NamedTuple):
    """Where it listens, and its process."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def end(process: subprocess.Popen[Any]) -> None:
    """End it, by a kill where a polite word doesn't."""
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def served(command: list[str], port: int, **how: Any) -> Iterator[Server]:
    """A program that listens on `port`, from when it does until the end of the block."""
    null = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=null, stderr=null, **how)

    def listens() -> bool:
        assert process.poll() is None, f"{command[0]} ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    try:
        until(listens, START_SECONDS)
        yield Server(port, process)
    finally:
        end(process)


@contextmanager
def web() -> Iterator[Server]:
    """Answers GET with 1000 bytes, "/slow" after half a minute; a header tells how many asked for that."""
    port = free_port()
    with served([sys.executable, "-c", WEB, str(port)], port) as server:
        yield server


@contextmanager
def redis() -> Iterator[Server]:
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with served(["redis-server", *options], port) as server:
        yield server


@contextmanager
def postgres() -> Iterator[Server]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("postgresql is not installed")
    port = free_port()
    user = "postgres" if os.getuid() == 0 else None  # it refuses root
    data = Path(tempfile.gettempdir()) / f"brownout-postgres-{port}"  # where that user may go
    how: dict[str, Any] = {"cwd": "/", "user": user, "group": user and pwd.getpwnam(user).pw_gid}
    make = [str(programs[-1] / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-N"]

    def answers() -> bool:
        try:
            psycopg.connect(f"host=127.0.0.1 port={port} user=postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        subprocess.run(make, check=True, capture_output=True, timeout=60, **how)
        command = [str(programs[-1] / "postgres"), "-D", str(data), "-p", str(port), "-F"]
        options = ["-k", str(data), "-c", "listen_addresses=127.0.0.1"]
        with served([*command, *options], port, **how) as server:
            until(answers, START_SECONDS)
            yield server
    finally:
        shutil.rmtree(data, ignore_errors=True)
