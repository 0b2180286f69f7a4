"""A caller that is going to be killed: it pays, and some of its replies are lost.

    payer.py LEDGER JOURNAL pay SEED      pays until it is killed; says `sent K` and `certain K`
    payer.py LEDGER JOURNAL die (or adie) pays once, and is killed in the instant in which it sends
    payer.py LEDGER JOURNAL settle        settles what its journal holds; says `done K` or `void K`

Both sides of the wire are here: what it calls commits in the ledger's database, or is killed with it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
import time
from typing import TYPE_CHECKING

from brownout import Guard, Key, _unknown
from brownout.ledger import Ledger, journal

if TYPE_CHECKING:
    from brownout import Outcome


# A disk that is slow for a moment, as on a busy machine, would let a call go on without its entry.
_unknown.WRITE_SECONDS = journal.SLOW_SECONDS = 20.0


def tell(*words: str) -> None:
    """One line, written in one piece: what was told before a SIGKILL is told."""
    os.write(1, f"{' '.join(words)}\n".encode())


def pause(seconds: float) -> None:
    time.sleep(seconds)


class Payer:
    """The guard, and what it calls."""

    def __init__(self, path: str, pages: str, seed: int) -> None:
        self.path = path
        self.random = random.Random(seed)
        self.ledger = Ledger(f"sqlite:///{path}")
        self.guard = Guard("pay", ask=self.ledger, journal=f"sqlite:///{pages}", breaker=None)
        self._charge = self.ledger.once("atomic", key="key")(self._paid)

    def _paid(self, key: str) -> str:
        connection = sqlite3.connect(self.path, timeout=5.0)
        try:
            with connection:
                self.ledger.enlist(connection)
                connection.execute("INSERT INTO payments VALUES (?)", (key,))
                pause(self.random.random() * 0.004)
        finally:
            connection.close()
        return "paid"

    def charge(self, key: str) -> str:
        """One attempt over a wire that loses things."""
        tell("sent", key)
        fate = self.random.random()
        if fate < 0.1:
            raise TimeoutError("the request is lost")
        value = self._charge(key=key)
        pause(self.random.random() * 0.002)
        if fate < 0.2:
            raise TimeoutError("the reply is lost")
        return value

    def pay(self) -> None:
        """Pay, without an end."""
        while True:
            key = Key.new()
            outcome: Outcome[str] = self.guard.outcome(self.charge, key, key=key)
            if not outcome.unknown:
                tell("certain", key)

    def die(self) -> None:
        """Be killed as soon as it is sent."""
        key = Key.new()

        def send() -> None:
            tell("sent", key)
            os.kill(os.getpid(), signal.SIGKILL)

        self.guard.outcome(send, key=key)

    def adie(self) -> None:
        """The same under asyncio."""
        key = Key.new()

        async def send() -> None:
            tell("sent", key)
            os.kill(os.getpid(), signal.SIGKILL)

        async def main() -> None:
            await self.guard.outcome(send, key=key)

        asyncio.run(main())

    def settle(self) -> None:
        """What a restarted caller does first."""
        for outcome in self.guard.unknowns():
            new = self.guard.resolve(outcome, within=2.0)
            tell("done" if new.succeeded else "void" if new.failed else "unknown", str(new.key))


if __name__ == "__main__":
    ledger, pages, what, *seed = sys.argv[1:]
    payer = Payer(ledger, pages, int(seed[0]) if seed else 0)
    {"pay": payer.pay, "die": payer.die, "adie": payer.adie, "settle": payer.settle}[what]()
