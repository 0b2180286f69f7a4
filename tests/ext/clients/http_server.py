"""A raw server of HTTP/1.1 with a fault for each path, and the truth of what it has done.

Each fault is made by the real mechanism: an end, a reset, silence, an answer that is cut. The path is
`/fault/id`; `done[id]` counts the whole requests that were carried out.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAIT_SECONDS = 20.0
LATE_SECONDS = 4.0
PART = 100_000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
SAYS = {
    "half_headers": b"HTTP/1.1 200 OK\r\nContent-Type: text/pl",
    "garbage": b"\x00\x01\x02 what is this\r\n\r\n",
    "half_body": CUT,
    "half_body_reset": CUT,
    "half_body_silent": CUT,
}
# Of these the server says by its status, or its Outcome, that it has not done the work.
NOT_DONE = ("400", "401", "429", "503_not-started")


def reset(one: socket.socket) -> None:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


class Server:
    """It listens, and each connection has a thread."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _do(self, id_: str) -> None:
        with self._lock:
            self.done[id_] += 1

    def _serve(self, one: socket.socket) -> None:
        one.settimeout(WAIT_SECONDS)
        with suppress(OSError, ValueError), one:
            for number in range(1, 100):
                head, rest = _head(one)
                if head is None:
                    return
                if not self._answer(one, head, rest, number):
                    return

    def _answer(self, one: socket.socket, head: bytes, rest: bytes, number: int) -> bool:
        """Answer one request; False: the connection is over."""
        _, fault, id_ = head.split(b" ")[1].decode().split("/")
        if fault == "never_read":
            time.sleep(1.8)
            reset(one)
            return False
        if fault == "early_401":
            one.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            time.sleep(0.3)
            reset(one)
            return False
        if fault in {"reset_mid_body", "close_mid_body"}:
            _body(one, head, rest, PART)
            reset(one) if fault == "reset_mid_body" else one.close()
            return False
        if number > 1 and fault in {"race_reset", "race_close"}:
            reset(one) if fault == "race_reset" else one.close()
            return False
        if not _body(one, head, rest):
            return False
        if fault in {"lost_reset", "lost_close"}:
            reset(one) if fault == "lost_reset" else one.close()
            return False
        if not fault.startswith(tuple(f"status_{code}" for code in NOT_DONE)):
            self._do(id_)
        return self._after(one, fault)

    def _after(self, one: socket.socket, fault: str) -> bool:
        if fault in {"done_reset", "done_reset_down"}:
            if fault == "done_reset_down":
                self.close()
            reset(one)
        elif fault == "done_close":
            one.close()
        elif fault == "silent":
            time.sleep(LATE_SECONDS)
        elif fault in SAYS:
            one.sendall(SAYS[fault])
            if fault == "half_body_reset":
                time.sleep(0.1)
                reset(one)
            elif fault == "half_body_silent":
                time.sleep(LATE_SECONDS)
        elif fault.startswith("status_"):
            _, code, *outcome = fault.split("_")
            more = f"Outcome: {outcome[0]}\r\n" if outcome else ""
            one.sendall(f"HTTP/1.1 {code} X\r\n{more}Content-Length: 0\r\n\r\n".encode())
            return True
        else:
            one.sendall(OK)
            if fault != "idle_close":
                return True
            time.sleep(0.05)
        return False


def _head(one: socket.socket) -> tuple[bytes | None, bytes]:
    found = b""
    while b"\r\n\r\n" not in found:
        data = one.recv(65536)
        if not data:
            return None, b""
        found += data
    head, _, rest = found.partition(b"\r\n\r\n")
    return head, rest


def _body(one: socket.socket, head: bytes, rest: bytes, most: int | None = None) -> bool:
    """Whether all of the body came."""
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    got = len(rest)
    while got < (length if most is None else min(length, most)):
        data = one.recv(1 << 20)
        if not data:
            return False
        got += len(data)
    return got >= length


@contextmanager
def serving(serve: Callable[[socket.socket], None] | None, backlog: int = 64) -> Iterator[str]:
    """A listener whose connections are served so; without a server it never accepts."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:

        def accept() -> None:
            while True:
                try:
                    one, _ = listener.accept()
                except OSError:
                    return
                if serve is not None:
                    with suppress(OSError):
                        serve(one)

        if serve is not None:
            threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def full() -> Iterator[str]:
    """A listener whose backlog is full: whoever connects gets no answer."""
    with serving(None, backlog=0) as address:
        host, _, port = address.partition(":")
        kept = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex((host, int(port)))
            kept.append(one)
        yield address
        for one in kept:
            one.close()
