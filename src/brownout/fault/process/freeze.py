"""Freeze a tree by the freezer of control groups, v2 or v1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brownout.fault.process.group import Unwritable, gather, groups_for, put
from brownout.fault.process.mechanism import Mechanism
from brownout.fault.process.stop import stop_tree, wait_for
from brownout.fault.record import Step

if TYPE_CHECKING:
    from brownout.fault.process.group import Group
    from brownout.fault.process.subject import Subject

__all__ = ["freeze"]

SWITCH = {1: ("freezer.state", "FROZEN", "THAWED"), 2: ("cgroup.freeze", "1", "0")}


def freeze(subject: Subject, *, versions: tuple[int, ...] = (2, 1)) -> Mechanism:
    """The freezer; where no group can be made, SIGSTOP to each process of the tree, which shows."""
    try:
        made = groups_for("freezer", subject, "freeze", versions)
    except Unwritable as error:
        weaker = stop_tree(subject)
        return Mechanism(
            name=f"{weaker.name}, since {error}",
            enter=weaker.enter,
            leave=weaker.leave,
            steps=weaker.steps,
        )
    version = made[0].where.version
    name, _, thawed = SWITCH[version]
    return Mechanism(
        name=f"cgroup v{version} freezer",
        enter=lambda: _enter(made, subject),
        leave=lambda: _switch(made, frozen=False),
        steps=tuple(Step("cgroup", path=str(each.folder), quiet={name: thawed}) for each in made),
    )


def _enter(made: list[Group], subject: Subject) -> None:
    """Freeze the groups first: who is moved in can't fork any more."""
    for group in made:
        group.make()
    _switch(made, frozen=True)
    gather(made, [subject.identity])
    wait_for(
        lambda: all(_frozen(group) for group in made),
        f"the tree of {subject} is not frozen: a member is stuck in the kernel, see /proc/<pid>/stack",
    )


def _switch(made: list[Group], *, frozen: bool) -> None:
    for group in made:
        name, on, off = SWITCH[group.where.version]
        put(group.folder / name, on if frozen else off)


def _frozen(group: Group) -> bool:
    if group.where.version == 2:
        return "frozen 1" in group.read("cgroup.events").splitlines()
    if group.read("freezer.state").strip() == "FROZEN":
        return True
    put(group.folder / "freezer.state", "FROZEN")  # it is in "FREEZING": ask once more
    return False
