"""The maker of a pair is killed: its servers, its folders and its records go within seconds."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from brownout.fault import record as records
from brownout.fault import watchdog
from brownout.fault.process.subject import every
from tests.faults.replica.conftest import needs_postgres, needs_redis
from tests.seen import within

if TYPE_CHECKING:
    from collections.abc import Iterator

MAKER = """
import sys, time
from brownout.fault import CutStreaming, FreezeReceiver, PostgresPair, RedisPair
pair = {"postgres": PostgresPair, "redis": RedisPair}[sys.argv[1]]()
made = pair.make(FreezeReceiver())
print("made", flush=True)
time.sleep(60)
"""


@pytest.fixture
def place() -> Iterator[str]:
    """A folder for temporary folders, which another user can pass through."""
    with tempfile.TemporaryDirectory(prefix="brownout-test-") as folder:
        os.chmod(folder, 0o711)
        yield folder


def maker(system: str, place: str, kill_at: str = "") -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "TMPDIR": place,
        "BROWNOUT_FAULTS": f"{place}/faults",
        "BROWNOUT_FAULTS_KILL_AT": kill_at,
    }
    command = [sys.executable, "-c", MAKER, system]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def servers(place: str) -> set[int]:
    """Of all processes those that work in it, whatever they are called."""
    found: set[int] = set()
    for stat in every():
        with suppress(OSError):
            if os.readlink(f"/proc/{stat.pid}/cwd").startswith(f"{place}/brownout-"):
                found.add(stat.pid)
    return found


def left(place: str) -> list[str]:
    """Folders, records and servers."""
    folders = [name for name in os.listdir(place) if name != "faults"]
    on_record = [each.fault for each in records.read(f"{place}/faults").records]
    return [*folders, *on_record, *map(str, servers(place))]


@pytest.mark.parametrize("moment", ["in force", "recorded", "watched", "made"])
@pytest.mark.parametrize("system", ["postgres", "redis"])
def test_nothing_is_left(system: str, moment: str, place: str) -> None:
    {"postgres": needs_postgres, "redis": needs_redis}[system]()
    process = maker(system, place, "" if moment == "in force" else moment)
    assert process.stdout is not None
    try:
        if moment == "in force":
            assert process.stdout.readline() == "made\n"
            assert len(servers(place)) >= 2
            assert len(records.read(f"{place}/faults").records) >= 2
            process.kill()
        assert process.wait(30) == -signal.SIGKILL
        if moment == "recorded":  # before there was a watchdog: the next one does it
            assert left(place)
            watchdog.ensure(f"{place}/faults")
        assert within(lambda: not left(place)), left(place)
    finally:
        process.kill()
        process.stdout.close()


def test_one_who_dies_in_the_midst_of_making_it(place: str) -> None:
    """At any moment: while the template is made, copied, and while servers start."""
    needs_postgres()
    seen: set[int] = set()
    whole = 30.0
    for part in (1.0, 0.3, 0.6, 0.7, 0.8, 0.9):  # of as long as the first takes, here and now
        began = time.monotonic()
        process = maker("postgres", place)
        assert process.stdout is not None
        with process.stdout:
            made, _, _ = select.select([process.stdout], [], [], part * whole)
            if part == 1.0:
                assert made
                whole = time.monotonic() - began
            process.kill()
            process.wait(10)
        seen |= servers(place)
    assert seen
    assert within(lambda: not left(place)), left(place)
