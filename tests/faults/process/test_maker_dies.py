"""The maker is killed, and the watchdog, another process, replays the undo within 2 s."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from brownout.fault.process.subject import look
from tests.seen import within

if TYPE_CHECKING:
    from tests.faults.process.conftest import Victim

MAKER = """
    import sys, time
    from brownout.fault import *
    from brownout.fault.process import place, stop, neighbour
    if sys.argv[3] == "weaker":
        place.freeze = stop.stop_tree
        place.starve = lambda subject, fault: neighbour.crowd(subject, fault, "it was asked for")
    made = Process(int(sys.argv[1])).make(eval(sys.argv[2]))
    print(*[step.details["pid"] for step in made.steps if step.verb == "terminate"], flush=True)
    time.sleep(60)
"""


def condition(pid: int) -> tuple[object, ...]:
    """All of a process that our faults change."""
    stat = look(pid)
    assert stat
    with open(f"/proc/{pid}/cgroup") as groups:
        home = groups.read()
    limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    return stat.stopped, home, limit, os.sched_getaffinity(pid)


def records_left() -> list[str]:
    return [name for name in os.listdir(os.environ["BROWNOUT_FAULTS"]) if name.endswith(".json")]


@pytest.mark.parametrize(
    ("fault", "way"),
    [
        ("Pause()", ""),
        ("Freeze()", ""),
        ("Freeze()", "weaker"),
        ("Starve(cpu_share=0.5)", ""),
        ("Starve(cpu_share=0.5)", "weaker"),
        ("ExhaustFiles()", ""),
    ],
)
def test_the_undo_is_replayed(fault: str, way: str, server: Victim) -> None:
    before = condition(server.pid)
    maker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(MAKER), str(server.pid), fault, way],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert maker.stdout is not None
    try:
        neighbours = maker.stdout.readline().split()
        assert bool(neighbours) is (way == "weaker" and "Starve" in fault)
        assert condition(server.pid) != before
        maker.kill()
        assert within(lambda: condition(server.pid) == before, 10)
        assert within(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in neighbours))
        assert within(lambda: not records_left())
        assert server.ask("echo on") == "on"
    finally:
        maker.kill()
        maker.wait(10)
        maker.stdout.close()
