"""The process that serves a mount: `main` of it, started by `place` and ended with its owner.

It is a process of its own because a page fault on a mapped file holds the GIL of whoever has it: the same
process could never answer it. It says on its output that it is there, then that it has mounted.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from brownout._core.fault import Log
from brownout.errors import BrownoutError
from brownout.fault.disk import mount
from brownout.fault.disk.control import DECISIONS, Answers, read
from brownout.fault.disk.rules import Rule
from brownout.fault.disk.session import Session
from brownout.fault.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]

MOST_ASKING = 16
MOST_LOGS = 200
MOST_SECONDS = 60.0  # of one wait, so that a clock can't be missed


class Server:
    """One mount: its session, and those who tell it what to do."""

    def __init__(self, path: str, source: str, control: str, only: str | None) -> None:
        self.path, self.source = path, source
        self.device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        pattern = None if only is None else re.compile(only.encode())
        self.session = Session(self.device, path, pattern)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(control)
        self.listener.listen(MOST_ASKING)
        self.listener.settimeout(0)
        self._asking: dict[int, Answers] = {}
        self._logs: dict[str, Log] = {}
        self._poll = select.poll()
        self._hears, self._says = os.pipe()
        os.set_blocking(self._says, False)
        self._leaving = False

    def run(self) -> None:
        """Mount, serve until told to end, and take the mount away."""
        mode = os.stat(self.path).st_mode
        mount.mount(self.device, self.path, self.source, mode)
        signal.set_wakeup_fd(self._says)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _heard)
        for fd in (self.device, self.listener.fileno(), self._hears, 0):
            self._poll.register(fd, select.POLLIN)
        try:
            self._serve(lambda: self.session.ready)
            told = {"ready": True, "passthrough": self.session.passthrough}
            _say(told | {"mmap": self.session.mmap})
            self._serve(lambda: self._leaving)
        finally:
            self._end()

    def _serve(self, done: Callable[[], bool]) -> None:
        while not done():
            wait = self.session.wake()
            wait = MOST_SECONDS if wait is None else min(wait, MOST_SECONDS)
            for fd, _ in self._poll.poll(max(0.0, wait) * 1000):
                if fd == self.device:
                    if not self.session.serve():
                        self._leaving = True
                        return
                elif fd == self.listener.fileno():
                    self._accept()
                elif fd in self._asking:
                    self._answer(fd)
                else:  # a signal, or the end of our owner
                    self._leaving = True
                    return

    def _end(self) -> None:
        """Take the mount away: if nothing is open in it politely, else all the same."""
        self.session.rules.clear()
        self.session.release()
        pid = os.fork()  # unmounting asks us to write back what is mapped, and waits for the answer
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                if any(self._found()) and not mount.unmount_idle(self.path):
                    mount.unmount(self.source)
            finally:
                os._exit(0)
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if not self.session.serve():
                break
            self._poll_device()
        mount.unmount(self.source)

    def _found(self) -> list[mount.Mounted]:
        return [each for each in mount.find(self.source) if each.path == self.path]

    def _poll_device(self) -> None:
        only = select.poll()
        only.register(self.device, select.POLLIN)
        only.poll(5)

    # ------------------------------------------------------------------------------ those who ask

    def _accept(self) -> None:
        with suppress(OSError):
            sock, _ = self.listener.accept()
            if len(self._asking) >= MOST_ASKING:
                sock.close()
                return
            sock.settimeout(0)
            self._asking[sock.fileno()] = Answers(sock)
            self._poll.register(sock.fileno(), select.POLLIN)

    def _answer(self, fd: int) -> None:
        asking = self._asking[fd]
        try:
            question = asking.take()
            if question is not None:
                try:
                    answer = self._do(question)
                except (BrownoutError, ValueError, KeyError, TypeError) as error:
                    answer = {"error": f"{error}"}
                asking.give(answer)
        except (OSError, ValueError):
            self._poll.unregister(fd)
            del self._asking[fd]
            asking.sock.close()

    def _do(self, question: dict[str, Any]) -> dict[str, Any]:
        rules, name = self.session.rules, str(question.get("name"))
        match question.get("do"):
            case "make":
                log = self._logs[name] = Log()
                while len(self._logs) > MOST_LOGS:
                    del self._logs[next(iter(self._logs))]
                since, seed = float(question["since"]), int(question["seed"])
                rules.add(Rule(name, read(question["fault"]), seed=seed, since=since, log=log))
                return {}
            case "undo":
                rules.remove(name)
                self.session.release(name)
                return {}
            case "log":
                return _told(self._logs.get(name) or Log(), int(question["since"]))
            case "look":
                names = [rule.name for rule in rules.all()]
                seen = {"waiting": len(self.session.waiting), "messages": self.session.messages}
                return {"rules": names, **seen}
            case _:
                raise ValueError("it is told to make, undo, log or look")


def _told(log: Log, since: int) -> dict[str, Any]:
    """So many decisions from there on; `lost` of them are no longer kept."""
    first = max(since, log.lost)
    rows = list(islice(log, first - log.lost, first - log.lost + DECISIONS))
    after = first + len(rows)
    more = after < log.lost + len(log)
    return {"decisions": rows, "lost": first - since, "next": after, "more": more}


def _heard(_: int, __: object) -> None:
    """A signal wakes the poll; that is all."""


def _say(what: dict[str, Any]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def main() -> None:
    """Serve what the first line of the input says, once the second has come; until it ends."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.umask(0)
    os.chdir("/")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    told = json.loads(sys.stdin.readline())
    try:
        server = Server(told["path"], told["source"], told["control"], told["only"])
        _say({"start": Identity.mine().start})
        if sys.stdin.readline().strip() == "go":
            server.run()
    except OSError as error:
        _say({"error": f"{error.strerror}: {error.filename}"})
