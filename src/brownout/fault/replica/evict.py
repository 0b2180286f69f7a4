"""End the servers that live in a folder of ours, known by where they work and what they are called.

Not by an id: so it finds those too that were started just before their maker was killed, and spares a
shell that somebody has opened in there.
"""

from __future__ import annotations

import os
import signal as signals
import time
from typing import TYPE_CHECKING

from brownout.fault.process.subject import every

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brownout.fault.process.subject import Stat

__all__ = ["evict", "living"]

WAIT_SECONDS = 0.5  # for one signal to do its work; the undo comes again


def living(path: str, programs: Sequence[str]) -> list[Stat]:
    """The processes whose name begins as one of `programs` and whose working folder is in that one."""
    return [stat for stat in every() if _lives(stat.pid, path, programs)]


def _lives(pid: int, path: str, programs: Sequence[str]) -> bool:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            name = file.read()
        if not name.startswith(tuple(programs)):
            return False
        return f"{os.readlink(f'/proc/{pid}/cwd')}/".startswith(f"{path}/")
    except OSError:  # it has just ended, or is another user's
        return False


def evict(path: str, programs: Sequence[str], signal: str) -> bool:
    """Send the signal to the first of each family, and to all what lets them act on it.

    True once nobody is left; waits for that half a second.
    """
    number = signals.Signals[f"SIG{signal}"]
    if number not in (signals.SIGTERM, signals.SIGQUIT, signals.SIGKILL):
        raise ValueError(f"an undo sends no {signal} to servers")
    found = living(path, programs)
    ids = {stat.pid for stat in found}
    for stat in found:
        if stat.parent not in ids or number == signals.SIGKILL:
            stat.identity.signal(number)
        if stat.stopped:
            stat.identity.signal(signals.SIGCONT)
    end = time.monotonic() + WAIT_SECONDS
    while found and time.monotonic() < end:
        time.sleep(0.002)
        found = living(path, programs)
    return not found
