"""A maker of faults, to be killed: `python maker.py COUNT`. Each line read from it names what is in force."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import ClassVar

from brownout._core.fault import Fault
from brownout.fault.identity import Identity
from brownout.fault.made import Made, Step


@dataclass(frozen=True, kw_only=True)
class Halt(Fault):
    """A kind for these tests."""

    kind: ClassVar[str] = "halt"


def halt(of: Identity, seconds: float = 60.0, **more: object) -> Made:
    """A process is stopped: made by a signal, undone by its step."""
    return Made(
        place=f"process {of.pid}",
        mechanism="process",
        fault=Halt(),
        seconds=seconds,
        undo_steps=[Step("signal", pid=of.pid, start=of.start, signal="CONT")],
        apply=lambda: of.signal(signal.SIGSTOP),
        **more,  # type: ignore[arg-type]
    )


def main() -> None:
    """Stop a process that outlives us, and wait to be killed."""
    sleeper = subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=subprocess.DEVNULL)
    of = Identity.of(sleeper.pid)
    print(of.pid, of.start, flush=True)
    with halt(of) as made:
        print(made.id, flush=True)
        time.sleep(60)


if __name__ == "__main__":
    if sys.argv[1:] == ["ends"]:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    main()
