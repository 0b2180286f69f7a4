"""A client in a process of its own: told by JSON lines what to do, it tells what it saw."""

import json
import socket
import sys
import time
from typing import Any

sockets: dict[int, socket.socket] = {}


def connect(number: int, to: str, wait: float) -> None:
    if to.startswith("unix:"):
        sockets[number] = socket.socket(socket.AF_UNIX)
        sockets[number].settimeout(wait)
        sockets[number].connect(to[5:])
        return
    host, _, port = to.rpartition(":")
    sockets[number] = socket.create_connection((host.strip("[]"), int(port)), timeout=wait)
    sockets[number].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def read(number: int, size: int, wait: float) -> str:
    """So many bytes, or all until the end with -1, or what one read gives with 0."""
    sock = sockets[number]
    sock.settimeout(wait)
    if not size:
        return sock.recv(65536).decode("latin-1")
    got = b""
    while size < 0 or len(got) < size:
        more = sock.recv(65536 if size < 0 else size - len(got))
        if not more:
            break
        got += more
    return got.decode("latin-1")


def do(what: str, number: int, **more: Any) -> str | None:
    if what == "connect":
        connect(number, more["to"], more["wait"])
    elif what == "send":
        sockets[number].settimeout(more["wait"])
        sockets[number].sendall(more["data"].encode("latin-1"))
    elif what == "read":
        return read(number, more["size"], more["wait"])
    elif what == "end":
        sockets[number].shutdown(socket.SHUT_WR)
    elif what == "close":
        sockets.pop(number).close()
    return None


def main() -> None:
    for line in sys.stdin:
        began = time.monotonic()
        told: dict[str, Any] = {"error": None, "got": None}
        try:
            told["got"] = do(**json.loads(line))
        except (OSError, KeyError) as error:  # KeyError: it never came to be connected
            told["error"] = type(error).__name__
        told["seconds"] = time.monotonic() - began
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
