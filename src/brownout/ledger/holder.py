"""Who holds an entry of a journal, and whether that process still lives.

On Linux a process is told by its number and its start, within one boot and one namespace of numbers; of
others nothing is known, so that only the end of their lease frees what they hold.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_DEAD = frozenset("ZXx")  # killed, and not yet waited for


def me() -> str:
    """This process, as others can tell whether it lives."""
    started = _started(os.getpid())
    return f"{_machine()}/{os.getpid()}/{started or ''}"


def gone(holder: str) -> bool:
    """Whether it is certain that a holder has ended."""
    machine, _, rest = holder.partition("/")
    number, _, started = rest.partition("/")
    if not machine or machine != _machine() or not started or not number.isdecimal():
        return False
    return _started(int(number)) != started


def _machine() -> str:
    """The boot and the namespace in which process numbers mean what they mean here; "" if not known."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116 - a link to no path
    return ""


def _started(process: int) -> str | None:
    """When a process was started, in ticks since the boot; None if there is none."""
    try:
        fields = (
            Path(f"/proc/{process}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        )
    except OSError:
        return None
    return None if fields[0] in _DEAD else fields[19]
