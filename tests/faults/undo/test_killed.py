"""More than 200 makers are killed, over all mechanisms and at all moments: nothing of them is left.

Before and after are compared: processes, mounts, network namespaces, links, control groups, sockets and
files, and the state folder.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from brownout.fault import record as records
from brownout.fault import watchdog
from brownout.fault.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[3]
MORTAL = Path(__file__).with_name("mortal.py")
MARK = "BROWNOUT_TEST_MARK"
MECHANISMS = (
    "pause",
    "freeze",
    "weak freeze",
    "starve",
    "weak starve",
    "files",
    "abort",
    "backlog",
    "proxy",
)
MOMENTS = ("recorded", "watched", "made", "force", "any")


class Left(NamedTuple):
    """What of this machine a fault could change and leave so."""

    processes: frozenset[str]
    mounts: frozenset[str]
    namespaces: frozenset[str]
    links: frozenset[str]
    groups: frozenset[str]
    files: frozenset[str]
    rules: frozenset[str]

    def new_since(self, before: Left) -> list[str]:
        """What is there now and was not; other tests of this machine come and go meanwhile."""
        return [one for now, then in zip(self, before, strict=True) for one in now - then]


class Yard(NamedTuple):
    """A state folder, a temporary folder, and a mark that all our processes bear."""

    faults: Path
    temporary: Path
    mark: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "BROWNOUT_FAULTS": str(self.faults),
            "TMPDIR": str(self.temporary),
            MARK: self.mark,
            "PYTHONPATH": str(ROOT),
        }

    def look(self) -> Left:
        return Left(
            processes=frozenset(self._processes()),
            mounts=frozenset(Path("/proc/mounts").read_text().splitlines()),
            namespaces=names("/run/netns"),
            links=names("/sys/class/net"),
            groups=frozenset(str(path) for path in Path("/sys/fs/cgroup").rglob("brownout-*")),
            files=names(str(self.temporary)) | names(str(self.faults), but=watchdog.LOCK),
            rules=rules(),
        )

    def _processes(self) -> Iterator[str]:
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"{MARK}={self.mark}".encode() in path.read_bytes():
                    yield (path.parent / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue


def names(folder: str, *, but: str = "") -> frozenset[str]:
    try:
        return frozenset(path.name for path in Path(folder).iterdir()) - {but}
    except FileNotFoundError:
        return frozenset()


def rules() -> frozenset[str]:
    """nft is there only where it is installed; without it we can have left no rule."""
    if not shutil.which("nft"):
        return frozenset()
    done = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=False)
    return frozenset(done.stdout.splitlines())


def until_none(left: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while there := left():
        assert time.monotonic() < end, there
        time.sleep(0.05)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    (tmp_path / "t").mkdir()
    ours = Yard(tmp_path / "faults", tmp_path / "t", uuid.uuid4().hex)
    yield ours
    shutil.rmtree(ours.faults, ignore_errors=True)  # the watchdog ends with its folder
    until_none(lambda: ours.look().processes)


def play(yard: Yard, plan: list[tuple[str, str]]) -> dict[str, object]:
    path = yard.faults.with_name("plan.json")
    path.write_text(json.dumps(plan))
    done = subprocess.run(
        [sys.executable, str(MORTAL), str(path)],
        env=yard.environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=110,
    )
    path.unlink()
    told: dict[str, object] = json.loads(done.stdout)
    return told


@pytest.mark.timeout(120)
def test_no_kill_of_a_maker_leaves_anything(yard: Yard) -> None:
    plan = [(one, moment) for one in MECHANISMS for moment in MOMENTS for _ in range(4)]
    plan += [(one, "any") for one in MECHANISMS for _ in range(4)] + [("holder", "force")] * 5
    # A proxy's Unix socket is there before its first fault is on record, as with any server.
    plan = [each for each in plan if each != ("proxy", "any")] + [("proxy", "force")] * 4
    random.Random(4).shuffle(plan)
    before = yard.look()
    told = play(yard, plan)
    assert told["wrong"] == []
    killed = told["killed"]
    assert isinstance(killed, int)
    assert killed >= 200
    until_none(lambda: records.read(str(yard.faults)).records)
    shutil.rmtree(yard.faults)  # and so the watchdog ends
    until_none(lambda: yard.look().processes)
    until_none(lambda: yard.look().new_since(before))


def test_when_the_watchdog_was_killed_too_clear_cleans_up(yard: Yard) -> None:
    """All makers are stopped first, so that none of them starts another watchdog."""
    before = yard.look()
    victims = [subprocess.Popen(["sleep", "60"], env=yard.environment) for _ in range(3)]
    try:
        ids = [Identity.of(victim.pid) for victim in victims]
        for mechanism, victim in zip(("pause", "freeze", "starve"), victims, strict=True):
            amounts = ["cpu_share=5%"] if mechanism == "starve" else []
            brownout(yard, "add", "process", mechanism, str(victim.pid), *amounts)
        path = yard.temporary / "socket"
        brownout(
            yard, "add", "tcp", "latency", "127.0.0.1:1", "seconds=1s", "--listen", "unix:socket"
        )
        assert path.exists()
        made = records.read(str(yard.faults)).records
        assert len(made) == 4
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for each in made:
                os.kill(each.owner.pid, number)
            os.kill(int((yard.faults / watchdog.LOCK).read_text()), number)
        until_none(lambda: [each for each in made if each.owner.alive()])
        assert ids[0].state() == "T"
        assert len(yard.look().groups - before.groups) == 2
        listed = json.loads(brownout(yard, "list", "--json"))["faults"]
        assert [each["state"] for each in listed] == ["left"] * 4
        assert brownout(yard, "clear", "--all").count("cleared: ") == 4
        assert ids[0].state() != "T"
    finally:
        for victim in victims:
            victim.kill()
            victim.wait()
    assert not records.read(str(yard.faults)).records
    shutil.rmtree(yard.faults)
    until_none(lambda: yard.look().processes)
    until_none(lambda: yard.look().new_since(before))


def brownout(yard: Yard, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "brownout", "fault", *arguments],
        env=yard.environment,
        cwd=yard.temporary,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
