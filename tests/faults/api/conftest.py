"""One server for all tests of the API; each begins and ends without proxies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.api.speak import Api, echo, served, target

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package")
def address() -> Iterator[str]:
    with served("--seed", "1") as (address, _):
        yield address


@pytest.fixture
def api(address: str) -> Iterator[Api]:
    api = Api(address)
    yield api
    api.forget()


@pytest.fixture(scope="package")
def upstream() -> Iterator[str]:
    with target(echo) as address:
        yield address
