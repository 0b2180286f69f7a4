"""How far a copy is behind, in seconds: from what the original was at, and when.

No replica can tell: what has not arrived it does not know of, and a delay it does on purpose it does not
count. So somebody looks at the original again and again and keeps when each position was first seen.
A copy is behind since the first position above the one it holds.

The same positions make a *fence*: who has written passes the position on, and who reads waits for it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from brownout._core.history import History
from brownout.errors import BrownoutError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["History", "Lag"]

PAUSE_SECONDS = 0.0005  # between looks of a fence: a fifth of what a commit takes to arrive


class Lag:
    """Reads how far a copy is behind; `original` and `copy` answer with their positions, from any thread.

    A position is a number that grows with each write. The original is looked at every `every` seconds,
    which is also how exact the answer is. Both raise OSError while they can't be asked.
    """

    def __init__(
        self, original: Callable[[], int], copy: Callable[[], int], *, every: float = 0.02
    ) -> None:
        if not 0.001 <= every <= 60:
            raise ConfigurationError(f"every={every!r} is from 0.001 to 60 s")
        self._original = original
        self._copy = copy
        self._every = every
        self._history = History()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="brownout lag", daemon=True)
        self.position()  # the first, before anything falls behind
        self._thread.start()

    def position(self) -> int:
        """What the original is at: pass it to `fence`. Raises OSError if it can't be asked."""
        with self._lock:
            asked = time.monotonic()
            position = self._original()
            self._history.note(asked, position)
            return position

    def seconds_behind(self) -> float:
        """For how long the copy has lacked something that the original has; 0 if it holds all.

        If the original can't be asked, and the copy holds all that was known, it is how long ago that was.
        Raises OSError if the copy can't be asked.
        """
        try:
            self.position()
            silent = False
        except OSError:
            silent = True
        held = self._copy()
        now = time.monotonic()
        with self._lock:
            since = self._history.behind_since(held)
            if since is None:
                return max(0.0, now - self._history.seen_at) if silent else 0.0
            return max(0.0, now - since)

    def fence(self, position: int | None = None, *, seconds: float = 1.0) -> float:
        """Wait until the copy holds a position, or without one all that the original has; how long it took.

        Raises TimeoutError with how far the copy is behind, OSError if it, or the original, can't be asked.
        """
        began = time.monotonic()
        wanted = self.position() if position is None else position
        while (held := self._copy()) < wanted:
            waited = time.monotonic() - began
            if waited >= seconds:
                raise TimeoutError(
                    f"the copy is at {held} and not at {wanted} after {waited:.3g} s; it is"
                    f" {self.seconds_behind():.3g} s behind. Read from the original, or wait longer"
                )
            self._closed.wait(PAUSE_SECONDS)
        return time.monotonic() - began

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
        if self._thread is not threading.current_thread():
            self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._closed.wait(self._every):
            try:
                self.position()
            except (OSError, BrownoutError):
                pass  # it is seen in the answers: what was last known gets older
