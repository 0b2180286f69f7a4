"""A copy of a SQLite database that is refreshed on a schedule: the replica of who has no server.

with SqliteCopy("shop.db") as copy:
    with copy.make(PauseReplay()):
        ...  # copy.path answers as before, with what it held then
        copy.seconds_behind()
"""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from brownout.errors import ConfigurationError
from brownout.fault.kind import DelayReplay, PauseReplay
from brownout.fault.replica.home import Home
from brownout.fault.replica.lag import Lag
from brownout.fault.replica.place import Mechanism, Replica

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from brownout._core.fault import Fault

__all__ = ["SqliteCopy"]

DAY_SECONDS = 86_400.0
BUSY_SECONDS = 5.0  # for another's lock


class SqliteCopy(Replica):
    """A copy, refreshed every `refresh_seconds` where the original has changed; a context manager.

    Read it at `path` (a temporary file that ends with it) by a connection of your own. The copy is made by
    SQLite's backup, whole, through memory: a reader sees it before or after. `failed` is what went wrong in
    the last refresh, None if nothing did. Raises ConfigurationError if the original is not there.
    """

    def __init__(
        self,
        original: str | os.PathLike[str],
        *,
        refresh_seconds: float = 0.1,
        target: str = "",
        seconds: float = DAY_SECONDS,
        every: float = 0.02,
    ) -> None:
        self.original = Path(original).absolute()
        if not self.original.is_file():
            raise ConfigurationError(f"{self.original} is no file: name the database to copy")
        if not 0.001 <= refresh_seconds <= 3600:
            raise ConfigurationError(f"refresh_seconds={refresh_seconds!r} is from 0.001 to 3600 s")
        home = Home("a SQLite copy", seconds=seconds)
        with home.kept_if_right():
            self.path = home.path / "copy.db"
            self.failed: Exception | None = None
            self._refresh_seconds = refresh_seconds
            self._source = sqlite3.connect(
                f"{self.original.as_uri()}?mode=ro",
                uri=True,
                timeout=BUSY_SECONDS,
                check_same_thread=False,
            )
            self._lock = threading.Lock()  # of that connection: versions are numbers of its own
            self._held = 0
            self._paused = False
            self._delay = 0.0
            self._changed = threading.Condition()
            self._ended = False
            self._now = False  # a refresh is wanted now
            self._rounds = 0
            self._mark = 0
            self._publish(*self._taken())
            super().__init__(
                f"SQLite copy {self.path}",
                Lag(self._version, lambda: self._held, every=every),
                home=home,
                target=target,
            )
            self._thread = threading.Thread(
                target=self._run, name="brownout sqlite copy", daemon=True
            )
            self._thread.start()

    # --------------------------------------------------------------------------------- refreshing

    def _version(self) -> int:
        """A number that changes with every commit of another connection (PRAGMA data_version)."""
        with self._lock:
            return self._version_now()

    def _version_now(self) -> int:
        try:
            return int(self._source.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise OSError(f"{self.original} can't be read: {error}") from error

    def _taken(self) -> tuple[int, sqlite3.Connection]:
        """What the original holds right now, in memory, and at least which version that is."""
        taken = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            with self._lock:
                version = self._version_now()  # before: what comes in between counts as missing
                self._source.backup(taken)
        except BaseException:
            taken.close()
            raise
        return version, taken

    def _publish(self, version: int, taken: sqlite3.Connection) -> None:
        copy = sqlite3.connect(self.path, timeout=BUSY_SECONDS)
        try:
            taken.backup(copy)
        finally:
            copy.close()
            taken.close()
        self._held = version

    def _run(self) -> None:
        while not self._waited(lambda: 0.0 if self._now else self._refresh_seconds):
            self._now = False
            try:
                self._refresh()
                self.failed = None
                self._rounds += 1
            except (OSError, sqlite3.Error) as error:
                self.failed = error  # the copy gets older, and that is seen

    def _refresh(self) -> None:
        if self._paused or self._version() == self._held:
            return
        version, taken = self._taken()
        if self._waited(lambda: self._delay) or self._paused:
            taken.close()
        else:
            self._publish(version, taken)

    def _waited(self, seconds: Callable[[], float]) -> bool:
        """Wait so long, which may change meanwhile; whether all has ended."""
        began = time.monotonic()
        with self._changed:
            while not self._ended:
                left = began + seconds() - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    # ------------------------------------------------------------------------------------- faults

    def _mechanism(self, fault: Fault) -> Mechanism:
        match fault:
            case PauseReplay():
                return Mechanism(
                    "no refresh",
                    lambda: self._turn(paused=True),
                    lambda: self._turn(paused=False),
                    self._refreshed,
                )
            case DelayReplay():
                return Mechanism(
                    "a late refresh",
                    lambda: self._turn(delay=fault.seconds),
                    lambda: self._turn(delay=0.0),
                    self._refreshed,
                )
            case _:
                raise ConfigurationError(
                    f"{fault}: no fault of a SQLite copy; those are PauseReplay and DelayReplay"
                )

    def _turn(self, *, paused: bool | None = None, delay: float | None = None) -> None:
        with self._changed:
            before = self._paused, self._delay
            self._paused = self._paused if paused is None else paused
            self._delay = self._delay if delay is None else delay
            if (self._paused, self._delay) != before:
                self._now = True
                self._mark = self._rounds
                self._changed.notify_all()

    def _refreshed(self) -> bool:
        """Whether a refresh has gone well since it was undone."""
        return self._rounds > self._mark

    def _close(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(BUSY_SECONDS + 1)
        with self._lock:
            self._source.close()
