"""What this machine allows: each mechanism is tried for real, on a child or a socket of our own.

A mechanism that is not allowed has a weaker one in its place, or none; a guess from a version or a file's
mode would miss what a container forbids. A new mechanism adds its trial to `TRIALS`.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from brownout.fault import record as records
from brownout.fault import watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from brownout._core.fault import Fault

__all__ = ["TRIALS", "Finding", "examine"]

SECONDS = 10.0  # for the fault of one trial to end by itself, were we killed
_RIGHTS = {5: "KILL", 12: "NET_ADMIN", 21: "SYS_ADMIN", 24: "SYS_RESOURCE"}  # linux/capability.h


class Finding(NamedTuple):
    """What came of one trial: "yes", "weaker" or "no"; with what, and why not with the best."""

    name: str
    works: str
    used: str
    because: str = ""


def examine() -> list[Finding]:
    """Try every mechanism, one after the other: some seconds. Nothing is left of it."""
    found: list[Finding] = []
    for name, trial in TRIALS.items():
        try:
            used, _, because = trial().partition(", since ")
            found.append(Finding(name, "weaker" if because else "yes", used, because))
        except Exception as error:  # whatever it is, it is what the user would meet
            said = str(error) or type(error).__name__
            found.append(Finding(name, "no", "nothing", said))
    return found


# --------------------------------------------------------------------------------------- trials


def _rights() -> str:
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123
        mask = int(file.read().partition("CapEff:")[2].split()[0], 16)
    missing = [name for bit, name in _RIGHTS.items() if not mask >> bit & 1]
    who = f"user {os.geteuid()}"
    return f"{who}, since CAP_{', CAP_'.join(missing)} are missing" if missing else who


def _watchdog() -> str:
    folder = records.folder()
    watchdog.ensure(folder)
    return f"a process of its own, for {folder}"


def _proxy() -> str:
    """Bytes go through a proxy and come back."""
    from brownout.fault.tcp import running

    with (
        _echo() as (host, port),
        running(f"{host}:{port}") as proxy,
        socket.create_connection(_pair(proxy.listen), SECONDS) as client,
    ):
        client.sendall(b"x")
        if client.recv(1) != b"x":
            raise ConnectionError("what went through the proxy did not come back")
    if find_spec("uvloop") is None:
        return "a proxy on asyncio, since uvloop is not installed (it does the same, faster)"
    return "a proxy on uvloop"


def _http() -> str:
    """An answer is another one while a fault is made, and the true one again."""
    from brownout.fault.http import running
    from brownout.fault.kind import Status

    true = b"HTTP/1.1 204 No Content\r\n\r\n"
    with _echo(true) as (host, port), running(f"{host}:{port}") as proxy:
        client = http.client.HTTPConnection(*_pair(proxy.listen), timeout=SECONDS)
        with closing(client):
            with proxy.make(Status(code=503), seconds=SECONDS):
                during = _code(client)
            after = _code(client)
    if (during, after) != (503, 204):
        raise ConnectionError(f"status {during} and then {after} came, not 503 and then 204")
    return "a reverse proxy; in a server (ASGI) or a client (httpx) of Python none is needed"


def _code(client: http.client.HTTPConnection) -> int:
    client.request("GET", "/")
    answer = client.getresponse()
    answer.read()
    return answer.status


def _pair(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


@contextmanager
def _echo(answers: bytes = b"") -> Generator[tuple[str, int]]:
    """A listener that answers one connection with what it says, or always with the same."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)

        def answer() -> None:
            try:
                with listener.accept()[0] as one:
                    one.settimeout(SECONDS)
                    while data := one.recv(100):
                        one.sendall(answers or data)
            except OSError:
                pass  # the trial tells what it missed

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listener.getsockname()
    thread.join(SECONDS)


def _on_child(fault: Fault, code: str = "import time; print(1, flush=True); time.sleep(30)") -> str:
    """How a fault is made on a child; it is undone, and seen to be gone."""
    from brownout.fault.process.place import Process

    command = [sys.executable, "-S", "-E", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()  # it has started
            with Process(child).make(fault, seconds=SECONDS) as made:
                return made.mechanism
        finally:
            child.kill()


def _pause() -> str:
    from brownout.fault.kind import Pause

    return _on_child(Pause())


def _freeze() -> str:
    from brownout.fault.kind import Freeze

    return _on_child(Freeze())


def _starve() -> str:
    from brownout.fault.kind import Starve

    return _on_child(Starve(cpu_share=0.5))


def _files() -> str:
    from brownout.fault.kind import ExhaustFiles

    return _on_child(ExhaustFiles())


def _abort() -> str:
    """A connection of a child is reset, and seen to be by its other end."""
    from brownout.fault.kind import AbortConnections

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)
        code = (
            "import socket, time\n"
            f"one = socket.create_connection(('127.0.0.1', {listener.getsockname()[1]}))\n"
            "one.sendall(b'x'); print(1, flush=True); time.sleep(30)"
        )
        used = _on_child(AbortConnections(), code)
        with listener.accept()[0] as one:
            one.settimeout(SECONDS)
            try:
                while one.recv(10):
                    pass
            except ConnectionResetError:
                return used
        raise ConnectionError("the connection was closed, but not reset")


def _backlog() -> str:
    from brownout.fault.kind import FillBacklog
    from brownout.fault.process.place import Listener

    with socket.create_server(("127.0.0.1", 0), backlog=4) as listener:
        host, port = listener.getsockname()
        with Listener(f"{host}:{port}").make(FillBacklog(), seconds=SECONDS) as made:
            return made.mechanism


_ASK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"


def _zones() -> str:
    """A process of one zone reaches one of another, and does not once they are parted."""
    from brownout.fault.kind import Partition
    from brownout.fault.zone.place import Zones

    with Zones("a", "b", seconds=SECONDS) as zones:
        listen = "import socket; s = socket.create_server(('', 9)); print(flush=True); input()"
        python, pipe = [sys.executable, "-S", "-E", "-c"], subprocess.PIPE
        with zones["b"].popen([*python, listen], stdin=pipe, stdout=pipe) as server:
            assert server.stdout is not None
            server.stdout.readline()  # it listens
            ask = [*python, _ASK, zones["b"].address, "9"]
            quiet = {"stderr": subprocess.DEVNULL}
            if zones["a"].popen(ask, **quiet).wait(SECONDS):
                raise ConnectionError("one zone does not reach the other")
            with zones.between("a", "b").make(Partition(how="refuse"), seconds=SECONDS):
                if not zones["a"].popen(ask, **quiet).wait(SECONDS):
                    raise ConnectionError("one zone reaches the other though they are parted")
            server.kill()
        return zones.mechanism


def _disk() -> str:
    """A file of a new folder fails, as another process sees it."""
    from brownout.fault.disk.place import Disk
    from brownout.fault.kind import Error

    with Disk(seconds=SECONDS) as disk:
        if disk.weaker:
            return f"file calls of this process, since {disk.weaker}"
        (disk.path / "file").write_text("x")
        with disk.make(Error(), seconds=SECONDS):
            command = [sys.executable, "-SEc", "import sys; open(sys.argv[1]).read()"]
            if not subprocess.run(
                [*command, disk.path / "file"],
                stderr=subprocess.DEVNULL,
                check=False,
                timeout=SECONDS,
            ).returncode:
                raise OSError("a read that should have failed did not")
        if disk.serving and not disk.serving.mmap:
            return "a FUSE mount, since its files can't be mapped (Linux 6.6): no SQLite WAL"
    return "a FUSE mount"


def _postgres() -> str:
    """A commit is held back by a frozen receiver, and arrives once that goes on."""
    from brownout.fault.kind import FreezeReceiver
    from brownout.fault.replica.postgres import PostgresPair, forget_template

    try:
        with PostgresPair(seconds=60.0) as pair:
            with pair.make(FreezeReceiver(), seconds=SECONDS) as made:
                pass
            pair.fence(seconds=SECONDS)
            return f"a pair of our own; {made.mechanism}"
    finally:
        forget_template()


def _redis() -> str:
    from brownout.fault.kind import FreezeReceiver
    from brownout.fault.replica.redis import RedisPair

    with RedisPair(seconds=60.0) as pair:
        with pair.make(FreezeReceiver(), seconds=SECONDS):
            pass
        pair.fence(seconds=SECONDS)
    return "a pair of our own; a proxy on the stream between"


def _sqlite() -> str:
    import sqlite3

    from brownout.fault.kind import PauseReplay
    from brownout.fault.replica.home import Home
    from brownout.fault.replica.sqlite import SqliteCopy

    home = Home("a trial", seconds=60.0)
    try:
        path = home.path / "original.db"
        sqlite3.connect(path).close()
        with SqliteCopy(path, seconds=60.0) as copy, copy.make(PauseReplay(), seconds=SECONDS):
            pass
    finally:
        home.close()
    return "a copy by SQLite's backup"


TRIALS: dict[str, Callable[[], str]] = {
    "rights": _rights,
    "watchdog": _watchdog,
    "tcp proxy": _proxy,
    "HTTP": _http,
    "pause": _pause,
    "freeze": _freeze,
    "starve": _starve,
    "exhaust files": _files,
    "abort connections": _abort,
    "fill backlog": _backlog,
    "zones": _zones,
    "disk": _disk,
    "PostgreSQL replica": _postgres,
    "Redis replica": _redis,
    "SQLite copy": _sqlite,
}
