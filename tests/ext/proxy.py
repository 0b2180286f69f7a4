"""A small HTTP proxy: tunnels (CONNECT), and plain requests by their full address."""

from __future__ import annotations

import select
import socket
import struct
from collections import deque
from contextlib import suppress
from urllib.parse import urlsplit

from tests.ext.listening import LIMIT_SECONDS, Listening

_ABORT = struct.pack("ii", 1, 0)


class Proxy(Listening):
    """Listens on 127.0.0.1. `script` says what to do with the next callers: "pass", "refuse" or "hang"."""

    def __init__(self) -> None:
        self.script: deque[str] = deque()
        self.asked: list[str] = []  # first lines
        self.left: list[str] = []  # how callers left
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"

    def _serve(self, caller: socket.socket) -> None:
        caller.settimeout(LIMIT_SECONDS)
        with suppress(OSError), caller:
            head = b""
            while b"\r\n\r\n" not in head:
                head += (more := caller.recv(65536))
                if not more:
                    return
            first = head.partition(b"\r\n")[0].decode()
            with self._lock:
                self.asked.append(first)
                do = self.script.popleft() if self.script else "pass"
            if do == "refuse":
                caller.sendall(b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n")
            elif do == "hang":
                self._pump(caller, None)
            else:
                self._pass(caller, first, head)

    def _pass(self, caller: socket.socket, first: str, head: bytes) -> None:
        method, where, _ = first.split(" ")
        where = where if method == "CONNECT" else urlsplit(where).netloc
        host, _, port = where.rpartition(":")
        with socket.create_connection((host, int(port)), LIMIT_SECONDS) as target:
            with self._lock:
                self._open.add(target)
            if method == "CONNECT":
                caller.sendall(b"HTTP/1.1 200 Go on\r\n\r\n")
            else:
                path = urlsplit(first.split(" ")[1]).path or "/"
                target.sendall(head.replace(first.encode(), f"{method} {path} HTTP/1.1".encode()))
            self._pump(caller, target)

    def _pump(self, caller: socket.socket, target: socket.socket | None) -> None:
        """Both ways, until one has ended. When the caller resets, so do we."""
        others = {caller: target, target: caller}
        while True:
            ready, _, _ = select.select([one for one in others if one], [], [], LIMIT_SECONDS)
            for one in ready:
                try:
                    data = one.recv(65536)
                except ConnectionResetError:
                    if one is caller and target is not None:
                        target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                    if one is caller:
                        self.left.append("reset")
                    return
                if not data and one is caller:
                    self.left.append("closed")
                if not data:
                    return
                other = others[one]
                if other is not None:
                    other.sendall(data)
            if not ready:
                return
