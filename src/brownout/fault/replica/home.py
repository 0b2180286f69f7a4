"""A temporary folder of ours with the servers that live in it: on record before the first file is there.

It ends with its block, after its time, or with its maker, however that dies.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from brownout._core.fault import Fault
from brownout.errors import BrownoutError, FaultRefused
from brownout.fault.made import Made
from brownout.fault.record import PREFIX, Step, new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

__all__ = ["Home", "program", "wait_for"]

START_SECONDS = 20.0
TOLD_BYTES = 2_000  # of a server's log, in an error


@dataclass(frozen=True, kw_only=True)
class _Servers(Fault):
    """No fault, but on record as one: what faults are made at."""

    what: str

    def __str__(self) -> str:
        return self.what


class Home:
    """A folder, and the servers started in it; `users` are whom they run as where we are root.

    Raises FaultRefused where that can't be. `programs` are how their processes are called, `signal` what
    ends them at once.
    """

    def __init__(
        self,
        what: str,
        *,
        programs: Sequence[str] = (),
        signal: str = "TERM",
        users: Sequence[str] = (),
        seconds: float,
    ) -> None:
        if not Path("/proc/self").is_dir():
            raise FaultRefused(
                f"{what}: needs Linux (/proc), to be sure that nothing is left of it"
            )
        self.what = what
        other = bool(programs) and os.geteuid() == 0
        self._user: int | None = None
        self._group: int | None = None
        self._groups: list[int] | None = None
        if other:
            self._user, self._group = _other(what, users)
            self._groups = []  # root's would come along
        self.path = Path(tempfile.gettempdir()).resolve() / f"{PREFIX}{new_id()}"
        self._children: list[subprocess.Popen[bytes]] = []
        path = str(self.path)
        self._made = Made(
            place=path,
            mechanism="servers" if programs else "folder",
            fault=_Servers(what=what),
            name=what,
            seconds=seconds,
            undo_steps=[Step("evict", path=path, programs=list(programs), signal=signal)],
            apply=self._make,
            gone=self._reaped,
            standing=True,
        ).make()

    @property
    def active(self) -> bool:
        """Whether it is there, with all its servers."""
        return self._made.active and all(child.poll() is None for child in self._children)

    def _make(self) -> None:
        self.path.mkdir(mode=0o700)
        if self._user is not None:  # its servers must get through
            self.path.chmod(0o711)

    def folder(self, name: str) -> Path:
        """A folder in it that belongs to the servers' user."""
        made = self.path / name
        made.mkdir(mode=0o700)
        if self._user is not None and self._group is not None:
            os.chown(made, self._user, self._group)
        return made

    def run(self, command: Sequence[str | Path]) -> None:
        """Run a program to its end. Raises BrownoutError with what it said."""
        told = subprocess.run(
            [str(word) for word in command],
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=120,
            user=self._user,
            group=self._group,
            extra_groups=self._groups,
        )
        if told.returncode:
            text = told.stdout[-TOLD_BYTES:].decode(errors="replace").strip()
            raise BrownoutError(f"{self.what}: {command[0]} failed ({told.returncode}): {text}")

    def start(self, command: Sequence[str | Path], *, cwd: Path) -> subprocess.Popen[bytes]:
        """Start a server in its folder; what it says goes to `log` there."""
        with (cwd / "log").open("wb") as log:
            child = subprocess.Popen(
                [str(word) for word in command],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us
                user=self._user,
                group=self._group,
                extra_groups=self._groups,
            )
        self._children.append(child)
        return child

    def forget(self, child: subprocess.Popen[bytes]) -> None:
        """A server that has ended by itself, and for which another is tried."""
        self._children.remove(child)
        child.wait(5)

    def until(self, ready: Callable[[], bool], *, folder: Path) -> None:
        """Wait until that holds. Raises BrownoutError if a server ends, or after 20 s, with its log.

        A server that can't be asked (OSError) is not ready.
        """

        def settled() -> bool:
            if any(child.poll() is not None for child in self._children):
                return True
            try:
                return ready()
            except OSError:
                return False

        wait_for(settled, lambda: self._told("is not ready", folder), seconds=START_SECONDS)
        if any(child.poll() is not None for child in self._children):
            raise BrownoutError(self._told("ended", folder))

    def _told(self, how: str, folder: Path) -> str:
        text = b""
        with suppress(OSError):
            text = (folder / "log").read_bytes()[-TOLD_BYTES:]
        return f"{self.what}: a server {how}: {text.decode(errors='replace').strip()}"

    def _reaped(self) -> bool:
        for child in self._children:
            child.poll()
        return True

    @contextmanager
    def kept_if_right(self) -> Generator[None]:
        """Close it if the block fails."""
        try:
            yield
        except BaseException as error:
            try:
                self.close()
            except BrownoutError as failed:
                error.add_note(str(failed))
            raise

    def close(self) -> None:
        """End its servers and remove it. Raises UndoFailed if they are still seen."""
        self._made.undo()
        for child in self._children:
            child.wait(5)


def _other(what: str, users: Sequence[str]) -> tuple[int, int]:
    """Another user, and the group: a server of databases won't run as root, or should not."""
    for name in users:
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            return user.pw_uid, user.pw_gid
    raise FaultRefused(
        f"{what}: it does not run as root, and there is no user {' or '.join(users)}"
    )


def wait_for(done: Callable[[], bool], otherwise: Callable[[], str], *, seconds: float) -> None:
    """Wait until that holds; BrownoutError with what `otherwise` says after so long."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() >= end:
            raise BrownoutError(f"{otherwise()} ({seconds:g} s)")
        time.sleep(0.003)


def program(name: str, folders: Sequence[Path], package: str) -> Path:
    """Where a program is: in the last of those folders that has it, or on PATH. Raises FaultRefused."""
    for folder in reversed(folders):
        if (folder / name).exists():
            return folder / name
    found = shutil.which(name)
    if found is None:
        raise FaultRefused(f"{name} is not installed (Debian's package {package})")
    return Path(found).resolve().parent / name
