"""How the server of a mount is told what to do: lines of JSON on a Unix socket, each answered by one."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict, fields
from math import inf
from typing import TYPE_CHECKING, Any

from brownout._core.fault import Amount, Decision, Log, Schedule
from brownout.errors import FaultRefused
from brownout.fault.disk.rules import MAKES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brownout._core.fault import Fault
    from brownout.fault.disk.kind import Stored

__all__ = ["Answers", "Told", "ask", "gone", "lift", "plain", "read"]

MOST_BYTES = 1 << 20  # of one line
SECONDS = 2.0  # for an answer
DECISIONS = 2000  # in one answer


# ------------------------------------------------------------------------------ faults as data


def plain(fault: Fault) -> dict[str, Any]:
    """A fault as JSON can hold it."""
    return {"kind": fault.kind} | {
        each.name: _plain(getattr(fault, each.name)) for each in fields(fault)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Amount | Schedule):
        return {name: _plain(inner) for name, inner in asdict(value).items()}
    return "inf" if value == inf else value


def read(told: dict[str, Any]) -> Stored:
    """The other way round. Raises KeyError, TypeError or ConfigurationError for what a disk can't make."""
    kinds = {kind.kind: kind for kind in MAKES}
    values = {name: _read(name, value) for name, value in told.items() if name != "kind"}
    return kinds[told["kind"]](**values)


def _read(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        inner: dict[str, Any] = {key: _read(key, each) for key, each in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return Schedule(**inner) if name == "schedule" else Amount(**inner)
    if isinstance(value, list):
        return tuple(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return inf if value == "inf" else value


# ------------------------------------------------------------------------------------ the asking


def ask(path: str, **what: Any) -> dict[str, Any]:
    """Tell the server something, and have its answer.

    Raises FaultRefused with what it says against it, OSError if it has ended or does not answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as to:
        to.settimeout(SECONDS)
        to.connect(path)
        to.sendall(json.dumps(what, allow_nan=False).encode() + b"\n")
        line = bytearray()
        end = time.monotonic() + SECONDS
        while not line.endswith(b"\n"):
            piece = to.recv(1 << 16)
            if not piece or time.monotonic() > end or len(line) > MOST_BYTES:
                raise TimeoutError(f"the server of {path} gave no whole answer")
            line += piece
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise FaultRefused(answer["error"])
    return answer


def lift(path: str, name: str) -> None:
    """Undo a fault there, if there is still somebody who makes it."""
    try:
        ask(path, do="undo", name=name)
    except (FileNotFoundError, ConnectionError):
        return


def gone(path: str, name: str) -> bool:
    """Whether it is seen to be undone: what hung by it was answered."""
    try:
        return name not in ask(path, do="look")["rules"]
    except (FileNotFoundError, ConnectionError):
        return True


class Told(Log):
    """What the server decided, fetched when it is looked at, and for the last time when it is undone."""

    def __init__(self, path: str, name: str) -> None:
        super().__init__()
        self._path, self._name = path, name
        self._at = 0

    def fetch(self) -> None:
        """Have what is new."""
        try:
            while True:
                answer = ask(self._path, do="log", name=self._name, since=self._at)
                for row in answer["decisions"]:
                    self.add(Decision(*row))
                self.lost += answer["lost"]
                self._at = answer["next"]
                if not answer["more"]:
                    return
        except (OSError, FaultRefused):  # it has ended: what we have is all there is
            return

    def __iter__(self) -> Iterator[Decision]:
        """All that are kept."""
        self.fetch()
        return super().__iter__()

    def __len__(self) -> int:
        self.fetch()
        return super().__len__()


class Answers:
    """A line of the server's side: what has come of it, and whether it is whole."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.line = bytearray()

    def take(self) -> dict[str, Any] | None:
        """The question, once it is whole. Raises ValueError or OSError if none will come."""
        piece = self.sock.recv(1 << 16)
        self.line += piece
        if not piece or len(self.line) > MOST_BYTES:
            raise ValueError("no question")
        if not self.line.endswith(b"\n"):
            return None
        question: Any = json.loads(self.line)
        if not isinstance(question, dict):
            raise ValueError("no question")  # noqa: TRY004
        self.line.clear()
        return question  # pyright: ignore[reportUnknownVariableType]

    def give(self, answer: dict[str, Any]) -> None:
        """Answer it."""
        self.sock.settimeout(SECONDS)
        self.sock.sendall(json.dumps(answer).encode() + b"\n")
        self.sock.settimeout(0)
