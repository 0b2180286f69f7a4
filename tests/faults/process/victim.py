"""A process that suffers: `python victim.py JOB [ARG]`. It says its port, and does its job until killed."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LAST = {"accept": "none", "read": "none"}


def name_of(error: OSError) -> str:
    return errno.errorcode[error.errno or 0]


def answer(caller: socket.socket) -> None:
    """One line in, one line out."""
    with caller, caller.makefile("rw") as lines:
        try:
            for line in lines:
                word, _, rest = line.strip().partition(" ")
                lines.write(f"{DO[word](rest)}\n")
                lines.flush()
        except OSError as error:
            LAST["read"] = name_of(error)


def burn(milliseconds: str) -> str:
    end = time.thread_time() + float(milliseconds) / 1e3
    while time.thread_time() < end:
        pass
    return "burnt"


def fork(_: str) -> str:
    """A child that does nothing; it goes as its parent does."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return str(child)
    while os.getppid() == parent:
        time.sleep(0.02)
    os._exit(0)


def lower(soft: str) -> str:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(soft), hard))
    return "lowered"


DO: dict[str, Callable[[str], str]] = {
    "echo": lambda text: text,
    "last": lambda what: LAST[what],
    "burn": burn,
    "fork": fork,
    "lower": lower,
}


def serve(backlog: str = "16") -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=int(backlog)) as listener:
        # As a loop of events does: who is blocked in accept(2) has its descriptor reserved already.
        listener.settimeout(1000)
        print(listener.getsockname()[1], flush=True)
        while True:
            try:
                caller, _ = listener.accept()
            except OSError as error:
                LAST["accept"] = name_of(error)
                time.sleep(0.01)
                continue
            threading.Thread(target=answer, args=[caller], daemon=True).start()


def slow(seconds: str) -> None:
    """Accepts one after the other, with a rest between, and keeps them."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=4) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            kept.append(listener.accept()[0])
            time.sleep(float(seconds))


def own(_: str = "") -> None:
    """A connection to itself; says what becomes of its two ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _peer = listener.accept()
        print(listener.getsockname()[1], flush=True)
        for end in (near, far):
            try:
                end.recv(1)
            except OSError as error:
                print(name_of(error), flush=True)


def spin(_: str = "") -> None:
    print(0, flush=True)
    while True:
        pass


def tick(folder: str) -> None:
    """A tree of processes that each count in a file of their own."""
    print(0, flush=True)
    for _ in range(2):
        os.fork()
    counting(folder)


def storm(folder: str) -> None:
    """Forks and forks: a few live at any time, each counts, each forks another and ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print(0, flush=True)
    while True:
        if os.fork() == 0:
            if os.fork() == 0:
                counting(folder, 3)
            counting(folder, 2)
            os._exit(0)
        counting(folder, 1)


def counting(folder: str, times: int = 0) -> None:
    file = Path(folder) / str(os.getpid())
    file.write_bytes(bytes(8))
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 8) as count:
        done = 0
        while not times or done < times:
            done += 1
            count[:] = struct.pack("Q", done)
            time.sleep(0.001)


if __name__ == "__main__":
    jobs: dict[str, Callable[..., None]] = {
        "serve": serve,
        "slow": slow,
        "own": own,
        "spin": spin,
        "tick": tick,
        "storm": storm,
    }
    jobs[sys.argv[1]](*sys.argv[2:])
