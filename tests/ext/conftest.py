"""The kinds of client, and a server, for every test of an adapter."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trustme

from tests.ext.client import KINDS
from tests.ext.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0].__name__}-{'async' * kind[1] or 'sync'}")
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    try:
        yield one
    finally:
        one.close()


class Tls(NamedTuple):
    """What a server and its clients need to trust each other."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="session")
def tls() -> Tls:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    server.set_alpn_protocols(["h2", "http/1.1"])
    server.num_tickets = 0  # unread, they make of every close a reset
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Tls(server, client)
