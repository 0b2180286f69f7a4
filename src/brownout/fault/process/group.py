"""Control groups, v1 and v2: a group of our own below each group that a tree of processes lives in.

Rules:
1. A group of ours is a child of the one its members came from, so that the limits of that one still bind,
   and what is to be undone can be read off the tree: its members go back to the parent.
2. It is called `brownout-<owner's pid>-...`: what its owner left behind is known by its name.
3. It never holds the caller. A tree of which the caller is a part is refused.
4. A tree is whole when a look at it finds nobody outside: who is not moved yet may fork meanwhile.

Sources: cgroups(7); Linux, Documentation/admin-guide/cgroup-v1 and cgroup-v2.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from brownout.errors import BrownoutError, FaultRefused
from brownout.fault.process.subject import look, tree
from brownout.fault.record import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from brownout.fault.identity import Identity
    from brownout.fault.process.subject import Subject

__all__ = [
    "Group",
    "Hierarchy",
    "Unwritable",
    "absent",
    "gather",
    "groups_for",
    "hierarchies",
    "orphans",
    "put",
    "quieting",
    "release",
]

WAIT_SECONDS = 3.0  # for a tree to be whole
MEMBERS = 10_000  # of one tree

_numbers = itertools.count(1)
_NAME = re.compile(re.escape(PREFIX) + r"(\d+)-(?:freeze|starve)-\d+")
_QUIET = {
    "freezer.state": "THAWED",
    "cgroup.freeze": "0",
    "cpu.cfs_quota_us": "-1",
    "cpu.max": "max",
}


class Unwritable(FaultRefused):
    """No group can be made here: no such controller, no right to, or mounted read-only."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where a controller's tree of groups is mounted; `root` is the group that is seen there."""

    version: Literal[1, 2]
    controller: str
    mount: Path
    root: str = "/"

    def group_of(self, pid: int) -> Path | None:
        """The folder of the group that a process is in; None if it is no more.

        Raises Unwritable if that group is not below what is mounted here.
        """
        try:
            text = Path(f"/proc/{pid}/cgroup").read_text("utf-8")
        except (FileNotFoundError, ProcessLookupError):
            return None
        for line in text.splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0" if self.version == 2 else self.controller in controllers.split(","):
                return self.folder(path, pid)
        return None

    def controllers(self, group: Path) -> list[str]:
        """Which controllers the groups below that one can have."""
        try:
            return (group / "cgroup.controllers").read_text("utf-8").split()
        except OSError:
            return []

    def folder(self, path: str, pid: int) -> Path:
        """The folder of the group with that name, which the process `pid` is in. Raises Unwritable."""
        below = os.path.relpath(path, self.root)
        if ".." in Path(below).parts or "/.." in path:
            raise Unwritable(
                f"process {pid} is in the control group {path}, which {self.mount} does not show: it "
                "belongs to another container. Make the fault inside of that one"
            )
        return self.mount / below


def hierarchies(controller: str, *, mounts: str | None = None) -> list[Hierarchy]:
    """Where "freezer" or "cpu" is to be had: v2 before v1, whose frozen processes can't even be killed.

    Freezing belongs to v2 itself; any other controller is in one of them only.
    """
    text = Path("/proc/self/mountinfo").read_text("utf-8") if mounts is None else mounts
    found: dict[int, Hierarchy] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        root, mount = (part.replace("\\040", " ") for part in left.split(" ")[3:5])
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup" and controller in options.split(","):
            found.setdefault(1, Hierarchy(1, controller, Path(mount), root))
        if kind == "cgroup2":
            second = Hierarchy(2, controller, Path(mount), root)
            if controller == "freezer" or controller in second.controllers(second.mount):
                found.setdefault(2, second)
    return [found[version] for version in sorted(found, reverse=True)]


@dataclass(frozen=True, slots=True)
class Group:
    """One group of ours: its folder is below the group that its members came from."""

    folder: Path
    where: Hierarchy

    @property
    def home(self) -> Path:
        """The group that its members came from and go back to."""
        return self.folder.parent

    def read(self, name: str) -> str:
        """What one of its control files says."""
        return (self.folder / name).read_text("utf-8")

    @property
    def enabled(self) -> bool:
        """Whether groups below its home have the controller, as far as one must ask for it (v2)."""
        if self.where.version == 1 or self.where.controller == "freezer":
            return True
        return self.where.controller in (self.home / "cgroup.subtree_control").read_text().split()

    def make(self) -> None:
        """Make it, if it is not there. Raises Unwritable."""
        try:
            if not self.enabled:
                put(self.home / "cgroup.subtree_control", f"+{self.where.controller}")
            make_folder(self.folder)
            kind = self.folder / "cgroup.type"
            # Below a group that holds processes itself: it stays in that one's domain.
            if kind.exists() and kind.read_text("utf-8").strip() == "domain invalid":
                put(kind, "threaded")
        except OSError as error:
            raise _unwritable(self.home, str(error.strerror)) from error


def _unwritable(home: Path, why: str) -> Unwritable:
    return Unwritable(
        f"no control group can be made in {home}: {why}. It takes root or a delegated group, and a mount "
        "that is not read-only"
    )


def groups_for(
    controller: str, subject: Subject, what: str, versions: Sequence[int] = (2, 1)
) -> list[Group]:
    """A group for each one that the subject's tree lives in now: named, not yet made.

    Raises Unwritable if there can't be any, with the reason for the version that is wanted most.
    """
    number = next(_numbers)
    refused: Unwritable | None = None
    for where in hierarchies(controller):
        if where.version in versions:
            try:
                return [
                    Group(home / f"{PREFIX}{os.getpid()}-{what}-{number}", where)
                    for home in _homes(where, subject)
                ]
            except Unwritable as error:
                refused = refused or error
    raise refused or Unwritable(f'no control groups with "{controller}" are mounted here')


def _homes(where: Hierarchy, subject: Subject) -> list[Path]:
    found = {where.group_of(stat.pid) for stat in tree([subject.identity])}
    homes = sorted(home for home in found if home is not None)
    for home in homes:
        if not os.access(home, os.W_OK) or not os.access(home / "cgroup.procs", os.W_OK):
            raise _unwritable(home, "it is not writable")
        wanted = where.version == 2 and where.controller != "freezer"
        if wanted and where.controller not in where.controllers(home):
            raise _unwritable(home, f'its parent does not hand "{where.controller}" down')
    if not homes:
        raise FaultRefused(f"{subject} has ended: there is nothing to do harm to")
    return homes


def gather(made: Sequence[Group], roots: Sequence[Identity]) -> None:
    """Move the whole tree into the groups, each into the one below its home, until none is outside.

    Raises BrownoutError if that has no end, or if we would be among them.
    """
    inside = {group.folder for group in made}
    by_home = {group.home: group.folder for group in made}
    where = made[0].where
    end = time.monotonic() + WAIT_SECONDS
    while True:
        members = tree(roots)
        if any(stat.pid == os.getpid() for stat in members):
            raise BrownoutError(f"process {os.getpid()}, the caller, is a part of the tree")
        found = [(stat.pid, where.group_of(stat.pid)) for stat in members]
        outside = [(pid, home) for pid, home in found if home is not None and home not in inside]
        if not outside:
            return
        if len(members) > MEMBERS or time.monotonic() > end:
            raise BrownoutError(
                f"the tree of process {roots[0].pid} is never whole: {len(outside)} of {len(members)} are "
                f"outside after {WAIT_SECONDS:g} s. Does it fork without end, or somebody move it?"
            )
        for pid, home in outside:
            # Not there: it was moved by somebody meanwhile. Better in a group beside than outside.
            move(pid, by_home.get(home, made[0].folder))


def move(pid: int, folder: Path) -> bool:
    """Move a process with its threads; False if it is no more."""
    try:
        put(folder / "cgroup.procs", str(pid))
    except OSError as error:
        if error.errno == errno.ESRCH:
            return False
        if error.errno == errno.EINVAL and (stat := look(pid)) is not None:
            raise BrownoutError(
                f"process {pid} ({stat.state}) can't be moved to {folder}: the kernel says no. Has it a "
                "real-time priority?"
            ) from error
        raise
    return True


def make_folder(folder: Path) -> None:
    """Make a group, if it is not there."""
    folder.mkdir(exist_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a group: its files go with it."""
    folder.rmdir()


def put(path: Path, text: str) -> None:
    """Write to a control file: one write, no newline, never a new file."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def release(path: str, quiet: Mapping[str, str], *, disable: str = "") -> None:
    """Undo a group: lift what it does, move its members to the parent, remove it. To be repeated.

    `quiet` maps control files to what lifts the fault; `disable` is a controller that we had to enable for
    the parent's children. An absent group is undone already. Groups that members have made inside go the
    same way. Raises OSError while it is not empty: a member has forked just now, or is still dying.
    """
    folder = Path(path)
    if not folder.name.startswith(PREFIX) or not folder.is_absolute() or ".." in folder.parts:
        raise ValueError(f"{path} is left alone: it is not called {PREFIX}...")
    try:
        for name, text in quiet.items():
            put(folder / name, text)
        for below, _, _ in os.walk(folder, topdown=False):
            for pid in (Path(below) / "cgroup.procs").read_text("utf-8").split():
                move(int(pid), folder.parent)
            remove_folder(Path(below))
    except FileNotFoundError:  # it is gone, or somebody else undoes it at this moment
        if folder.is_dir():
            raise
    if disable:
        try:
            put(folder.parent / "cgroup.subtree_control", f"-{disable}")
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOENT):  # others use it by now
                raise


def orphans() -> list[Path]:
    """Groups of ours whose maker is no more, on record or not; those of v1 and v2."""
    found: set[Path] = set()
    for where in (*hierarchies("freezer"), *hierarchies("cpu")):
        for folder, below, _ in os.walk(where.mount):
            named = [(name, _NAME.fullmatch(name)) for name in below]
            found.update(
                Path(folder, name) for name, ours in named if ours and look(int(ours[1])) is None
            )
    return sorted(found)


def quieting(folder: Path) -> dict[str, str]:
    """What lifts whatever a group may do: for `release`, where no record says it."""
    return {name: text for name, text in _QUIET.items() if (folder / name).exists()}


def absent(path: str) -> bool:
    """Whether the group is no more, and so nobody in it."""
    return not Path(path).exists()
