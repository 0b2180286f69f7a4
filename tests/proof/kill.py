"""Exactly once under SIGKILL: `python -m tests.proof.kill --store sqlite|postgres|redis --seconds N`.

Two workers serve the same keys and are killed at random points, or stopped for longer than their lease.
Answers are lost. The caller retries every key that it does not know, asks, and voids some. At the end
each claim that it was told is compared with what really happened: a row in the database for what is
atomic, a line in a file for what is not, which the downstream of a resumable handler writes once for
each child key. One line of JSON tells; the exit code is 1 if anything was wrong.

One worker works by threads, the other by asyncio. A third of the opaque handlers raise, some before and
some after their effect. `--without` switches one of the rules off, which must show.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.ledger.conftest import key
from tests.ledger.servers import PostgresServer, RedisServer
from tests.proof.history import Told, violation
from tests.proof.killed import HANDLERS, LEASE_SECONDS, RULES, Place, Worker

SETTLE_SECONDS = 30.0
KILLED, STOPPED, LOST, VOIDS, ASKS = 0.3, 0.03, 0.2, 0.15, 0.05
WITHIN_SECONDS = 0.012
RESTART_SECONDS = 3.0
LOOK_SECONDS = 0.25


class Caller:
    """Makes keys, and goes on with each until it knows what became of it."""

    def __init__(self, place: Place, seed: int) -> None:
        self.place = place
        self.random = random.Random(seed)
        self.open: dict[str, str] = {}  # key -> handler
        self.handlers: dict[str, str] = {}
        self.told: dict[str, tuple[str, str]] = {}
        self.histories: dict[str, list[Told]] = {}
        self.counts: Counter[str] = Counter()

    def next(self, *, ending: bool) -> tuple[str, str, str] | None:
        """What to send: how, which key, and of which class."""
        if self.open and (ending or self.random.random() < 0.6):
            name = self.random.choice(list(self.open))
        elif ending:
            return None
        else:
            name = key(time.time())
            self.handlers[name] = self.open[name] = self.random.choice(self.place.handlers)
            return "do", name, self.open[name]
        chance = self.random.random()
        how = "void" if chance < VOIDS else "ask" if chance < VOIDS + ASKS else "do"
        return how, name, self.open[name]

    def hear(self, name: str, asked: float, says: str, value: str) -> None:
        self.counts[f"told {says}"] += 1
        if says not in {"ok", "void", "doubt", "running", "absent"}:
            return
        history = self.histories.setdefault(name, [])
        history.append(Told(asked, time.monotonic(), says, value))
        if says in {"ok", "void"}:
            self.told[name] = says, value
            self.open.pop(name, None)
        elif says == "doubt" and self.handlers[name] == "opaque":
            self.told.setdefault(name, (says, ""))
            self.open.pop(name, None)

    def verdict(self, effects: Counter[str]) -> dict[str, Any]:
        """Each claim against the truth."""
        wrong = {
            "effect twice": [n for n in self.handlers if effects[n] > 1],
            "ok without effect": [
                n for n, t in self.told.items() if t[0] == "ok" and not effects[n]
            ],
            "void and done": [n for n, t in self.told.items() if t[0] == "void" and effects[n]],
            "in doubt, and not opaque": [
                name
                for name, history in self.histories.items()
                if self.handlers[name] != "opaque" and any(t.says == "doubt" for t in history)
            ],
            "not linearizable": [
                f"{name} {said}"
                for name, history in self.histories.items()
                if (said := violation(history, back=self.handlers[name] == "opaque"))
            ],
            "unresolved": [*self.open],
        }
        by_class = {
            handler: dict(
                Counter(
                    self.told[name][0] if name in self.told else "open"
                    for name, its in self.handlers.items()
                    if its == handler
                )
            )
            for handler in self.place.handlers
        }
        doubts = [name for name, told in self.told.items() if told[0] == "doubt"]
        return {
            "keys": len(self.handlers),
            **self.counts,
            "told": by_class,
            "doubts that had happened": sum(effects[name] > 0 for name in doubts),
            "wrong": {name: found[:5] for name, found in wrong.items() if found},
        }


class Run:
    """The workers, and who shoots at them."""

    def __init__(self, place: Place, caller: Caller) -> None:
        self.place, self.caller = place, caller
        self.workers = [Worker(place, asynchronous=bool(n)) for n in range(2)]

    def go(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        restart = time.monotonic() + RESTART_SECONDS
        look = time.monotonic() + LOOK_SECONDS
        while (now := time.monotonic()) < end + SETTLE_SECONDS:
            ending = now >= end
            if ending and not self.caller.open:
                break
            if not ending and now > restart and self.place.restart():
                self.caller.counts["server shot"] += 1
                restart = time.monotonic() + RESTART_SECONDS
            if self.place.without and now > look:
                look = now + LOOK_SECONDS
                if {*self.caller.verdict(self.place.effects())["wrong"]} - {"unresolved"}:
                    break
            for worker in self.workers:
                self._send(worker, ending=ending)
            ready, _, _ = select.select([w.said for w in self.workers if w.alive()], [], [], 0.002)
            for at, worker in enumerate(self.workers):
                if worker.said in ready:
                    self._hear(worker, ending=ending)
                self._shoot(at, worker)
        for worker in self.workers:
            worker.kill()

    def _send(self, worker: Worker, *, ending: bool) -> None:
        if not worker.ready or worker.asked is not None or not worker.alive():
            return
        what = self.caller.next(ending=ending)
        if what is None:
            return
        chance = self.caller.random.random()
        now = time.monotonic()
        if not ending and chance < KILLED:
            worker.dies_at = now + self.caller.random.random() * WITHIN_SECONDS
        elif not ending and chance < KILLED + STOPPED:
            worker.stops_at = now + self.caller.random.random() * WITHIN_SECONDS
        self.caller.counts["attempts"] += 1
        worker.ask(*what)

    def _hear(self, worker: Worker, *, ending: bool) -> None:
        for name, asked, says, value in worker.answers():
            if ending or self.caller.random.random() >= LOST:
                self.caller.hear(name, asked, says, value)

    def _shoot(self, at: int, worker: Worker) -> None:
        now = time.monotonic()
        if worker.stops_at and now >= worker.stops_at:
            worker.stop(LEASE_SECONDS * 2)
            self.caller.counts["paused"] += 1
        if worker.dies_at and now >= worker.dies_at:
            worker.kill()
            self.caller.counts["killed"] += 1
        if not worker.alive():
            worker.kill()
            self.workers[at] = Worker(self.place, asynchronous=bool(at))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proof.kill")
    parser.add_argument("--store", choices=["sqlite", "postgres", "redis"], required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--handlers", default="", help="of atomic,resumable,opaque")
    parser.add_argument("--without", choices=RULES, default="", help="end as soon as that shows")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--no-restart", action="store_true", help="leave the server alone")
    told = parser.parse_args(arguments)
    # a killed process loses nothing of what is only in memory
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="brownout-kill-", dir=memory))
    server = {"postgres": PostgresServer, "redis": RedisServer}.get(told.store)
    try:
        if server is None:
            return _run(told, Place(f"sqlite:///{folder / 'ledger.db'}", folder, None))
        with server() as started:
            shot = None if told.no_restart else started
            return _run(told, Place(started.url, folder, shot))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(told: argparse.Namespace, place: Place) -> int:
    wanted = told.handlers.split(",") if told.handlers else HANDLERS
    place.handlers = [each for each in wanted if each in place.handlers]
    place.without = told.without
    place.create()
    caller = Caller(place, told.seed)
    Run(place, caller).go(told.seconds)
    verdict = {"store": told.store, **caller.verdict(place.effects())}
    print(json.dumps(verdict))
    return 1 if verdict["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
