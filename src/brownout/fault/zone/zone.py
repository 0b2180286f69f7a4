"""One zone: processes are started in it, and it is reached from outside through one of them."""

from __future__ import annotations

import errno
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from brownout.errors import ConfigurationError, FaultRefused
from brownout.fault.zone import enter, forward, worker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from brownout.fault.zone.holder import Holder

__all__ = ["Zone"]

ENTER_SECONDS = 10.0
MOST_PROCESSES = 1000
BACKLOG = 128
_PYTHON = (sys.executable, "-SEsP")
_LOCAL = "127.0.0.1"


class Zone:
    """A network of its own: what runs in it has `address`, and reaches the other zones alone."""

    def __init__(self, name: str, address: str, holder: Holder, number: int) -> None:
        self.name = name
        self.address = address
        self.number = number
        self._holder = holder
        self._processes: list[subprocess.Popen[Any]] = []

    def __repr__(self) -> str:
        return f"<Zone {self.name} {self.address}>"

    def popen(
        self, command: Sequence[str | os.PathLike[str]], **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a process in it, as `subprocess.Popen` does; BROWNOUT_ZONE in its environment names the zone.

        It has entered the zone when this returns, and ends with the zones. This process stays where it is.
        Raises FileNotFoundError for a program that there is not, FaultRefused if it can't be started inside.
        """
        if (
            isinstance(command, str | bytes)
            or {"shell", "executable", "preexec_fn"} & options.keys()
        ):
            raise ConfigurationError(
                "a process of a zone is started from a list of arguments: no shell, executable or preexec_fn"
            )
        if not self._holder.alive:
            raise FaultRefused(
                f"{command[0]} is not started in zone {self.name}: it is not up any more"
            )
        environment: Mapping[str, str] = options.pop("env", None) or os.environ
        words = [os.fspath(word) for word in command]
        if shutil.which(words[0], path=environment.get("PATH")) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), words[0])
        self._processes = [each for each in self._processes if each.poll() is None]
        if len(self._processes) >= MOST_PROCESSES:
            raise FaultRefused(
                f"{MOST_PROCESSES} processes that run were started in zone {self.name}"
            )
        router, namespace = self._holder.identity, self._holder.namespaces[self.number - 1]
        user = int(self._holder.in_user_namespace)
        told, tell = os.pipe()
        try:
            try:
                process = subprocess.Popen(
                    [*_PYTHON, enter.__file__, *map(str, (*router, namespace, user, tell)), *words],
                    env={**environment, "BROWNOUT_ZONE": self.name},
                    pass_fds=(*options.pop("pass_fds", ()), tell),
                    **options,
                )
            finally:
                os.close(tell)
            self._processes.append(process)
            why = _last_words(told)
        finally:
            os.close(told)
        if why:
            _discard(process)
            raise FaultRefused(f"{words[0]} is not started in zone {self.name}: {why}")
        return process

    def worker(self) -> worker.Worker:
        """A Python process in it that runs functions, each call in a thread; see `Worker`."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return worker.Worker(self.popen(worker.command(), **pipes), self.name)

    def forward(self, port: int, *, to: Zone | None = None) -> str:
        """An address outside, on 127.0.0.1, whose connections go on from this zone to that port.

        Of this zone itself, past all links; or with `to` of another zone, through the link. Who calls it is
        outside and sees what a forwarder lets through: it is accepted first, and reset where that inside is
        refused. What a client in the zone sees exactly, a process in it (`popen`, `worker`) shows.
        """
        host = (to or self).address
        with socket.create_server((_LOCAL, 0), backlog=BACKLOG) as listener:
            listened = listener.getsockname()[1]
            file = listener.fileno()
            words = [*_PYTHON, forward.__file__, str(file), host, str(port)]
            self.popen(words, pass_fds=(file,), stdin=subprocess.DEVNULL)
        return f"{_LOCAL}:{listened}"

    def reap(self, seconds: float) -> None:
        """Take the exit codes of the processes that were started here; they have ended."""
        end = time.monotonic() + seconds
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))


def _last_words(told: int) -> str:
    """What went wrong before the command ran; nothing: it runs."""
    said = b""
    end = time.monotonic() + ENTER_SECONDS
    while True:
        ready, _, _ = select.select([told], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return f"it has not entered within {ENTER_SECONDS:g} s"
        part = os.read(told, 4096)
        if not part:
            return said.decode("utf-8", "replace")
        said += part


def _discard(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
