"""As much of the protocols of PostgreSQL and Redis as asks a server of ours how it is.

So neither a driver nor a program per question is needed: a fence asks two thousand times a second.
PostgreSQL: version 3 of its protocol, simple queries, no password ("Frontend/Backend Protocol" of its
manual). Redis: RESP2 ("Redis serialization protocol specification").
"""

from __future__ import annotations

import socket
import struct
import threading
from typing import TYPE_CHECKING, Any, BinaryIO

from brownout.errors import BrownoutError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Postgres", "Redis"]

MOST_BYTES = 1 << 20  # of one message


class _Line:
    """A Unix socket that is connected when it is first used, and anew after it has broken.

    One question at a time; from any thread. Raises OSError if the server does not answer in time.
    """

    def __init__(self, path: Path, seconds: float = 2.0) -> None:
        self._path = str(path)
        self._seconds = seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._in: BinaryIO | None = None

    def _open(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(self._seconds)
        self._socket.connect(self._path)
        self._in = self._socket.makefile("rb")
        self._greet()

    def _greet(self) -> None:
        """What is said first."""

    def _ask(self, question: bytes) -> Any:
        with self._lock:
            try:
                if self._socket is None:
                    self._open()
                return self._exchange(question)
            except BaseException:
                self._drop()
                raise

    def _exchange(self, question: bytes) -> Any:
        raise NotImplementedError

    def _send(self, data: bytes) -> None:
        assert self._socket is not None
        self._socket.sendall(data)

    def _read(self, count: int) -> bytes:
        assert self._in is not None
        if not 0 <= count <= MOST_BYTES:
            raise ConnectionError(f"a message of {count} bytes from {self._path}")
        data = self._in.read(count)
        if len(data) < count:
            raise ConnectionError(f"{self._path} closed the connection")
        return data

    def _line(self) -> bytes:
        assert self._in is not None
        line = self._in.readline(MOST_BYTES)
        if not line.endswith(b"\r\n"):
            raise ConnectionError(f"{self._path} closed the connection")
        return line[:-2]

    def _drop(self) -> None:
        for each in (self._in, self._socket):
            if each is not None:
                each.close()
        self._in = self._socket = None

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()


class Postgres(_Line):
    """A session of user and database "postgres"."""

    def ask(self, query: str) -> list[list[str | None]]:
        """The rows of a query, as text. Raises BrownoutError with what the server says is wrong."""
        rows: list[list[str | None]] = self._ask(query.encode() + b"\0")
        return rows

    def _greet(self) -> None:
        about = struct.pack("!i", 196608) + b"user\0postgres\0database\0postgres\0\0"
        self._send(struct.pack("!i", len(about) + 4) + about)
        self._until_ready()

    def _exchange(self, question: bytes) -> list[list[str | None]]:
        self._send(b"Q" + struct.pack("!i", len(question) + 4) + question)
        return self._until_ready()

    def _until_ready(self) -> list[list[str | None]]:
        rows: list[list[str | None]] = []
        problem = ""
        while True:
            kind = self._read(1)
            body = self._read(struct.unpack("!i", self._read(4))[0] - 4)
            if kind == b"R" and body[:4] != b"\0\0\0\0":
                raise BrownoutError(f"{self._path} wants a password: it is no server of ours")
            if kind == b"D":
                rows.append(_columns(body))
            elif kind == b"E":
                parts = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0")}
                problem = f"{parts.get(b'M', 'no message')} ({parts.get(b'C', '')})"
                if parts.get(b"S") in ("FATAL", "PANIC"):  # no "ready" comes after it
                    raise ConnectionError(f"{self._path}: {problem}")
            elif kind == b"Z":
                if problem:
                    raise BrownoutError(f"{self._path}: {problem}")
                return rows


def _columns(body: bytes) -> list[str | None]:
    count, at = struct.unpack_from("!h", body)[0], 2
    row: list[str | None] = []
    for _ in range(count):
        size = struct.unpack_from("!i", body, at)[0]
        at += 4
        row.append(None if size < 0 else body[at : at + size].decode())
        at += max(0, size)
    return row


class Redis(_Line):
    """A session with a password."""

    def __init__(self, path: Path, password: str, seconds: float = 2.0) -> None:
        super().__init__(path, seconds)
        self._password = password

    def ask(self, *words: str) -> Any:
        """The answer to a command: text, a number, None or a list of them. Raises BrownoutError."""
        return self._ask(_command(*words))

    def info(self, section: str = "replication") -> dict[str, str]:
        """What `INFO` tells."""
        lines = str(self.ask("INFO", section)).splitlines()
        return {name: value for name, _, value in (line.partition(":") for line in lines)}

    def _greet(self) -> None:
        self._exchange(_command("AUTH", self._password))

    def _exchange(self, question: bytes) -> Any:
        self._send(question)
        return self._answer()

    def _answer(self) -> Any:
        line = self._line()
        kind, text = line[:1], line[1:].decode(errors="replace")
        match kind:
            case b"+":
                return text
            case b":":
                return int(text)
            case b"$":
                return None if text == "-1" else self._read(int(text) + 2)[:-2].decode()
            case b"*":
                return [self._answer() for _ in range(int(text))]
            case _:
                raise BrownoutError(f"{self._path}: {text}")


def _command(*words: str) -> bytes:
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(parts)}\r\n{''.join(parts)}".encode()
