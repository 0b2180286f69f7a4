"""The client journal: what is unknown, written by one thread of this process into a file that outlives it.

A call waits for its entry, but not for long: if the file does not answer in time, the call goes on without,
the log says so once, and calls wait no more until the file works again. What was to be written waits
meanwhile, up to a bound.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import unquote

from brownout import _fork
from brownout._file import Trouble
from brownout.errors import BrownoutError, ConfigurationError
from brownout.ledger.holder import me
from brownout.ledger.journal_file import Begin, JournalFile, Lease, Settle, Unknown

if TYPE_CHECKING:
    from brownout._core.journal import Entry
    from brownout.ledger.journal_file import Op

SLOW_SECONDS = 0.5  # a write that takes longer holds no call up
RETRY_SECONDS = 0.5
PATIENCE_SECONDS = 3.0  # a file that another process has locked is trouble only after so long
READ_SECONDS = 2.0
END_SECONDS = 1.0  # what the last write may cost the end of the process
MOST_TOGETHER = 256  # in one transaction
MOST_WAITING = 10_000
MOST_JOURNALS = 64

log = logging.getLogger("brownout")
_in_use = threading.Lock()  # every use of SQLite here, for a fork
_Waiting = tuple["Op", "Future[bool]"]


class Journal:
    """One file's writer in this process. `trouble` is what is wrong with it; "" while it works."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.trouble = ""
        self.lost = 0  # what could not be kept waiting
        self._file = JournalFile(path)
        self._renew()

    def _renew(self) -> None:
        self._mutex = threading.Condition(threading.Lock())
        self._waiting: deque[_Waiting] = deque()
        self._writing_since: float | None = None
        self._troubled_at: float | None = None
        self._thread: threading.Thread | None = None
        self._ending = False
        self._me = me()

    def __repr__(self) -> str:
        return f"Journal({self.path!r})"

    # ---------------------------------------------------------------------------------- what is told

    def begin(self, entry: Entry, seconds: float) -> Future[bool]:
        """A call is about to be sent."""
        return self._put(Begin(entry, seconds))

    def unknown(self, entry: Entry) -> None:
        """It stays unknown."""
        self._put(Unknown(entry))

    def settle(self, key: str, target: str, call: int = 0) -> None:
        """It is certain."""
        self._put(Settle(key, target, call))

    def lease(self, key: str, target: str, seconds: float) -> Future[bool]:
        """Take a key, to settle it. True also while the file is in trouble."""
        return self._put(Lease(key, target, seconds))

    def unsettled(self, target: str | None = None) -> list[Entry]:
        """An entry a key, the oldest first. Raises BrownoutError if the file can't be read."""
        self._flush(READ_SECONDS)
        if not _in_use.acquire(timeout=READ_SECONDS):
            raise BrownoutError(f"{self.path} is in use by this process, whose write hangs")
        try:
            return self._file.unsettled(target)
        except Trouble as trouble:
            raise BrownoutError(f"the journal {self.path} can't be read: {trouble}") from trouble
        finally:
            _in_use.release()

    def _flush(self, seconds: float) -> None:
        """Wait until what was told before is written, but no longer."""
        with self._mutex:
            self._mutex.wait_for(
                lambda: self.trouble or not (self._waiting or self._writing_since), seconds
            )

    def _put(self, op: Op) -> Future[bool]:
        future: Future[bool] = Future()
        with self._mutex:
            since = self._writing_since
            hangs = since is not None and time.monotonic() - since > SLOW_SECONDS
            news = hangs and self._report("a write hangs: is its disk ill, or who locks it?")
            kept = not self.trouble or self._keeps(op, future)
            if kept:
                self._waiting.append((op, future))
            if kept and self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, args=(self._mutex,), name="brownout-journal", daemon=True
                )
                self._thread.start()
            self._mutex.notify_all()
        if news:
            self._log()
        return future

    def _keeps(self, op: Op, future: Future[bool]) -> bool:
        """In trouble: nobody waits for an answer; whether it is written when that is over."""
        future.set_result(isinstance(op, Lease))
        if isinstance(op, Lease):
            return False
        if len(self._waiting) >= MOST_WAITING:
            self.lost += 1
            return False
        return True

    # ---------------------------------------------------------------------------------- the writer

    def _run(self, mutex: threading.Condition) -> None:
        while True:
            with mutex:
                mutex.wait_for(lambda: self._waiting or self._ending)
                if not self._waiting:
                    return
                together = [
                    self._waiting.popleft() for _ in range(min(MOST_TOGETHER, len(self._waiting)))
                ]
                self._writing_since = time.monotonic()
            trouble = self._write(together)
            with mutex:
                self._writing_since, news = None, False
                if trouble is not None:
                    self._waiting.extendleft(reversed(together))
                    news = self._report(str(trouble), passing=trouble.passing)
                    if self.trouble:
                        self._answer_all()
                mutex.notify_all()
            if news:
                self._log()
            if trouble is not None:
                with mutex:
                    if mutex.wait_for(lambda: self._ending, RETRY_SECONDS):
                        return

    def _write(self, together: list[_Waiting]) -> Trouble | None:
        try:
            with _in_use:
                done = self._file.apply((op for op, _ in together), self._me)
        except Trouble as trouble:
            return trouble
        except Exception as error:
            log.exception("the journal %s: a fault in brownout", self.path)
            return Trouble(f"a fault in brownout, {type(error).__name__}")
        self._recovered()
        for (_, future), one in zip(together, done, strict=True):
            _tell(future, one)
        return None

    def _answer_all(self) -> None:
        """In trouble nobody waits for it; who settles goes on without a lease."""
        for op, future in self._waiting:
            _tell(future, isinstance(op, Lease))
        leases = [one for one in self._waiting if not isinstance(one[0], Lease)]
        self._waiting.clear()
        self._waiting.extend(leases)

    def _report(self, what: str, *, passing: bool = False) -> bool:
        """Whether that is news, to be told when the lock is free."""
        now = time.monotonic()
        if self._troubled_at is None:
            self._troubled_at = now
        if not self.trouble and (not passing or now - self._troubled_at >= PATIENCE_SECONDS):
            self.trouble = what
            return True
        return False

    def _log(self) -> None:
        """Say that there is trouble; under no lock, since handlers are the user's code."""
        log.warning(
            "the journal %s can't be written: %s. Calls go on, but what is unknown now is forgotten if"
            " this process ends; it is tried again, and not told again",
            self.path, self.trouble,
        )  # fmt: skip

    def _recovered(self) -> None:
        self._troubled_at = None
        if self.trouble:
            self.trouble = ""
            log.warning(
                "the journal %s can be written again; %d entries are lost", self.path, self.lost
            )
            self.lost = 0

    # ---------------------------------------------------------------------------------- its end

    def end(self) -> None:
        """Write what waits, if that can be done in a moment, and let go of the file."""
        self._flush(END_SECONDS)
        with self._mutex:
            self._ending = True
            self._mutex.notify_all()
        thread = self._thread
        if thread is not None:
            thread.join(END_SECONDS)
        if _in_use.acquire(timeout=END_SECONDS):
            self._file.close()
            _in_use.release()
        with self._mutex:
            self._thread, self._ending = None, False

    def let_go(self) -> None:
        """Close the file before a fork, under the lock."""
        self._file.close()

    def forked(self, *, clean: bool) -> None:
        """In a forked child: what waits is the parent's, and the thread is not here."""
        self._renew()
        self.trouble = "" if clean else "forked while it was written: this child writes nothing"


def _tell(future: Future[bool], what: bool) -> None:  # noqa: FBT001 - a future's result
    if not future.done():
        with suppress(Exception):  # cancelled in this very moment
            future.set_result(what)


_journals: dict[str, Journal] = {}
_lock = threading.Lock()


def opened(url: str) -> Journal:
    """The journal of a URL, one a file in this process. Raises ConfigurationError for what is no such URL."""
    path = path_of(url)
    with _lock:
        if path not in _journals:
            if len(_journals) >= MOST_JOURNALS:
                raise ConfigurationError(
                    f"more than {MOST_JOURNALS} journals: one a process is enough"
                )
            _journals[path] = Journal(path)
        return _journals[path]


def path_of(url: str) -> str:
    """The absolute path that a URL such as sqlite:///unknown.db names."""
    scheme, _, path = url.partition(":///")
    path = unquote(path)
    if scheme != "sqlite" or not path or "\0" in path or "?" in path:
        raise ConfigurationError(
            f"journal: {scheme.partition(':')[0]:.20}:... can't be a journal; it is a local file:"
            " sqlite:///unknown.db, or sqlite:////var/lib/shop/unknown.db"
        )
    return os.path.abspath(path)  # noqa: PTH100 - the process may change its directory later


def _end() -> None:
    for journal in list(_journals.values()):
        journal.end()


def _let_go() -> None:
    for journal in list(_journals.values()):
        journal.let_go()


def _forked(clean: bool) -> None:  # noqa: FBT001 - what _fork.around calls
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that is not here
    _lock = threading.Lock()
    for journal in list(_journals.values()):
        journal.forked(clean=clean)


atexit.register(_end)
_fork.around(_in_use, _let_go, _forked)
