"""Victims, each a process of its own, and what an outsider sees of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from brownout.fault.process.group import hierarchies
from brownout.fault.process.subject import look, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAM = Path(__file__).with_name("victim.py")
WAIT_SECONDS = 10.0


class Victim:
    def __init__(self, *job: str, prefix: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-S", str(PROGRAM), *job],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout
        self.port = int(self.said.readline())
        self.callers: list[Caller] = []
        stat = look(self.process.pid)
        assert stat
        self.identity = stat.identity

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def state(self) -> str:
        stat = look(self.pid)
        return stat.state if stat else ""

    def connect(self, timeout: float = WAIT_SECONDS) -> Caller:
        self.callers.append(Caller(self.port, timeout))
        return self.callers[-1]

    def ask(self, line: str, timeout: float = WAIT_SECONDS) -> str:
        """One answer on a connection of its own."""
        with self.connect(timeout) as caller:
            return caller.ask(line)

    def end(self) -> None:
        for caller in self.callers:
            caller.close()
        kin = tree([self.identity])
        for stat in kin:
            stat.identity.signal(signal.SIGKILL)
            stat.identity.signal(signal.SIGCONT)
        self.process.wait(WAIT_SECONDS)
        self.said.close()


class Caller:
    def __init__(self, port: int, timeout: float) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.lines = self.socket.makefile("rw")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for each in (self.lines, self.socket):
            with suppress(OSError):
                each.close()

    def send(self, line: str) -> None:
        self.lines.write(line + "\n")
        self.lines.flush()

    def ask(self, line: str) -> str:
        self.send(line)
        return self.lines.readline().strip()


def groups_left() -> list[str]:
    """Control groups of ours that are there now."""
    return [
        str(path)
        for controller in ("freezer", "cpu")
        for where in hierarchies(controller)
        for path in where.mount.rglob(f"brownout-{os.getpid()}-*")
    ]


@pytest.fixture
def victim() -> Iterator[Callable[..., Victim]]:
    started: list[Victim] = []

    def start(*job: str, prefix: tuple[str, ...] = ()) -> Victim:
        started.append(Victim(*job, prefix=prefix))
        return started[-1]

    yield start
    for one in started:
        one.end()
    assert groups_left() == []


@pytest.fixture
def server(victim: Callable[..., Victim]) -> Victim:
    return victim("serve")
