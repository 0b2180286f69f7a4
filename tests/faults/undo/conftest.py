"""A process to make faults at."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from brownout.fault.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def process() -> Iterator[Identity]:
    with subprocess.Popen(["sleep", "60"]) as started:
        try:
            yield Identity.of(started.pid)
        finally:
            started.kill()
