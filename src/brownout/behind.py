"""How old what is read is: sources of an age, and what tells it to a guard.

    with Behind(guard, Positions(original, copy)):    # asked twice a second, on a thread of its own
        ...                                           # guard.verdict: "reads are 42 s old; usual 0.1 s"

A source is a function that returns an age in seconds, or raises while it can't tell. `brownout.ext.behind`
has those of PostgreSQL, Redis and a heartbeat row.
"""

from __future__ import annotations

import threading
from math import inf
from typing import TYPE_CHECKING

from brownout._core.history import History
from brownout._drive.clock import clock
from brownout.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from brownout import Guard

__all__ = ["Behind", "Positions"]

END_SECONDS = 1.0  # what a question that hangs may cost whoever closes it


class Positions:
    """The age of a copy by positions: for how long it has lacked something that the original has.

    Both functions return a number that grows with each write, and raise while they can't be asked. The
    original's are kept with the instant at which each was first seen, so it must be asked again and again:
    between two questions lies how exact the age is. No clock but this process's own is read.
    """

    def __init__(self, original: Callable[[], int], copy: Callable[[], int]) -> None:
        self._original = original
        self._copy = copy
        self._history = History()
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """The age in seconds; 0 if the copy lacks nothing. Raises what the two raise."""
        with self._lock:
            asked = clock.now()
            self._history.note(asked, self._original())
            since = self._history.behind_since(self._copy())
            return 0.0 if since is None else max(0.0, clock.now() - since)


class Behind:
    """Asks a source for the age of what is read, again and again, and tells the guard.

    A source that raises tells nothing meanwhile (`trouble` says why): not to know how old data is, is no
    evidence that it is old. The first question is asked at once, on the thread "brownout-behind", so nobody
    waits for it. Close it, or use it as a context manager. Raises ConfigurationError for what is no interval.
    """

    def __init__(
        self,
        guard: Guard,
        source: Callable[[], float],
        *,
        operation: str = "read",
        every: float = 0.5,
    ) -> None:
        if not (isinstance(every, int | float) and 0.01 <= every <= 60):
            raise ConfigurationError(f"Behind(every={every!r}): give 0.01 to 60 seconds")
        self._guard = guard
        self._source = source
        self._operation = operation
        self._every = every
        self._told: tuple[float, float] = (inf, clock.now())  # an age, and when it was so
        self.trouble = ""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="brownout-behind", daemon=True)
        self._thread.start()

    def seconds(self) -> float:
        """How old what is read is by now, at most: what was told last, and the time since; or infinite."""
        age, at = self._told
        return age + max(0.0, clock.now() - at)

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()
        if self._thread is not threading.current_thread():
            self._thread.join(END_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            self._ask()
            if self._closed.wait(self._every):
                return

    def _ask(self) -> None:
        try:
            age = max(0.0, float(self._source()))
            self._guard.observe_age(age, operation=self._operation)
        except Exception as error:
            self.trouble = f"{type(error).__name__}: {error}"
            return
        self._told = age, clock.now()
        self.trouble = ""
