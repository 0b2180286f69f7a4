"""Starve a tree of CPU by the quota of a control group, v2 or v1; else by a busy neighbour."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from brownout.errors import FaultRefused
from brownout.fault.process.group import Unwritable, gather, groups_for, put
from brownout.fault.process.mechanism import Mechanism
from brownout.fault.process.neighbour import crowd
from brownout.fault.record import Step

if TYPE_CHECKING:
    from brownout.fault.kind import Starve
    from brownout.fault.process.group import Group
    from brownout.fault.process.subject import Subject

__all__ = ["starve"]

QUIET = {1: {"cpu.cfs_quota_us": "-1"}, 2: {"cpu.max": "max"}}


def starve(subject: Subject, fault: Starve, *, versions: tuple[int, ...] = (2, 1)) -> Mechanism:
    """A quota for the tree; where no group can be made, a busy neighbour on the process' CPU."""
    try:
        made = groups_for("cpu", subject, "starve", versions)
    except Unwritable as error:
        return crowd(subject, fault, str(error))
    version = made[0].where.version
    return Mechanism(
        name=f"cgroup v{version} quota",
        enter=lambda: _enter(made, subject, fault),
        leave=lambda: _lift(made),
        steps=tuple(
            Step(
                "cgroup",
                path=str(group.folder),
                quiet=QUIET[version],
                disable="" if group.enabled else "cpu",
            )
            for group in made
        ),
    )


def _enter(made: list[Group], subject: Subject, fault: Starve) -> None:
    for group in made:
        group.make()
        _limit(group, fault)
    gather(made, [subject.identity])


def _limit(group: Group, fault: Starve) -> None:
    period = round(fault.period_seconds * 1e6)
    quota = round(fault.cpu_share * fault.period_seconds * 1e6)
    try:
        if group.where.version == 2:
            put(group.folder / "cpu.max", f"{quota} {period}")
        else:
            put(
                group.folder / "cpu.cfs_quota_us", "-1"
            )  # a group above bounds each pair of the two
            put(group.folder / "cpu.cfs_period_us", str(period))
            put(group.folder / "cpu.cfs_quota_us", str(quota))
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise FaultRefused(
                f"{fault} below {group.home}: the kernel refuses {quota} us of {period} us; does a group "
                "above give less than that?"
            ) from error
        raise


def _lift(made: list[Group]) -> None:
    for group in made:
        for name, text in QUIET[group.where.version].items():
            put(group.folder / name, text)
