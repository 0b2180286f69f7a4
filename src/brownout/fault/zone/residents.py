"""Who lives in zones, found from outside: to end them all, also when those who made the zones are dead.

A zone bears the id of its makers as the name of its device, which every process' /proc/<pid>/net/dev
shows. An inode of a namespace would be given to a stranger's later on, and a variable of the environment
is overwritten by servers that change their title.
"""

from __future__ import annotations

import os
import time
from signal import SIGCONT, SIGKILL, SIGTERM
from typing import TYPE_CHECKING

from brownout.fault.identity import Identity
from brownout.fault.zone.enter import DEVICE

if TYPE_CHECKING:
    from signal import Signals

__all__ = ["device_name", "end", "end_all", "found", "kill"]


def device_name(id_: str) -> str:
    """The device of all zones that were made together. Raises ValueError for what is no id of ours."""
    name = f"bo{id_}"
    if not DEVICE.fullmatch(name):
        raise ValueError(f'"{id_}" is no id of zones')
    return name


def found(id_: str) -> list[Identity]:
    """All processes in those zones."""
    name = device_name(id_)
    known = {_namespace("self"): False}
    living: list[Identity] = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal() or not (where := _namespace(entry)):
            continue
        if where not in known:
            known[where] = _has(entry, name)
        if known[where]:
            try:
                living.append(Identity.of(int(entry)))
            except ProcessLookupError:
                pass
    return living


def _namespace(pid: str) -> str:
    """Empty once the process has ended, or if it is another user's."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def _has(pid: str, device: str) -> bool:
    try:
        with open(f"/proc/{pid}/net/dev", encoding="ascii") as file:
            return any(line.strip().startswith(f"{device}:") for line in file)
    except OSError:
        return False


def end(id_: str) -> None:
    """Ask them all to end."""
    _signal(id_, SIGTERM)


def kill(id_: str) -> None:
    """End them all."""
    _signal(id_, SIGKILL)


def _signal(id_: str, number: Signals) -> None:
    for one in found(id_):
        one.signal(number)
        one.signal(SIGCONT)  # who is stopped would not hear it


def end_all(id_: str, *, seconds: float = 1.0) -> None:
    """End them, and see that they have; who has not in that time is killed."""
    end(id_)
    late = time.monotonic() + seconds
    while found(id_):
        if time.monotonic() > late:
            kill(id_)
            return
        time.sleep(0.005)
