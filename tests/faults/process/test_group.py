"""Control groups as text: where they are mounted, and v2's cpu controller on a kernel that is played.

The real one is to be had here or not; `cpu.max` is untested on a real kernel where v1 has the controller.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from brownout.errors import BrownoutError
from brownout.fault import Starve
from brownout.fault.process import group, starve
from brownout.fault.process.group import Hierarchy, Unwritable, hierarchies, release
from brownout.fault.process.subject import Stat, Subject

if TYPE_CHECKING:
    from tests.faults.process.conftest import Victim

MIXED = """\
24 30 0:21 / /proc rw - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
37 31 0:34 /a\\040b /sys/fs/my\\040freezer rw shared:3 - cgroup cgroup rw,freezer
41 31 0:38 / {unified} rw,relatime - cgroup2 cgroup2 rw
"""


def test_where_a_controller_is(tmp_path: Path) -> None:
    mounts = MIXED.format(unified=tmp_path)
    (tmp_path / "cgroup.controllers").write_text("memory pids\n")
    assert hierarchies("cpu", mounts=mounts) == [
        Hierarchy(1, "cpu", Path("/sys/fs/cgroup/cpu,cpuacct"), "/")
    ]
    assert hierarchies("freezer", mounts=mounts) == [
        Hierarchy(2, "freezer", tmp_path, "/"),
        Hierarchy(1, "freezer", Path("/sys/fs/my freezer"), "/a b"),
    ]
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    assert [where.version for where in hierarchies("cpu", mounts=mounts)] == [2, 1]


def test_the_group_of_another_container_is_not_seen() -> None:
    where = Hierarchy(1, "freezer", Path("/m"), "/docker/x")
    assert where.folder("/docker/x/y", 7) == Path("/m/y")
    for path in ("/docker/other", "/../other"):
        with pytest.raises(Unwritable, match="belongs to another container"):
            where.folder(path, 7)


class Kernel:
    """As much of v2 as is asked of it: groups, members, and who may have a controller."""

    def __init__(self, top: Path, patch: pytest.MonkeyPatch) -> None:
        self.top = top
        self.members: dict[Path, set[int]] = {top: set()}
        self.enabled: dict[Path, set[str]] = {top: {"cpu"}}
        self.log: list[str] = []
        patch.setattr(group, "put", self.put)
        patch.setattr(starve, "put", self.put)
        patch.setattr(group, "make_folder", self.make)
        patch.setattr(group, "remove_folder", self.remove)
        patch.setattr(Hierarchy, "group_of", lambda _, pid: self.group_of(pid))
        patch.setattr(group, "hierarchies", lambda _: [Hierarchy(2, "cpu", top)])
        self.write(top)

    def write(self, folder: Path) -> None:
        root = folder == self.top
        handed = {"cpu"} if root else self.enabled[folder.parent]
        threaded = not root and folder.parent != self.top and bool(self.members[folder.parent])
        for name, text in {
            "cgroup.controllers": " ".join(handed),
            "cgroup.subtree_control": " ".join(self.enabled[folder]),
            "cgroup.procs": "\n".join(map(str, self.members[folder])),
            "cgroup.type": "domain invalid" if threaded else "domain",
            **({"cpu.max": "max 100000"} if "cpu" in handed and not root else {}),
        }.items():
            if name not in ("cgroup.type", "cpu.max") or not (folder / name).exists():
                (folder / name).write_text(text)

    def make(self, folder: Path) -> None:
        if not folder.exists():
            folder.mkdir()
            self.members[folder], self.enabled[folder] = set(), set()
            self.write(folder)
            self.log.append(f"mkdir {folder.name}")

    def remove(self, folder: Path) -> None:
        if self.members[folder]:
            raise OSError(errno.EBUSY, "busy")
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        self.log.append(f"rmdir {folder.name}")

    def group_of(self, pid: int) -> Path | None:
        return next((folder for folder, pids in self.members.items() if pid in pids), None)

    def put(self, path: Path, text: str) -> None:
        folder = path.parent
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        self.log.append(f"{folder.name}/{path.name} {text}")
        if path.name == "cgroup.subtree_control":
            change = self.enabled[folder].add if text[0] == "+" else self.enabled[folder].discard
            change(text[1:])
        elif path.name == "cgroup.procs":
            kind = (folder / "cgroup.type").read_text()
            if kind == "domain invalid":
                raise OSError(errno.EOPNOTSUPP, "not supported")
            for pids in self.members.values():
                pids.discard(int(text))
            self.members[folder].add(int(text))
        else:
            path.write_text(text)
        for each in self.members:
            if each.exists():
                self.write(each)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(tmp_path, monkeypatch)


def name_of(number: int) -> str:
    return f"brownout-{os.getpid()}-starve-{number}"


@pytest.mark.parametrize("enabled", [False, True], ids=["it is enabled", "it was enabled before"])
def test_a_quota_of_v2(kernel: Kernel, server: Victim, enabled: bool) -> None:
    """Below a service's own group, which holds processes: ours is threaded, and the controller enabled."""
    home = kernel.top / "service"
    kernel.make(home)
    kernel.members[home] = {server.pid}
    if enabled:
        kernel.enabled[home] = {"cpu"}
    kernel.write(home)
    kernel.log.clear()
    made = starve.starve(Subject(server.pid), Starve(cpu_share=0.05, period_seconds=0.02))
    assert made.name == "cgroup v2 quota"
    made.enter()
    [step] = made.steps
    ours = Path(step.details["path"])
    assert ours.parent == home
    assert kernel.members == {kernel.top: set(), home: set(), ours: {server.pid}}
    assert (ours / "cpu.max").read_text() == "1000 20000"
    assert (ours / "cgroup.type").read_text() == "threaded"
    made.leave()
    assert (ours / "cpu.max").read_text() == "max"
    made.enter()
    for _ in range(2):  # once more does nothing
        release(**step.details)
    assert not ours.exists()
    assert kernel.members[home] == {server.pid}
    assert kernel.enabled[home] == ({"cpu"} if enabled else set())
    began = [] if enabled else ["service/cgroup.subtree_control +cpu"]
    assert kernel.log[: len(began) + 1] == [*began, f"mkdir {ours.name}"]


def test_a_controller_that_is_not_handed_down(kernel: Kernel, server: Victim) -> None:
    """Enabling it for the level above would change the groups of others: the weaker way is taken."""
    home = kernel.top / "slice" / "service"
    kernel.make(home.parent)
    kernel.make(home)
    kernel.members[home] = {server.pid}
    made = starve.starve(Subject(server.pid), Starve(cpu_share=0.5))
    try:
        assert 'its parent does not hand "cpu" down' in made.name
    finally:
        made.close()


def test_a_fork_while_the_tree_is_moved(
    kernel: Kernel, server: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look finds another child outside, until none is: one pass would miss two."""
    home = kernel.top / "service"
    kernel.make(home)
    looks = 0

    def growing(_: object) -> list[Stat]:
        nonlocal looks
        looks += 1
        born = [server.pid, *range(10**7, 10**7 + min(looks, 3))]
        for pid in born:
            if kernel.group_of(pid) is None:
                kernel.members[home].add(pid)
        return [Stat(pid, "R", server.pid, 0, 1) for pid in born]

    monkeypatch.setattr(group, "tree", growing)
    kernel.members[home] = {server.pid}
    made = starve.starve(Subject(server.pid), Starve(cpu_share=0.5))
    made.enter()
    [step] = made.steps
    assert kernel.members[home] == set()
    assert len(kernel.members[Path(step.details["path"])]) == 4
    release(**step.details)
    assert len(kernel.members[home]) == 4


def test_a_tree_without_end_is_given_up(
    kernel: Kernel, server: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = kernel.top / "service"
    kernel.make(home)
    kernel.members[home] = {server.pid}
    made = starve.starve(Subject(server.pid), Starve(cpu_share=0.5))
    monkeypatch.setattr(group, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(group, "move", lambda *_: True)  # somebody moves them back at once
    with pytest.raises(BrownoutError, match="is never whole: 1 of 1 are outside"):
        made.enter()


@pytest.mark.parametrize("path", ["/sys/fs/cgroup/freezer", "brownout-1-x", "/a/brownout-1/../b"])
def test_only_what_is_ours_is_released(path: str) -> None:
    with pytest.raises(ValueError, match="is left alone"):
        release(path, {})
