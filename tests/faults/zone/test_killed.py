"""Whoever is killed, nothing is left: no process, no router, no record; the namespaces go with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from brownout.errors import FaultRefused
from brownout.fault import Partition, Zones
from tests.seen import within

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.alone

# A process in a zone, which has a child, and one that is stopped; then it waits to be killed.
MAKER = """
    import subprocess, sys, time
    from brownout.fault import Partition, Zones
    with Zones("a", "b") as zones:
        code = "import os, time; os.fork(); os.write(1, b'%d\\\\n' % os.getpid()); time.sleep(60)"
        pipe = {"stdout": subprocess.PIPE, "text": True}
        parent = zones["a"].popen([sys.executable, "-S", "-c", code], **pipe)
        pids = [parent.stdout.readline().strip() for _ in range(2)]
        stopped = zones["b"].popen(["sleep", "60"])
        stopped.send_signal(19)
        made = zones.between("a", "b").make(Partition())
        print(zones._holder.identity.pid, *pids, stopped.pid, flush=True)
        time.sleep(60)
"""


def lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def records() -> list[str]:
    return [name for name in os.listdir(os.environ["BROWNOUT_FAULTS"]) if name.endswith(".json")]


@contextmanager
def maker() -> Iterator[tuple[subprocess.Popen[str], int, list[int]]]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(MAKER)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        router, *residents = map(int, process.stdout.readline().split())
        assert len(residents) == 3
        assert all(map(lives, [router, *residents]))
        assert len(records()) == 2
        yield process, router, residents
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


@pytest.mark.usefixtures("_allowed")
def test_the_maker_is_killed() -> None:
    with maker() as (process, router, residents):
        process.kill()
        assert within(lambda: not any(map(lives, [router, *residents])))
        assert within(lambda: not records())


@pytest.mark.usefixtures("_allowed")
def test_the_maker_and_the_router_are_killed() -> None:
    """Only the watchdog is left to end what is in the zones."""
    with maker() as (process, router, residents):
        os.kill(router, signal.SIGSTOP)  # it sees nothing of its maker's death
        process.kill()
        os.kill(router, signal.SIGKILL)
        assert within(lambda: not any(map(lives, [router, *residents])))
        assert within(lambda: not records())


@pytest.mark.usefixtures("_allowed")
def test_the_router_is_killed() -> None:
    with Zones("a", "b") as zones:
        process = zones["a"].popen(["sleep", "60"])
        made = zones.between("a", "b").make(Partition())
        assert zones._holder
        os.kill(zones._holder.identity.pid, signal.SIGKILL)
        assert within(lambda: not zones._holder.alive)  # type: ignore[union-attr]
        with pytest.raises(FaultRefused, match=r"the zones' router .* has died"):
            zones.between("a", "b").make(Partition())
        with pytest.raises(FaultRefused, match="is not started in zone b: "):
            zones["b"].popen(["sleep", "60"])
        made.undo()  # with the router all faults are gone
        assert process.poll() is None
    assert process.returncode == -signal.SIGTERM
    assert not records()


@pytest.mark.usefixtures("_allowed")
def test_a_router_that_hangs_is_killed() -> None:
    with Zones("a", "b") as zones:
        process = zones["a"].popen(["sleep", "60"])
        made = zones.between("a", "b").make(Partition())
        assert zones._holder
        zones._holder._control.settimeout(0.3)
        router = zones._holder.identity.pid
        os.kill(router, signal.SIGSTOP)
    assert not lives(router)
    assert not made.active
    assert not records()
    assert process.returncode == -signal.SIGTERM


@pytest.mark.usefixtures("_allowed")
def test_zones_end_in_time_by_themselves() -> None:
    with Zones("a", seconds=0.5) as zones:
        process = zones["a"].popen(["sleep", "60"])
        assert process.wait(10) == -signal.SIGTERM
        assert within(lambda: not records())
