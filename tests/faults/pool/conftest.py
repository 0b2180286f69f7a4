"""Pools of real libraries, each with room for three."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from brownout.fault import PostgresPair
from brownout.fault.replica.postgres import forget_template
from tests.faults.replica.conftest import needs_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A connection string."""
    needs_postgres()
    with PostgresPair() as pair:
        yield pair.primary.dsn
    forget_template()


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with subprocess.Popen([sys.executable, "-c", SERVER, str(port)]) as server:
        try:
            end = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert time.monotonic() < end
                    time.sleep(0.02)
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.kill()
