"""Starve: so much of a CPU and no more, by quota or by a busy neighbour."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from brownout.errors import ConfigurationError, FaultRefused
from brownout.fault import Process, Starve
from brownout.fault.process import place
from brownout.fault.process.group import hierarchies, move
from brownout.fault.process.neighbour import PROGRAM, crowd
from brownout.fault.process.subject import tree
from tests.faults.process.conftest import Victim, groups_left
from tests.seen import within

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from brownout.fault.process.mechanism import Mechanism
    from brownout.fault.process.subject import Subject

pytestmark = pytest.mark.alone

TICKS = os.sysconf("SC_CLK_TCK")

needs_quota = pytest.mark.skipif(
    not any(os.access(where.mount / "cgroup.procs", os.W_OK) for where in hierarchies("cpu")),
    reason="no cpu controller of cgroup v1 or v2 can be written to here",
)


def used(pid: int) -> float:
    """CPU seconds of a process."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def share_of(pid: int, seconds: float) -> float:
    began, before = time.monotonic(), used(pid)
    time.sleep(seconds)
    return (used(pid) - before) / (time.monotonic() - began)


def home_of(pid: int) -> Path | None:
    return hierarchies("cpu")[0].group_of(pid)


@needs_quota
def test_it_gets_its_share_and_no_more(victim: Callable[..., Victim]) -> None:
    spinner = victim("spin")
    home = home_of(spinner.pid)
    with Process(spinner.pid).make(Starve(cpu_share=0.1)) as made:
        assert "quota" in made.mechanism
        time.sleep(0.1)  # the period that it began in
        assert share_of(spinner.pid, 0.6) < 0.2
    assert home_of(spinner.pid) == home
    assert groups_left() == []
    assert within(lambda: share_of(spinner.pid, 0.6) > 0.12)


@needs_quota
def test_callers_are_slow_though_none_is_refused(server: Victim) -> None:
    """5 ms of CPU at 5 % of 100 ms: each call waits for a period to begin."""

    def p50_and_p90() -> tuple[float, float]:
        took: list[float] = []
        with server.connect() as caller:
            for _ in range(9):
                began = time.monotonic()
                assert caller.ask("burn 5") == "burnt"
                took.append(time.monotonic() - began)
        return sorted(took)[4], sorted(took)[8]

    with Process(server.pid).make(Starve(cpu_share=0.05)):
        p50, p90 = p50_and_p90()
    assert p50 > 0.05
    assert p90 > 0.08
    assert within(lambda: p50_and_p90()[0] < 0.05)


@needs_quota
def test_who_is_forked_meanwhile_is_starved_and_comes_home_too(server: Victim) -> None:
    home = home_of(server.pid)
    with Process(server.pid).make(Starve(cpu_share=0.5)):
        child = int(server.ask("fork"))
        assert home_of(child) == home_of(server.pid) != home
    assert home_of(child) == home_of(server.pid) == home


@needs_quota
def test_it_may_die_meanwhile(server: Victim) -> None:
    with Process(server.process).make(Starve(cpu_share=0.5)):
        server.process.kill()
    assert groups_left() == []


@needs_quota
def test_a_group_above_may_give_less(server: Victim) -> None:
    """What the kernel refuses is refused, and nothing is left."""
    where = hierarchies("cpu")[0]
    if where.version == 2:
        pytest.skip("v2 takes any quota below a smaller one")
    folder = where.mount / f"origin-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / "cpu.cfs_quota_us").write_text("10000")
        move(server.pid, folder)
        with pytest.raises(FaultRefused, match="does a group above give less"):
            Process(server.pid).make(Starve(cpu_share=0.5))
        assert home_of(server.pid) == folder
    finally:
        for stat in tree([server.identity]):
            move(stat.pid, where.mount)
        folder.rmdir()


@pytest.fixture
def no_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(subject: Subject, fault: Starve) -> Mechanism:
        return crowd(subject, fault, "it was asked for")

    monkeypatch.setattr(place, "starve", made)


@pytest.mark.usefixtures("no_quota")
@pytest.mark.parametrize("right", [True, False], ids=["real-time", "plain"])
def test_a_busy_neighbour(
    victim: Callable[..., Victim], monkeypatch: pytest.MonkeyPatch, right: bool
) -> None:
    if right and os.geteuid() != 0:
        pytest.skip("real-time priority takes root")
    if not right:
        monkeypatch.setattr(
            "brownout.fault.process.neighbour.PROGRAM",
            PROGRAM.replace("sched_param(1)", "sched_param(0)"),
        )
    spinner = victim("spin")
    before = os.sched_getaffinity(spinner.pid)
    with Process(spinner.pid).make(Starve(cpu_share=0.3)) as made:
        assert made.mechanism.startswith("1 busy" if right else "3 busy")
        neighbours = [step.details["pid"] for step in made.steps if step.verb == "terminate"]
        assert len(os.sched_getaffinity(spinner.pid)) == 1
        assert share_of(spinner.pid, 0.8) < 0.6
    assert os.sched_getaffinity(spinner.pid) == before
    assert neighbours
    assert not any(os.path.exists(f"/proc/{pid}") for pid in neighbours)


@pytest.mark.usefixtures("no_quota")
def test_who_is_forked_beside_a_neighbour_runs_free_again(server: Victim) -> None:
    before = os.sched_getaffinity(server.pid)
    with Process(server.pid).make(Starve(cpu_share=0.5)):
        child = int(server.ask("fork"))
        assert len(os.sched_getaffinity(child)) == 1
    assert os.sched_getaffinity(child) == os.sched_getaffinity(server.pid) == before


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"cpu_share": 0.005}, "take 0.01 or more, or a longer period"),
        ({"cpu_share": 0.5, "period_seconds": 2.0}, "is from 0.001 to 1"),
    ],
)
def test_what_the_kernel_cannot_do_is_refused(fault: dict[str, float], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Starve(**fault)  # type: ignore[arg-type]
