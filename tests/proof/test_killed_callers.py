"""Callers that are killed: whatever was sent is certain, or stands in the journal, and is settled truly."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from brownout import Phase
from brownout._core.journal import Entry
from brownout.ledger import Ledger
from brownout.ledger.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator

PAYER = str(Path(__file__).with_name("payer.py"))
LIMIT_SECONDS = 30.0


class Shop:
    """The ledger with its business table, the journal, and the callers that were started."""

    def __init__(self, folder: Path) -> None:
        self.database, self.journal = str(folder / "shop.db"), str(folder / "unknown.db")
        with Ledger_(self.database):
            pass
        with sqlite3.connect(self.database) as connection:
            connection.execute("CREATE TABLE payments (key TEXT NOT NULL)")
        connection.close()
        self.children: list[subprocess.Popen[str]] = []

    def start(self, *what: str) -> subprocess.Popen[str]:
        command = [sys.executable, PAYER, self.database, self.journal, *what]
        self.children.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return self.children[-1]

    def told(self, child: subprocess.Popen[str]) -> list[tuple[str, str]]:
        """What a child had said until its end."""
        out, _ = child.communicate(timeout=LIMIT_SECONDS)
        lines = [tuple(line.split()) for line in out.splitlines() if line.count(" ") == 1]
        return [(line[0], line[1]) for line in lines]

    def payments(self) -> Counter[str]:
        with sqlite3.connect(self.database, timeout=5.0) as connection:
            found = Counter(row[0] for row in connection.execute("SELECT key FROM payments"))
        connection.close()
        return found

    def unknown(self) -> list[Entry]:
        journal = Journal(self.journal)
        try:
            return journal.unsettled("pay")
        finally:
            journal.end()


class Ledger_:  # noqa: N801 - a Ledger that is closed
    def __init__(self, path: str) -> None:
        self._ledger = Ledger(f"sqlite:///{path}")

    def __enter__(self) -> Ledger:
        self._ledger.create()
        return self._ledger

    def __exit__(self, *_: object) -> None:
        self._ledger.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    for child in shop.children:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def killed(child: subprocess.Popen[str], after: int, seconds: float) -> list[str]:
    """Read so many lines, wait a bit, and kill it: what it had said by then."""
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(after)]
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    return said


def test_no_unknown_is_forgotten_and_each_is_settled_truly(shop: Shop) -> None:
    """SIGKILL in the midst of calls, again and again; then the restarted caller settles its own."""
    chance, sent, certain = random.Random(7), set[str](), set[str]()
    for life in range(6):
        child = shop.start("pay", str(life))
        said = killed(child, 20, chance.random() * 0.01)
        told = [*((a, b) for a, b in map(str.split, said)), *shop.told(child)]
        sent |= {key for what, key in told if what == "sent"}
        certain |= {key for what, key in told if what == "certain"}
    unknown = {entry.key for entry in shop.unknown()}
    assert sent - certain <= unknown  # none is forgotten
    assert len(sent - certain) > 6
    paid = shop.payments()
    assert certain <= set(paid)
    settler = shop.start("settle")
    settled = {key: what for what, key in shop.told(settler)}
    assert settler.returncode == 0
    assert set(settled) == unknown
    paid = shop.payments()
    assert max(paid.values()) == 1
    for key, what in settled.items():
        assert (what, paid[key]) in {("done", 1), ("void", 0)}
    assert set(settled.values()) == {"done", "void"}
    assert shop.unknown() == []


def test_it_is_written_down_before_it_is_sent(shop: Shop) -> None:
    for how in ("die", "die", "adie", "adie"):
        child = shop.start(how)
        ((what, key),) = shop.told(child)
        assert (child.returncode, what) == (-signal.SIGKILL, "sent")
        entry = {entry.key: entry for entry in shop.unknown()}[key]
        assert not entry.held  # the dead hold nothing


def test_a_settler_that_is_killed_is_followed_by_the_next(shop: Shop) -> None:
    killed(shop.start("pay", "1"), 60, 0.0)
    unknown = {entry.key for entry in shop.unknown()}
    settled: dict[str, str] = {}
    for lines in (1, 2):
        child = shop.start("settle")
        said = killed(child, lines, 0.002)
        for what, key in [*((a, b) for a, b in map(str.split, said)), *shop.told(child)]:
            assert settled.setdefault(key, what) == what
    last = shop.start("settle")
    for what, key in shop.told(last):  # what the dead held is free at once
        assert settled.setdefault(key, what) == what
    assert shop.unknown() == []
    paid = shop.payments()
    assert set(settled) <= unknown
    for key, what in settled.items():
        assert (what, paid[key]) in {("done", 1), ("void", 0)}


def test_two_settlers_ask_for_no_key_at_once(shop: Shop) -> None:
    """Two processes, one journal: each key has one resolver, and all are settled."""
    killed(shop.start("pay", "2"), 60, 0.0)
    journal = Journal(shop.journal)
    entry = Entry("held", "pay", "charge", Phase.SENT, time.time(), 1)
    assert journal.begin(entry, 60.0).result(5)  # by a call of this process
    unknown = {entry.key for entry in shop.unknown()} - {"held"}
    both = [shop.start("settle"), shop.start("settle")]
    told = [{key: what for what, key in shop.told(child)} for child in both]
    assert all(child.returncode == 0 for child in both)
    assert set(told[0]) | set(told[1]) == unknown
    for key in unknown:  # who came second was told the same, or that somebody else was at it
        answers = {one[key] for one in told if key in one} - {"unknown"}
        assert answers in ({"done"}, {"void"})
    assert [entry.key for entry in shop.unknown()] == ["held"]
    journal.settle("held", "pay")
    journal.end()
