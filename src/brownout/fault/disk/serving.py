"""The owner's side of a mount: its server is started, told what to make, and ended."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from brownout.errors import FaultRefused
from brownout.fault import record as records
from brownout.fault.disk import control, mount
from brownout.fault.record import PREFIX, Step

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from brownout.fault.disk.kind import Stored

__all__ = ["Serving", "unfit"]

START_SECONDS = 10.0
STOP_SECONDS = 1.0  # politely; then the undo's steps abort the mount
_SYS_ADMIN = 21  # linux/capability.h


def unfit() -> str:
    """Why nothing can be mounted here, or nothing."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            mask = int(file.read().partition("CapEff:")[2].split()[0], 16)
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return "" if mask >> _SYS_ADMIN & 1 else "CAP_SYS_ADMIN is missing"


class Serving:
    """One mount over a folder. `steps` undo it from anywhere."""

    def __init__(self, path: Path, *, only: str | None, own: bool) -> None:
        self.path = path
        self.source = f"{PREFIX}disk-{records.new_id()}"
        self.folder = os.path.join(tempfile.gettempdir(), f"{PREFIX}serves-{records.new_id()}")
        self.control = os.path.join(self.folder, "control")
        self.steps = (
            Step("unmount", source=self.source),
            Step("rmtree", path=self.folder),
            *([Step("rmtree", path=str(path))] if own else []),
        )
        self.passthrough = False
        self.mmap = False
        self._only, self._own = only, own
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, add: Callable[[Step], None]) -> None:
        """Mount. `add` puts the server on record before it does. Raises FaultRefused."""
        found = [each.path for each in mount.ours() if each.path == str(self.path)]
        if found:
            raise FaultRefused(
                f"{self.path} is shadowed already; `brownout fault list` says by whom"
            )
        os.mkdir(self.folder, 0o700)
        if self._own:
            os.mkdir(self.path, 0o700)
        source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]);"
            " from brownout.fault.disk.server import main; main()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-SEsP", "-c", code, os.path.abspath(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        about = {"path": str(self.path), "source": self.source, "control": self.control}
        self._tell(json.dumps(about | {"only": self._only}))
        began = self._hear()["start"]
        add(Step("terminate", pid=self._process.pid, start=began))
        self._tell("go")
        told = self._hear()
        self.passthrough, self.mmap = told["passthrough"], told["mmap"]

    def _tell(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # what it said of it comes next
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._process is not None
        said = self._process.stdout
        assert said is not None
        line = said.readline() if select.select([said], [], [], START_SECONDS)[0] else b""
        try:
            told: dict[str, Any] = json.loads(line)
        except ValueError:
            told = {"error": f"its server said nothing within {START_SECONDS:g} s"}
        if "error" in told:
            raise FaultRefused(f"{self.path} can't be shadowed: {told['error']}")
        return told

    def make(self, name: str, fault: Stored, seed: int, _: object) -> None:
        """Put a fault in force. Raises FaultRefused."""
        try:
            control.ask(
                self.control,
                do="make",
                name=name,
                since=time.monotonic(),
                seed=seed,
                fault=control.plain(fault),
            )
        except OSError as error:
            raise FaultRefused(f"the server of {self.path} does not answer: {error}") from error

    def lift(self, name: str) -> None:
        """Undo one: what hangs by it is done."""
        control.lift(self.control, name)

    def made(self, name: str) -> bool:
        """Whether it is in force."""
        return not control.gone(self.control, name)

    def looked(self) -> dict[str, Any]:
        """What its server sees of itself: the faults in force, how much waits, messages so far."""
        return control.ask(self.control, do="look")

    def stop(self) -> None:
        """End the server, which takes the mount away. The steps do the rest, if there is any."""
        if self._process is None:
            return
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)

    def gone(self) -> bool:
        """Whether its server was seen to end."""
        return self._process is None or self._process.poll() is not None
