"""Makers of faults that are killed: one process forks them all, so that hundreds cost seconds.

`python mortal.py PLAN.json` reads a list of [mechanism, moment]; for each it starts a victim and a maker,
kills the maker at that moment, and looks what became of the victim. It prints what is wrong, as JSON.
"""

from __future__ import annotations

import json
import os
import random
import resource
import select
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brownout.cli.hold import hold
from brownout.fault import (
    AbortConnections,
    ExhaustFiles,
    FillBacklog,
    Freeze,
    Latency,
    Listener,
    Pause,
    Process,
    Starve,
)
from brownout.fault.identity import Identity
from brownout.fault.process import group
from brownout.fault.tcp import running

FORCE = 50.0
AT_ONCE = 25
FILES = 512


def serve() -> None:
    """A victim: it listens, holds a connection to itself, and waits to be killed."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    with socket.create_server(("127.0.0.1", 0), backlog=4) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        one = socket.create_connection(listener.getsockname())
        other = listener.accept()[0]
        listener.setblocking(False)
        while True:  # now and then it accepts all that wait, as far as there are files
            with suppress(OSError):
                while True:
                    listener.accept()[0].close()
            time.sleep(0.25)
        del one, other


@dataclass
class Trial:
    mechanism: str
    moment: str
    victim: Identity = field(default_factory=lambda: Identity(0, 0))
    port: int = 0
    maker: int = 0
    says: int = -1
    holder: int = 0
    wrong: list[str] = field(default_factory=list)


def forked(act: Any) -> tuple[int, int]:
    """A child that does it, and where it writes to."""
    hears, tells = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(hears)
        os.setsid()
        try:
            sys.stdout = os.fdopen(tells, "w", buffering=1)
            act()
        except BaseException as error:
            with suppress(Exception):
                sys.stdout.write(f"! {type(error).__name__}: {error}\n")
        finally:
            os._exit(0)
    os.close(tells)
    return child, hears


def line(hears: int, seconds: float) -> str:
    """What it writes first, or nothing."""
    if not select.select([hears], [], [], seconds)[0]:
        return ""
    return os.read(hears, 500).decode().strip()


def make(trial: Trial) -> None:
    """What a maker does: make a fault, say so, and wait to be killed."""
    if trial.moment in ("recorded", "watched", "made"):
        os.environ["BROWNOUT_FAULTS_KILL_AT"] = trial.moment
    victim = trial.victim.pid
    if trial.mechanism.startswith("weak"):
        group.hierarchies = lambda *_, **__: []
    match trial.mechanism.removeprefix("weak "):
        case "pause":
            made = Process(victim).make(Pause(), seconds=FORCE)
        case "freeze":
            made = Process(victim).make(Freeze(), seconds=FORCE)
        case "starve":
            made = Process(victim).make(Starve(cpu_share=0.05), seconds=FORCE)
        case "files":
            made = Process(victim).make(ExhaustFiles(), seconds=FORCE)
        case "abort":
            made = Process(victim).make(AbortConnections(), seconds=FORCE)
        case "backlog":
            made = Listener(f"127.0.0.1:{trial.port}").make(FillBacklog(), seconds=FORCE)
        case "proxy":
            path = f"{tempfile.gettempdir()}/s{os.getpid()}"
            with running(f"127.0.0.1:{trial.port}", f"unix:{path}") as proxy:
                made = proxy.make(Latency(seconds=1), seconds=FORCE)
                sys.stdout.write(f"{made.id}\n")
                time.sleep(60)
        case "holder":
            told = hold(lambda: Process(victim).make(Pause(), seconds=FORCE))
            sys.stdout.write(f"holder {told['pid']}\n")
            return
        case other:
            raise ValueError(other)
    sys.stdout.write(f"{made.id}\n")
    time.sleep(60)


def run(batch: list[Trial]) -> None:
    """Start all, kill all."""
    chance = random.Random(len(batch) + time.time_ns())
    for trial in batch:
        pid, hears = forked(serve)
        trial.victim, trial.port = Identity.of(pid), int(line(hears, 10))
        os.close(hears)
    for trial in batch:
        trial.maker, trial.says = forked(lambda trial=trial: make(trial))
        if trial.moment == "any":
            time.sleep(chance.random() * 0.06)
            os.kill(trial.maker, signal.SIGKILL)
    for trial in batch:
        if trial.moment == "force":
            said = line(trial.says, 20)
            if not said or said.startswith("!"):
                trial.wrong.append(f"not made: {said}")
            if said.startswith("holder "):
                trial.holder = int(said.split()[1])
                os.kill(trial.holder, signal.SIGKILL)
            os.kill(trial.maker, signal.SIGKILL)
        elif trial.moment != "any":
            said = line(trial.says, 20)  # its end: it kills itself
            if said:
                trial.wrong.append(f"not killed: {said}")
                os.kill(trial.maker, signal.SIGKILL)
        os.waitpid(trial.maker, 0)
        os.close(trial.says)


def suffers(trial: Trial) -> str:
    """What a victim still suffers from."""
    state = trial.victim.state()
    if state is None:
        return "it is dead"
    if state in "TD":
        return f"it is in state {state}"
    if "brownout-" in Path(f"/proc/{trial.victim.pid}/cgroup").read_text():
        return "it is in a group of ours"
    limit = resource.prlimit(trial.victim.pid, resource.RLIMIT_NOFILE)
    if limit != (FILES, FILES):
        return f"its limit of files is {limit}"
    if os.sched_getaffinity(trial.victim.pid) != os.sched_getaffinity(0):
        return "it is tied to a CPU"
    try:
        socket.create_connection(("127.0.0.1", trial.port), 1).close()
    except OSError as error:
        return f"it does not accept: {error}"
    return ""


def main() -> None:
    plan: list[Trial] = [Trial(*each) for each in json.loads(Path(sys.argv[1]).read_text())]
    slowest = 0.0
    for start in range(0, len(plan), AT_ONCE):
        batch = plan[start : start + AT_ONCE]
        try:
            run(batch)
            died = time.monotonic()
            for trial in batch:
                while (left := suffers(trial)) and time.monotonic() < died + 15:
                    time.sleep(0.02)
                if left:
                    trial.wrong.append(left)
            slowest = max(slowest, time.monotonic() - died)
        finally:
            for trial in batch:
                if trial.victim.pid:
                    os.kill(trial.victim.pid, signal.SIGKILL)
                    os.waitpid(trial.victim.pid, 0)
    wrong = [f"{t.mechanism}, {t.moment}: {t.wrong}" for t in plan if t.wrong]
    print(json.dumps({"killed": len(plan), "slowest": round(slowest, 2), "wrong": wrong}))


if __name__ == "__main__":
    main()
