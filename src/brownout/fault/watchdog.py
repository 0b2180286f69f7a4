"""A process of its own that undoes what is on record: `python -m brownout.fault.watchdog FOLDER`.

It undoes a fault at its end, and within 2 s of its maker's death; there is one for each state folder,
which ends some seconds after the last record has. Whoever writes a record makes sure of it (`ensure`).

No gap: a maker writes its record first and then looks whether the lock is held; a watchdog that is to end
gives up the lock first and then looks for records.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from brownout.errors import FaultRefused
from brownout.fault import record as records
from brownout.fault import undo
from brownout.fault.identity import home

__all__ = ["ensure", "main", "runs", "settle"]

LOCK = "watchdog.lock"
SCAN_SECONDS = 0.25
LINGER_SECONDS = 5.0  # without a record
START_SECONDS = 10.0  # to be seen running, on a busy machine
MOST_TRIES = 20  # of one undo, ever later: ten minutes. Then it is for `brownout fault clear`
MOST_AT_ONCE = 32
LATE_SECONDS = 2.0  # for a maker to undo what only it can, after the end


# Two packages are put there empty: it needs nothing of their front doors, which take as long to import as
# all the rest, while a maker waits.
_START = """
import sys, types
for name in ("brownout", "brownout.fault"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [sys.argv[1] + "/" + name.replace(".", "/")]
from brownout.fault.watchdog import main
sys.exit(main(sys.argv[2:]))
"""

# ------------------------------------------------------------------------------- seen by a maker


def ensure(folder: str, *, wait: bool = True) -> None:
    """Have a watchdog at work for this folder. Raises FaultRefused if none can be started."""
    if runs(folder):
        return
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # -S -E: it needs nothing that is installed, and no variable of Python's changes it. The shell starts it
    # in a session of its own and ends at once, so that it is nobody's child and nobody's job.
    python = [sys.executable, "-SEsP", "-c", _START, source, folder]
    try:
        subprocess.run(
            ["/bin/sh", "-c", 'cd / && "$@" &', "sh", *python],
            check=True,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=START_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise FaultRefused(f"no watchdog can be started, so no fault is made: {error}") from error
    end = time.monotonic() + START_SECONDS
    while wait and not runs(folder):
        if time.monotonic() >= end:
            raise FaultRefused(
                f"no watchdog came up for {folder} within {START_SECONDS:g} s, so no fault is made; what says"
                f" {sys.executable} -m brownout.fault.watchdog {folder} ?"
            )
        time.sleep(0.005)


def runs(folder: str) -> bool:
    """Whether a watchdog is at work for this folder. Raises FaultRefused as `ensure` does."""
    with records.opened(folder) as at:
        file = _lock_file(at)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
    return False


def _lock_file(at: int) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(LOCK, flags, 0o600, dir_fd=at)


# ----------------------------------------------------------------------------------- one undo


def settle(folder: str, id_: str, *, seconds: float = undo.UNDO_SECONDS) -> str:
    """Undo one fault by its record, from any process; why it is not gone, or nothing.

    Raises TimeoutError if another process is at it.
    """
    with records.claimed(folder, id_, seconds=seconds) as found:
        if found is None:
            return ""
        steps = found.steps
        if found.home != home():  # the machine has started anew: no process of then is there
            steps = tuple(step for step in steps if "pid" not in step.details)
        problem = undo.until_gone(
            lambda hard: undo.take(steps, hard=hard), lambda: undo.gone(steps), seconds=seconds
        )
        if problem:
            with suppress(ValueError):
                names = ", ".join(step.verb for step in undo.left(steps))
                problem = f"{problem} ({names})" if names else problem
            if problem != found.failed:
                records.release(records.write(folder, found.but(failed=problem)))
        else:
            records.remove(folder, id_)
        return problem


# --------------------------------------------------------------------------------- the process


@dataclass(slots=True)
class _Try:
    count: int = 0
    next: float = 0.0  # monotonic
    thread: threading.Thread | None = None


class Watchdog:
    """Looks at every record, again and again, and undoes those whose time has come."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.leaving = False
        self._tries: dict[str, _Try] = {}

    def run(self) -> None:
        """Until there has been no record to care for, for some seconds."""
        idle_since = time.monotonic()
        while os.path.isdir(self.folder):
            began = time.monotonic()
            records.sweep(self.folder)
            if self.round():
                idle_since = time.monotonic()
            elif self.leaving or began - idle_since >= LINGER_SECONDS:
                return
            # Thousands of records take long to read: a quarter of the time, at most once a second.
            time.sleep(min(1.0, max(SCAN_SECONDS, 3 * (time.monotonic() - began))))

    def round(self) -> int:
        """Start the undos that are due; how many records there are to care for."""
        found = records.read(self.folder).records
        kept = {each.id for each in found}
        self._tries = {id_: attempt for id_, attempt in self._tries.items() if id_ in kept}
        cared = 0
        for each in found:
            attempt = self._tries.setdefault(each.id, _Try())
            cared += attempt.count < MOST_TRIES
            busy = attempt.thread is not None and attempt.thread.is_alive()
            if not busy and self._due(each, attempt):
                self._start(each, attempt)
        return cared

    def _due(self, record: records.Record, attempt: _Try) -> bool:
        if attempt.count >= MOST_TRIES or time.monotonic() < attempt.next:
            return False
        if record.orphan:
            return True
        if record.inside:  # only its maker can undo it, and has its own clock for that
            return record.seconds_left() < -LATE_SECONDS and not record.failed
        return record.seconds_left() <= 0 or bool(record.failed)

    def _start(self, record: records.Record, attempt: _Try) -> None:
        at_work = sum(
            each.thread is not None and each.thread.is_alive() for each in self._tries.values()
        )
        if at_work < MOST_AT_ONCE:
            attempt.thread = threading.Thread(
                target=self._undo, args=(record, attempt), daemon=True
            )
            attempt.thread.start()

    def _undo(self, record: records.Record, attempt: _Try) -> None:
        try:
            if record.inside and not record.orphan:
                self._blame(record)
                return
            problem = settle(self.folder, record.id, seconds=undo.UNDO_SECONDS)
        except TimeoutError:  # its maker is at it
            attempt.next = time.monotonic() + SCAN_SECONDS
            return
        except Exception as error:
            problem = str(error)
        if problem:
            attempt.count += 1
            attempt.next = time.monotonic() + min(30.0, 0.25 * 2**attempt.count)

    def _blame(self, record: records.Record) -> None:
        with records.claimed(self.folder, record.id) as found:
            if found is not None:
                problem = f"process {record.owner.pid}, inside which it is, has not undone it"
                records.release(records.write(self.folder, found.but(failed=problem)))


def main(arguments: list[str]) -> int:
    """Watch a folder until nothing is left to do; at once if another watchdog does already."""
    folder = arguments[0]
    watchdog = Watchdog(folder)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)

    def leave(*_: object) -> None:
        watchdog.leaving = True  # once nothing is on record: a fault must not outlive a shut-down

    signal.signal(signal.SIGTERM, leave)
    with records.opened(folder) as at:
        while True:
            file = _lock_file(at)
            if not _locked(file):
                return 0
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
            watchdog.run()
            os.close(file)  # first the lock...
            if not watchdog.round():  # ...and then a look
                return 0


def _locked(file: int) -> bool:
    """Take the lock; False if another watchdog has it, and not just for a look."""
    for _ in range(100):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.01)
    os.close(file)
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
