"""The load: calls both chains at the same instants, and judges from outside what came back. Stands alone.

Open loop: calls are made when they are due, whether or not earlier ones have been answered. Half of them
ask for `/catalog`, which the shop answers by itself; half for `/quote/<n>`, which needs the downstream.
What was called, what came back and how the rate was changed is the truth of the case.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

from .child import Child, run
from .price import ITEMS, judged

DEADLINE_SECONDS = 1.0  # what comes later is of no use to whoever asked
NEVER_SECONDS = 5.0  # what has not come by then is taken to come never
JITTER = 0.3
TALLY_SECONDS = 0.5


@dataclass
class Call:
    """One call in flight."""

    path: str
    sent_at: float


@dataclass
class Chain:
    """The way into one chain: its connection, the calls in flight, how many came to which verdict."""

    name: str
    child: Child
    writer: asyncio.StreamWriter
    pending: dict[int, Call] = field(default_factory=dict[int, Call])
    tally: dict[str, int] = field(default_factory=dict[str, int])

    def send(self, number: int, path: str) -> None:
        """Make a call."""
        self.pending[number] = Call(path, time.monotonic())
        self.writer.write(json.dumps({"id": number, "path": path}).encode() + b"\n")

    def answered(self, answer: dict[str, Any]) -> None:
        """Judge and record what came back. After it was given up for lost, it counts no more."""
        call = self.pending.pop(answer["id"], None)
        if call is None:
            return
        seconds = time.monotonic() - call.sent_at
        verdict = judged(
            call.path, answer["status"], answer["body"], degraded=bool(answer["degraded"])
        )
        self._record(call, verdict if seconds <= DEADLINE_SECONDS else "late", seconds)

    def give_up(self, sent_before: float) -> None:
        """Write off the calls that have waited since then."""
        for number, call in list(self.pending.items()):
            if call.sent_at < sent_before:
                del self.pending[number]
                self._record(call, "never", time.monotonic() - call.sent_at)

    def _record(self, call: Call, verdict: str, seconds: float) -> None:
        self.tally[verdict] = self.tally.get(verdict, 0) + 1
        self.child.record(
            "call",
            chain=self.name,
            path=call.path,
            at=call.sent_at,
            seconds=round(seconds, 5),
            verdict=verdict,
        )


class Load:
    """Makes the calls of both streams, and hears the answers of both chains."""

    def __init__(self, child: Child, chains: list[Chain]) -> None:
        self._child = child
        self._chains = chains
        self._chance = random.Random(child.spec["seed"])
        self._number = 0
        self.rates = {"catalog": 50.0, "quote": 50.0}

    async def pace(self, stream: str) -> None:
        """Make the calls of one stream, evenly spaced but for a jitter, for ever."""
        due = time.monotonic()
        while True:
            due += self._chance.uniform(1 - JITTER, 1 + JITTER) / self.rates[stream]
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            item = self._chance.randrange(ITEMS)
            self._number += 1
            for chain in self._chains:
                chain.send(self._number, "/catalog" if stream == "catalog" else f"/quote/{item}")

    async def hear(self, chain: Chain, reader: asyncio.StreamReader) -> None:
        """Take in the answers of one chain until it closes."""
        while line := await reader.readline():
            chain.answered(json.loads(line))

    async def tally(self) -> None:
        """Tell the parent how the calls end, and write off what never comes."""
        while True:
            await asyncio.sleep(TALLY_SECONDS)
            for chain in self._chains:
                chain.give_up(time.monotonic() - NEVER_SECONDS)
            self._child.tell(tally={chain.name: chain.tally for chain in self._chains})

    async def obey(self) -> None:
        """Carry out commands until told to stop: start, `{"rate": {...}, "name": ...}`, stop."""
        paces: list[asyncio.Task[None]] = []
        while True:
            command = await self._child.commands.get()
            at = time.monotonic()
            if rate := command.get("rate"):
                self.rates.update(rate)
                self._child.record("rate", at=at, name=command["name"], **self.rates)
            elif command.get("start"):
                self._child.record("start", at=at, **self.rates)
                paces += [asyncio.create_task(self.pace(stream)) for stream in self.rates]
            else:
                break
            self._child.tell(done=command, at=at)
        for task in paces:
            task.cancel()
        end = time.monotonic() + DEADLINE_SECONDS
        while any(chain.pending for chain in self._chains) and time.monotonic() < end:  # noqa: ASYNC110 - it ends
            await asyncio.sleep(0.02)
        for chain in self._chains:
            chain.give_up(time.monotonic())
        self._child.record("stop", at=at)
        self._child.flush()
        self._child.tell(done=command, at=at)


async def main(child: Child) -> None:
    """Connect to both chains' callers, then do as the parent says."""
    chains: list[Chain] = []
    readers: list[asyncio.StreamReader] = []
    for name, port in child.spec["callers"].items():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        chains.append(Chain(name, child, writer))
        readers.append(reader)
    load = Load(child, chains)
    hearing = [load.hear(chain, reader) for chain, reader in zip(chains, readers, strict=True)]
    child.tell(ready={})
    async with asyncio.TaskGroup() as tasks:
        for each in (*hearing, load.tally(), load.obey()):
            tasks.create_task(each)


if __name__ == "__main__":
    run(main)
