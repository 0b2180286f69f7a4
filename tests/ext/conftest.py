"""The kinds of client, and a server, for every test of an adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

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
