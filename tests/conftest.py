"""Every test begins with no target, no listener and the real clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from brownout import _guard, _watch
from brownout._drive.clock import clock as the_clock
from brownout.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    _watch.stop()
    _guard._registry.clear()
    _guard._crowd._parts.clear()
    _guard._crowd._own.clear()
    the_clock.reset()


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with FakeClock() as fake:
        yield fake
