"""A process that holds a fault after the command that asked for it has ended.

It is a child in a session of its own, and its record says that it may be ended: then what it holds ends
with it, and what would outlive it is undone by whoever ends it, or by the watchdog.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from brownout.errors import BrownoutError, FaultRefused
from brownout.fault.made import held_for_others

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from brownout.fault.made import Made

__all__ = ["hold"]

START_SECONDS = 30.0
LOOK_SECONDS = 0.2


def hold(make: Callable[[], AbstractContextManager[Made]], *, target: str = "") -> dict[str, Any]:
    """Have a process of its own make it and stay: `id place fault listen pid ends_in_seconds` of it.

    Raises FaultRefused with what that process said if it could not.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    hears, tells = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(hears)
        _child(make, target, tells)
    os.close(tells)
    try:
        with open(hears, encoding="utf-8") as said:  # noqa: PTH123  a descriptor
            ready = select.select([said], [], [], START_SECONDS)[0]
            line = said.readline() if ready else ""
        told: dict[str, Any] = json.loads(line)
    except ValueError:
        told = {"error": f"the process that was to hold it said nothing within {START_SECONDS:g} s"}
    if "error" in told:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise FaultRefused(told["error"])
    return told


def _child(make: Callable[[], AbstractContextManager[Made]], target: str, tells: int) -> NoReturn:
    try:
        os.setsid()
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.chdir("/")
        held_for_others(target=target)
        try:
            with make() as made:
                told: dict[str, Any] = {"id": made.id, "place": made.place}
                told |= {"fault": str(made.fault), "listen": made.listen or None}
                told |= {"ends_in_seconds": made.seconds_left, "pid": os.getpid()}
                wanted = _tell(tells, told)
                while wanted and made.active:
                    time.sleep(LOOK_SECONDS)
        except BrownoutError as error:
            _tell(tells, {"error": str(error)})
        except Exception as error:
            _tell(tells, {"error": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(0)


def _tell(to: int, what: dict[str, Any]) -> bool:
    """Say it once; False if nobody listens any more: then nobody knows of the fault, or wants it."""
    try:
        os.write(to, json.dumps(what).encode() + b"\n")
        os.close(to)
    except OSError:
        return False
    return True
