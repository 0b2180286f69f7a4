"""Freeze: a whole tree stands still, by the freezer of v1 and v2, and comes back to where it was."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from brownout.errors import BrownoutError
from brownout.fault import Freeze, Process
from brownout.fault.process import place
from brownout.fault.process.freeze import SWITCH, freeze
from brownout.fault.process.group import Group, gather, groups_for, hierarchies, put
from brownout.fault.process.stop import stop_tree
from brownout.fault.process.subject import Subject, look, tree
from tests.faults.process.conftest import Victim, groups_left
from tests.seen import within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from brownout.fault.identity import Identity
    from brownout.fault.process.mechanism import Mechanism

USABLE = [
    where.version
    for where in hierarchies("freezer")
    if os.access(where.mount, os.W_OK) and os.access(where.mount / "cgroup.procs", os.W_OK)
]
WAYS: list[object] = [
    pytest.param(
        version,
        marks=pytest.mark.skipif(
            version not in USABLE, reason=f"no freezer of cgroup v{version} can be written to here"
        ),
        id=f"v{version}",
    )
    for version in (1, 2)
]


@pytest.fixture(params=[*WAYS, pytest.param(0, id="SIGSTOP")])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Freeze by this version of control groups, or by the weaker way; its number, 0 for that."""
    version: int = request.param

    def made(subject: Subject) -> Mechanism:
        return freeze(subject, versions=(version,)) if version else stop_tree(subject)

    monkeypatch.setattr(place, "freeze", made)
    return version


def counts(folder: Path) -> dict[str, int]:
    found = {file.name: file.read_bytes() for file in folder.iterdir()}
    return {name: struct.unpack("Q", count)[0] for name, count in found.items() if len(count) == 8}


def home_of(version: int, pid: int) -> Path | None:
    return next(
        (where.group_of(pid) for where in hierarchies("freezer") if where.version == version), None
    )


def more_than(folder: Path, count: int) -> bool:
    return len(counts(folder)) > count


def stands_still(folder: Path) -> bool:
    before = counts(folder)
    time.sleep(0.1)
    return counts(folder) == before


def test_a_whole_tree_stands_still(way: int, victim: Callable[..., Victim], tmp_path: Path) -> None:
    ticker = victim("tick", str(tmp_path))
    assert within(lambda: len(counts(tmp_path)) == 4)
    homes = {stat.pid: home_of(way, stat.pid) for stat in tree([ticker.identity])}
    assert len(homes) == 4
    with Process(ticker.pid).make(Freeze()) as made:
        assert (f"cgroup v{way}" if way else "SIGSTOP") in made.mechanism
        assert stands_still(tmp_path)
        if way:
            assert all(home_of(way, pid) != home for pid, home in homes.items())
            assert home_of(way, os.getpid()) not in {home_of(way, pid) for pid in homes}
    before = counts(tmp_path)
    assert within(lambda: all(counts(tmp_path)[name] > count for name, count in before.items()))
    assert {stat.pid: home_of(way, stat.pid) for stat in tree([ticker.identity])} == homes


def test_a_storm_of_forks_stands_still(
    way: int, victim: Callable[..., Victim], tmp_path: Path
) -> None:
    storm = victim("storm", str(tmp_path))
    assert within(lambda: len(counts(tmp_path)) > 20)
    for _ in range(3):
        with Process(storm.pid).make(Freeze()):
            # Those whose parent had ended before are nobody's kin, and count to their end.
            assert within(lambda: stands_still(tmp_path))
        seen = len(counts(tmp_path))
        assert within(partial(more_than, tmp_path, seen))
    assert groups_left() == []


def test_a_frozen_server_is_connected_to_and_says_nothing(way: int, server: Victim) -> None:
    with Process(server.process).make(Freeze()):
        caller = server.connect(0.3)
        caller.send("echo late")
        with pytest.raises(TimeoutError):
            caller.lines.readline()
    caller.socket.settimeout(10)
    with caller, caller.socket.makefile("r") as again:
        assert again.readline() == "late\n"


def test_it_may_die_while_it_is_frozen(way: int, server: Victim) -> None:
    with Process(server.process).make(Freeze()):
        server.process.kill()
        if way == 2:  # v1 keeps it until it is thawed
            server.process.wait(10)
    assert server.process.wait(10) == -signal.SIGKILL


def test_who_was_stopped_before_stays_so(way: int, server: Victim) -> None:
    os.kill(server.pid, signal.SIGSTOP)
    assert within(lambda: server.state == "T")
    with Process(server.pid).make(Freeze()):
        pass
    assert within(lambda: server.state == "T", 1)
    os.kill(server.pid, signal.SIGCONT)
    assert server.ask("echo on") == "on"


@pytest.fixture(params=WAYS)
def origin(request: pytest.FixtureRequest) -> Iterator[tuple[int, Path]]:
    """A group of somebody else's, in which the victim lives."""
    version: int = request.param
    where = next(where for where in hierarchies("freezer") if where.version == version)
    folder = where.mount / f"origin-{os.getpid()}"
    folder.mkdir()
    yield version, folder
    for pid in (folder / "cgroup.procs").read_text().split():
        put(where.mount / "cgroup.procs", pid)
    folder.rmdir()


def test_members_go_back_to_the_group_they_came_from(
    origin: tuple[int, Path], server: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, folder = origin
    monkeypatch.setattr(place, "freeze", lambda subject: freeze(subject, versions=(version,)))
    put(folder / "cgroup.procs", str(server.pid))
    with Process(server.pid).make(Freeze()):
        home = home_of(version, server.pid)
        assert home is not None
        assert home.parent == folder
    assert home_of(version, server.pid) == folder
    # Two homes at once: a child that lives elsewhere goes back there.
    child = int(server.ask("fork"))
    put(folder.parent / "cgroup.procs", str(child))
    with Process(server.pid).make(Freeze()):
        assert home_of(version, child) != folder.parent
    assert home_of(version, server.pid) == folder
    assert home_of(version, child) == folder.parent
    server.end()


@pytest.mark.skipif(not USABLE, reason="no freezer can be written to here")
def test_a_group_never_holds_the_caller(server: Victim) -> None:
    """Also if it is asked for behind the back of `Process`."""
    parent = look(os.getppid())
    assert parent
    made = groups_for("freezer", Subject(server.pid), "test")
    for group in made:
        group.make()
    try:
        with pytest.raises(BrownoutError, match="the caller, is a part of the tree"):
            gather(made, [parent.identity])
        assert made[0].read("cgroup.procs") == ""
    finally:
        for group in made:
            group.folder.rmdir()


@pytest.mark.skipif(not USABLE, reason="no freezer can be written to here")
def test_what_is_half_made_is_undone(server: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(made: list[Group], roots: list[Identity]) -> None:
        gather(made, roots)
        raise BrownoutError("half-way")

    monkeypatch.setattr("brownout.fault.process.freeze.gather", broken)
    with pytest.raises(BrownoutError, match="half-way"):
        Process(server.pid).make(Freeze())
    assert groups_left() == []
    assert server.ask("echo on") == "on"


@pytest.mark.parametrize("version", WAYS)
def test_what_a_dead_maker_has_left_is_cleared_without_a_record(
    version: int, server: Victim
) -> None:
    with subprocess.Popen(["/bin/true"]) as maker:
        maker.wait()
    where = next(where for where in hierarchies("freezer") if where.version == version)
    left = Group(where.mount / f"brownout-{maker.pid}-freeze-1", where)
    left.make()
    put(left.folder / "cgroup.procs", str(server.pid))
    name, frozen, _ = SWITCH[version]
    put(left.folder / name, frozen)
    told = subprocess.run(
        [sys.executable, "-m", "brownout", "fault", "clear", "--all"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert f"cleared: {left.folder}\n" in told.stdout
    assert told.returncode == 0
    assert server.ask("echo on") == "on"
    assert home_of(version, server.pid) == where.mount


SEALED = """
    import os, sys
    from brownout.fault import Freeze, Process, Starve
    from brownout.fault.process.subject import look
    place = Process(int(sys.argv[1]))
    with place.make(Freeze()) as made:
        print(made.mechanism, look(place.pid).state, sep="|")
    with place.make(Starve(cpu_share=0.5)) as made:
        print(made.mechanism, os.sched_getaffinity(place.pid), sep="|")
    print(os.sched_getaffinity(place.pid) == os.sched_getaffinity(0))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="to mount read-only takes root")
def test_read_only_control_groups(server: Victim) -> None:
    """A mount namespace of its own, in which no group can be made: the weaker ways, and said so."""
    mounts = {str(w.mount) for name in ("freezer", "cpu") for w in hierarchies(name)}
    seal = "".join(f"mount -o remount,bind,ro {mount} && " for mount in sorted(mounts))
    command = ["unshare", "-m", "sh", "-c", seal + 'exec "$@"', "sh"]
    code = textwrap.dedent(SEALED)
    told = subprocess.run(
        [*command, sys.executable, "-c", code, str(server.pid)],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert told.stderr == ""
    frozen, starved, free = told.stdout.splitlines()
    assert "SIGSTOP to the tree, since no control group can be made" in frozen
    assert frozen.endswith("|T")
    assert "busy neighbour(s) of real-time priority" in starved
    assert len(starved.rpartition("|")[2].split(",")) == 1
    assert free == "True"
    assert server.ask("echo on") == "on"
