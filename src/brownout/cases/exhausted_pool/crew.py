"""Starts the case's processes, talks to them, and ends every one of them by its own pid.

Each child's stdin is a pipe from here: when this process ends, however it ends, the pipes close and
the children go.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
START_SECONDS = 20.0
DONE_SECONDS = 5.0
END_SECONDS = 2.0
_FOREIGN = frozenset({"BROWNOUT_FLEET", "BROWNOUT_SERVICE", "BROWNOUT_ZONE"})
ALONE = frozenset({"downstream", "load"})  # of these not even site-packages are in sight


class CrewError(RuntimeError):
    """A process of the case did not start, or ended by itself."""


class Member:
    """One process: its pid, what it told, how to tell it something."""

    def __init__(self, name: str, program: str, spec: dict[str, Any], folder: Path) -> None:
        self.name = name
        self.records = folder / f"{name}.jsonl"
        self._errors = folder / f"{name}.err"
        self._told: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.tally: dict[str, dict[str, int]] = {}
        text = json.dumps({**spec, "records": str(self.records), "parent": os.getpid()})
        alone = ["-S"] if program in ALONE else []
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-P", *alone, "-m", f"processes.{program}", text],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment(program, spec.get("fleet")),
                # Ctrl-C is for the parent, who then ends them in order.
                start_new_session=True,
            )
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as told:
            for line in told:
                try:
                    message = json.loads(line)
                except ValueError:  # cut off by its end
                    continue
                if "tally" in message:
                    self.tally = message["tally"]
                else:
                    self._told.put(message)

    def heard(self, key: str, seconds: float) -> Any:
        """What it tells under that key; CrewError when it ends or says nothing for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                message = self._told.get(timeout=0.05)
            except queue.Empty:
                self.check()
                continue
            if key in message:
                return message[key]
        raise CrewError(f"the {self.name} process did not say {key!r} within {seconds:.0f} s")

    def tell(self, **command: Any) -> None:
        """Tell it something, and wait until it is done."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(command).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            self.check()
            raise
        self.heard("done", DONE_SECONDS)

    def check(self) -> None:
        """Raise CrewError, with the last that it wrote on stderr, if it has ended."""
        code = self.process.poll()
        if code is not None:
            last = deque(self._errors.read_text("utf-8", "replace").splitlines(), 1)
            why = f": {last[0]}" if last else ""
            raise CrewError(f"the {self.name} process ended with code {code}{why}")

    def close(self) -> None:
        """End its stdin, and so the process."""
        if self.process.stdin is not None:
            try:
                self.process.stdin.close()
            except OSError:  # it has gone, with something of ours unread
                return


class Crew:
    """All processes of one run, in the order they were started. Leaving the block ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.members: dict[str, Member] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def start(self, name: str, program: str, **spec: Any) -> Member:
        """Start a process."""
        member = Member(name, program, spec, self._folder)
        self.members[name] = member
        return member

    def ready(self, *names: str) -> list[Any]:
        """Wait until they are ready; what each said of itself: its port, or its ports."""
        return [self.members[name].heard("ready", START_SECONDS) for name in names]

    def check(self) -> None:
        """Raise CrewError if one has ended by itself."""
        for member in self.members.values():
            member.check()

    def end(self) -> None:
        """End every process: ask, then terminate, then kill."""
        members = list(self.members.values())[::-1]
        steps: list[Callable[[Member], None]] = [
            Member.close,
            lambda member: member.process.terminate(),
            lambda member: member.process.kill(),
        ]
        for step in steps:
            left = [member for member in members if member.process.poll() is None]
            for member in left:
                step(member)
            end = time.monotonic() + END_SECONDS
            for member in left:
                try:
                    member.process.wait(max(0.01, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    continue
        for member in members:
            member.close()


def _environment(program: str, fleet: str | None) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(HERE), *filter(None, [environment.get("PYTHONPATH")])]
    )
    if fleet is not None:
        environment.update(BROWNOUT_FLEET=fleet, BROWNOUT_SERVICE=program)
    return environment
