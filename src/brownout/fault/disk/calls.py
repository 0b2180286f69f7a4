"""The weaker disk, where nothing can be mounted: this process' own file calls are replaced for a while.

It reaches `open`, what it returns, `pathlib`, and `os.open read pread write pwrite fsync fdatasync` of files
that are opened while it lasts. It does not reach other processes, SQLite or any other C library, nor maps.
What hangs can always be ended by a signal: nothing is asleep in the kernel.
"""

from __future__ import annotations

import builtins
import io
import os
import re
import threading
import time
from math import inf
from typing import TYPE_CHECKING, Any

from brownout.errors import FaultRefused
from brownout.fault.disk.rules import Access, Fate, Rule, Rules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from brownout._core.fault import Log
    from brownout.fault.disk.kind import Stored
    from brownout.fault.record import Step

__all__ = ["Calls"]

_CALLS = ("open", "read", "pread", "write", "pwrite", "fsync", "fdatasync", "close")
_REAL: dict[str, Any] = {name: getattr(os, name) for name in _CALLS}
_OPEN = io.open
_LOCK = threading.Lock()
_DISKS: list[Calls] = []
_FILES: dict[int, tuple[Calls, bytes]] = {}  # by descriptor


class Calls:
    """One folder whose files suffer in this process; `steps` are none, since it ends with it."""

    steps: tuple[Step, ...] = ()

    def __init__(self, path: Path, *, only: str | None, own: bool) -> None:
        self.path = path
        self.rules = Rules()
        self._only = None if only is None else re.compile(only.encode())
        self._own = own
        self._changed = threading.Condition()

    def start(self, _: Callable[[Step], None]) -> None:
        """Replace the calls. Raises FaultRefused if it is done there already."""
        with _LOCK:
            if any(each.path == self.path for each in _DISKS):
                raise FaultRefused(f"{self.path} is shadowed already, by this process")
            if self._own:
                self.path.mkdir(0o700)
            _DISKS.append(self)
            _replace()

    def stop(self) -> None:
        """Give the calls back; a new folder is removed."""
        with self._changed:
            self.rules.clear()
            self._changed.notify_all()
        with _LOCK:
            if self in _DISKS:
                _DISKS.remove(self)
                if self._own:
                    import shutil

                    shutil.rmtree(self.path)
            _replace()

    def gone(self) -> bool:
        """Whether they are given back."""
        return self not in _DISKS and (bool(_DISKS) or io.open is _OPEN)

    def make(self, name: str, fault: Stored, seed: int, log: Log) -> None:
        """Put a fault in force. Raises FaultRefused for a name that is taken."""
        try:
            self.rules.add(Rule(name, fault, seed=seed, since=time.monotonic(), log=log))
        except ValueError as error:
            raise FaultRefused(str(error)) from error

    def lift(self, name: str) -> None:
        """Undo one: what hangs by it is done."""
        with self._changed:
            self.rules.remove(name)
            self._changed.notify_all()

    def made(self, name: str) -> bool:
        """Whether it is in force."""
        return name in self.rules

    def reach(self, path: Any) -> bytes | None:
        """The path below the folder, if that is where it lies."""
        try:
            real = os.path.realpath(os.fsencode(path))
        except TypeError:
            return None
        above = os.fsencode(self.path) + b"/"
        below = real[len(above) :] if real.startswith(above) else None
        return None if below is None or (self._only and not self._only.match(below)) else below

    def suffer(self, access: Access) -> Fate:
        """Let an operation hang, fail (OSError) or pass."""
        fate = self.rules.decide(access, time.monotonic()) if self.rules else None
        if fate is None:
            return Fate()
        end = time.monotonic() + fate.seconds
        with self._changed:
            while all(name in self.rules for name in fate.rules):
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(None if left == inf else left)
            else:
                return Fate()
        if fate.errno:
            raise OSError(fate.errno, os.strerror(fate.errno), os.fsdecode(access.path))
        return fate


# ------------------------------------------------------------------------- what the calls become


def _found(fd: int, operation: str, offset: int, size: int) -> tuple[Calls, Access] | None:
    held = _FILES.get(fd)
    if held is None:
        return None
    disk, path = held
    found = os.fstat(fd)
    key = (found.st_dev, found.st_ino)
    return disk, Access(operation, key, path, offset, size, found.st_size)


def _here(fd: int) -> int:
    try:
        return os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:  # a pipe
        return 0


def _read_at(fd: int, size: int, offset: int) -> bytes:
    found = _found(fd, "read", offset, size)
    if found:
        disk, access = found
        fate = disk.suffer(access)
        if fate.old:
            return fate.old.past(access, lambda at, many: _REAL["pread"](fd, many, at))
    data: bytes = _REAL["pread"](fd, size, offset)
    return data


def _written(fd: int, data: Any, offset: int, write: Callable[[], int]) -> int:
    found = _found(fd, "write", offset, memoryview(data).nbytes)
    if found is None:
        return write()
    disk, access = found
    disk.suffer(access)
    now = time.monotonic()
    with _OPEN(f"/proc/self/fd/{fd}", "rb", buffering=0) as file:
        real = file.fileno()
        disk.rules.before_write(access, now, lambda at, many: _REAL["pread"](real, many, at))
    done = write()
    disk.rules.after_write(access._replace(size=done), now)
    return done


def _pread(fd: int, size: int, offset: int) -> bytes:
    return _read_at(fd, size, offset)


def _read(fd: int, size: int) -> bytes:
    if fd not in _FILES:
        data: bytes = _REAL["read"](fd, size)
        return data
    at = _here(fd)
    data = _read_at(fd, size, at)
    os.lseek(fd, at + len(data), os.SEEK_SET)
    return data


def _pwrite(fd: int, data: Any, offset: int) -> int:
    return _written(fd, data, offset, lambda: _REAL["pwrite"](fd, data, offset))


def _write(fd: int, data: Any) -> int:
    return _written(fd, data, _here(fd), lambda: _REAL["write"](fd, data))


def _fsync(fd: int) -> None:
    if found := _found(_number(fd), "fsync", 0, 0):
        found[0].suffer(found[1])
    _REAL["fsync"](fd)


def _fdatasync(fd: int) -> None:
    if found := _found(_number(fd), "fsync", 0, 0):
        found[0].suffer(found[1])
    _REAL["fdatasync"](fd)


def _number(fd: Any) -> int:
    return fd if isinstance(fd, int) else int(fd.fileno())


def _hold(fd: int, path: Any) -> int:
    for disk in _DISKS:
        if (below := disk.reach(path)) is not None:
            _FILES[fd] = disk, below
    return fd


def _os_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    fd: int = _REAL["open"](path, flags, mode, dir_fd=dir_fd)
    return _hold(fd, path if dir_fd is None else f"/proc/self/fd/{fd}")


def _close(fd: int) -> None:
    _FILES.pop(fd, None)
    _REAL["close"](fd)


class _File(io.FileIO):
    """A file as `open` opens it, whose bytes go through the calls above."""

    def __init__(self, file: Any, mode: str, closefd: bool, opener: Any) -> None:  # noqa: FBT001
        super().__init__(file, mode, closefd, opener)
        _hold(self.fileno(), f"/proc/self/fd/{self.fileno()}")

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = _read(self.fileno(), len(view))
        view[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        return self.readall() if size is None or size < 0 else _read(self.fileno(), size)

    def readall(self) -> bytes:
        pieces: list[bytes] = []
        while piece := _read(self.fileno(), 1 << 16):
            pieces.append(piece)
        return b"".join(pieces)

    def write(self, data: Any) -> int:
        return _write(self.fileno(), data)

    def close(self) -> None:
        if not self.closed and self.closefd:
            _FILES.pop(self.fileno(), None)
        super().close()


def _open(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,  # noqa: FBT001, FBT002  as `open` has it
    opener: Any = None,
) -> Any:
    ours = not isinstance(file, int) and any(each.reach(file) is not None for each in _DISKS)
    if not (ours or file in _FILES) or (buffering == 0 and "b" not in mode):
        return _OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
    raw = _File(file, mode.replace("b", "").replace("t", ""), closefd, opener)
    if buffering == 0:
        return raw
    size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
    buffered: Any
    if "+" in mode:
        buffered = io.BufferedRandom(raw, size)
    elif "r" in mode:
        buffered = io.BufferedReader(raw, size)
    else:
        buffered = io.BufferedWriter(raw, size)
    if "b" in mode:
        return buffered
    text = io.TextIOWrapper(buffered, encoding, errors, newline, line_buffering=buffering == 1)
    setattr(text, "mode", mode)  # noqa: B010  `open` does it too, and no type knows
    return text


_OURS: dict[str, Any] = {
    "open": _os_open,
    "read": _read,
    "pread": _pread,
    "write": _write,
    "pwrite": _pwrite,
    "fsync": _fsync,
    "fdatasync": _fdatasync,
    "close": _close,
}


def _replace() -> None:
    """While there is a disk the calls are ours."""
    for name, real in _REAL.items():
        setattr(os, name, _OURS[name] if _DISKS else real)
    builtins.open = io.open = _open if _DISKS else _OPEN
    if not _DISKS:
        _FILES.clear()
