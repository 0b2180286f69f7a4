"""How long each fault of a process takes to make and to undo: `python -m bench.process --rounds 30`.

`bare` is the mechanism alone, from the call until it is seen in force, and from the call of its undo until it
is seen gone; `make` and `undo` are what a user waits for, with the record and a watchdog that runs already.
Milliseconds, median and worst. The victim is an idle tree of `--kin` processes; for the backlog a listener
that accepts nobody.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from brownout.fault import (
    AbortConnections,
    ExhaustFiles,
    FillBacklog,
    Freeze,
    Kill,
    Listener,
    Pause,
    Process,
    Starve,
    undo,
)
from brownout.fault.process.abort import abort
from brownout.fault.process.backlog import fill
from brownout.fault.process.files import exhaust
from brownout.fault.process.freeze import freeze
from brownout.fault.process.neighbour import crowd
from brownout.fault.process.starve import starve
from brownout.fault.process.stop import kill, pause, stop_tree
from brownout.fault.process.subject import Subject
from brownout.fault.tcp.address import Address

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout._core.fault import Fault
    from brownout.fault.process.mechanism import Mechanism

VICTIM = """
import os, socket, sys, time
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
held = [socket.create_connection(listener.getsockname()) for _ in range(20)]
for _ in range(20): held.append(listener.accept()[0])
me = os.getpid()
for _ in range(int(sys.argv[1]) - 1):
    if os.getpid() == me and not os.fork():
        while os.getppid() == me: time.sleep(0.05)
        os._exit(0)
print(listener.getsockname()[1], flush=True)
while True: time.sleep(0.05)
"""


class Victim:
    def __init__(self, kin: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", VICTIM, str(kin)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.subject = Subject(self.process)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def everything(_: list[Any]) -> list[Any]:
    return _


SHARE = Starve(cpu_share=0.5)
WAYS: dict[str, Callable[[Victim], Mechanism]] = {
    "Pause, SIGSTOP": lambda v: pause(v.subject),
    "Freeze, cgroup v2": lambda v: freeze(v.subject, versions=(2,)),
    "Freeze, cgroup v1": lambda v: freeze(v.subject, versions=(1,)),
    "Freeze, SIGSTOP": lambda v: stop_tree(v.subject),
    "Starve, cgroup": lambda v: starve(v.subject, SHARE),
    "Starve, neighbour": lambda v: crowd(v.subject, SHARE, "it was asked for"),
    "ExhaustFiles": lambda v: exhaust(v.subject, 0),
    "FillBacklog, 129": lambda v: fill(Address("127.0.0.1", v.port)),
    "AbortConnections, 40": lambda v: abort(v.subject, everything),
    "Abort., disconnect": lambda v: abort(v.subject, everything, weaker=True),
    "Kill": lambda v: kill(v.subject),
}
KINDS: dict[str, Fault] = {
    "Pause, SIGSTOP": Pause(),
    "Freeze, cgroup v2": Freeze(),
    "Starve, cgroup": SHARE,
    "ExhaustFiles": ExhaustFiles(),
    "FillBacklog, 129": FillBacklog(),
    "AbortConnections, 40": AbortConnections(),
    "Kill": Kill(),
}


def bare(victim: Victim, way: Callable[[Victim], Mechanism]) -> tuple[float, float]:
    began = time.perf_counter()
    mechanism = way(victim)
    mechanism.enter()
    made = time.perf_counter()

    def gone() -> bool:
        return mechanism.closed() and undo.gone(mechanism.steps)

    def do(hard: bool) -> None:
        mechanism.close()
        undo.take(mechanism.steps, hard=hard)

    problem = undo.until_gone(do, gone)
    if problem:
        raise SystemExit(problem)
    return (made - began) * 1e3, (time.perf_counter() - made) * 1e3


def whole(victim: Victim, fault: Fault) -> tuple[float, float]:
    place = (
        Listener(f"127.0.0.1:{victim.port}")
        if isinstance(fault, FillBacklog)
        else Process(victim.process)
    )
    began = time.perf_counter()
    made = place.make(fault)
    done = time.perf_counter()
    made.undo()
    return (done - began) * 1e3, (time.perf_counter() - done) * 1e3


def told(rounds: list[tuple[float, float]]) -> dict[str, float]:
    ups, downs = zip(*rounds, strict=True)
    return {
        "up_p50": median(ups),
        "up_worst": max(ups),
        "down_p50": median(downs),
        "down_worst": max(downs),
    }


def rounds_of(name: str, count: int, kin: int, one: Callable[[Victim], tuple[float, float]]) -> Any:
    found: list[tuple[float, float]] = []
    spent = name.split(",", maxsplit=1)[0] in ("Kill", "AbortConnections", "Abort.", "FillBacklog")
    victim = Victim(kin)
    try:
        for _ in range(count):
            found.append(one(victim))
            if spent:  # it has no more connections, or a queue of dead ones
                victim.end()
                victim = Victim(kin)
    finally:
        victim.end()
    return told(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--kin", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        os.environ["BROWNOUT_FAULTS"] = f"{state}/faults"
        victim = Victim(1)
        whole(victim, Pause())  # the watchdog runs from now on
        victim.end()
        table: dict[str, dict[str, dict[str, float]]] = {}
        for name, way in WAYS.items():
            table[name] = {"bare": rounds_of(name, asked.rounds, asked.kin, partial(bare, way=way))}
            if name in KINDS:
                table[name]["whole"] = rounds_of(
                    name, asked.rounds, asked.kin, partial(whole, fault=KINDS[name])
                )
    if asked.json:
        print(json.dumps({"machine": platform.platform(), "milliseconds": table}))
        return
    print(f"{'milliseconds: median, worst':28}{'bare':>14}{'gone':>16}{'make':>16}{'undo':>16}")
    for name, parts in table.items():
        cells = [
            f"{part[f'{way}_p50']:8.2f} {part[f'{way}_worst']:7.1f}"
            for part in parts.values()
            for way in ("up", "down")
        ]
        print(f"{name:26}" + "".join(cells))


if __name__ == "__main__":
    main()
