"""Zones with a server in one of them, and workers that call it from two others."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from brownout.errors import FaultRefused
from brownout.fault import Zones
from tests.faults.zone import caller
from tests.seen import within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brownout.fault.zone.worker import Worker

SERVER = Path(__file__).with_name("server.py")
WAIT_SECONDS = 10.0


class Ground(NamedTuple):
    zones: Zones
    a: Worker
    b: Worker
    host: str

    def counted(self) -> int:
        """How often "incr" was executed: asked of the server in its own zone."""
        return int(self.b.run(caller.on_new, "raw", self.host).removeprefix("ok "))


def serve(zones: Zones, name: str) -> str:
    zone = zones[name]
    command = [sys.executable, "-S", str(SERVER), zone.address]
    server = zone.popen(command, stdout=subprocess.PIPE)
    assert server.stdout is not None
    with server.stdout as said:
        assert said.readline() == b"ready\n"
    return zone.address


@pytest.fixture(scope="session")
def _allowed() -> None:
    try:
        with Zones("trial"):
            pass
    except FaultRefused as refused:
        pytest.skip(str(refused))


@pytest.fixture(scope="module")
def ground(_allowed: None) -> Iterator[Ground]:
    with Zones("a", "b", "shared", seed=7) as zones:
        host = serve(zones, "shared")
        with zones["a"].worker() as a, zones["b"].worker() as b:
            yield Ground(zones, a, b, host)


@pytest.fixture(scope="module")
def cache(ground: Ground) -> str:
    """Redis in the shared zone."""
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    options = ["--bind", ground.host, "--port", str(caller.CACHE), "--protected-mode", "no"]
    ground.zones["shared"].popen(
        ["redis-server", *options, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
    )
    assert within(lambda: ground.b.run(caller.reach, ground.host, caller.CACHE) == "ok None")
    return ground.host
