"""A Python process in a zone that runs functions: its threads are in the zone, and so are all their sockets.

with zones["a"].worker() as worker:
    worker.run(ask_the_cache, "key")
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

__all__ = ["Worker", "command", "main"]

MOST_THREADS = 64
RUN_SECONDS = 60.0
END_SECONDS = 2.0
_CODE = (
    "import sys; sys.path[:] = sys.argv[1:]; from brownout.fault.zone.worker import main; main()"
)
_SOURCE = str(Path(__file__).resolve().parents[3])

P = ParamSpec("P")
T = TypeVar("T")


def command() -> list[str]:
    """What is started: it finds modules where we do."""
    return [sys.executable, "-c", _CODE, *dict.fromkeys([*sys.path, _SOURCE])]


class Worker:
    """Runs functions in a process of a zone, each call in a thread of it; a context manager.

    Functions, arguments and answers are pickled: a function is found by its module and name, and what its
    module keeps (a client, a pool) it finds again at the next call.
    """

    def __init__(self, process: subprocess.Popen[bytes], zone: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._zone = zone
        self._in, self._out = process.stdin, process.stdout
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._last = 0
        self._ended = False
        self._reader = threading.Thread(target=self._read, name="brownout-worker", daemon=True)
        self._reader.start()

    def submit(
        self, function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs
    ) -> Future[T]:
        """Begin a call; as `concurrent.futures.Executor.submit`. At most 64 run at once, others wait.

        The future raises what the function does, and ConnectionResetError if the worker has ended.
        """
        call = pickle.dumps((function, arguments, named))
        future: Future[T] = Future()
        with self._lock:
            if self._ended:
                raise ConnectionResetError(self._why())
            self._last += 1
            self._waiting[self._last] = future
            try:
                _write(self._in, self._last, call)
            except OSError as error:
                del self._waiting[self._last]
                raise ConnectionResetError(self._why()) from error
        return future

    def run(self, function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T:
        """Call it, and wait for its answer for 60 s at most (then TimeoutError; the call goes on)."""
        return self.submit(function, *arguments, **named).result(RUN_SECONDS)

    def _why(self) -> str:
        return f"the worker in zone {self._zone} (process {self.process.pid}) has ended"

    def _read(self) -> None:
        try:
            while said := _read(self._out):
                number, answer = said
                with self._lock:
                    future = self._waiting.pop(number)
                _settle(future, answer)
        except (OSError, ValueError):
            pass  # closed, or killed in the middle of a word
        with self._lock:
            self._ended = True
            left = list(self._waiting.values())
            self._waiting.clear()
        for future in left:
            future.set_exception(ConnectionResetError(self._why()))

    def close(self) -> None:
        """End the process; calls that still run are lost."""
        with self._lock:
            try:
                self._in.close()
            except OSError:
                pass
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(END_SECONDS)
        self._reader.join(END_SECONDS)
        self._out.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _settle(future: Future[Any], answer: bytes) -> None:
    try:
        well, value = pickle.loads(answer)  # noqa: S301  by a pipe of ours
    except Exception as error:  # what can't be had here is told to who waits for it
        well, value = False, error
    if well:
        future.set_result(value)
    else:
        future.set_exception(value)


_HEAD = struct.Struct("!II")  # number of the call, size of what follows


def _write(file: IO[bytes], number: int, said: bytes) -> None:
    file.write(_HEAD.pack(number, len(said)) + said)
    file.flush()


def _read(file: IO[bytes]) -> tuple[int, bytes] | None:
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    number, size = _HEAD.unpack(head)
    return number, file.read(size)


# ---------------------------------------------------------------------------------- in the zone


def main() -> None:
    """Run what is asked for until nothing more can be."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what functions print is not taken for an answer
    lock = threading.Lock()

    def run(number: int, call: bytes) -> None:
        answer = _answer(call)
        with lock:
            _write(out, number, answer)

    with ThreadPoolExecutor(MOST_THREADS) as threads:
        while said := _read(sys.stdin.buffer):
            threads.submit(run, *said)
        os._exit(0)  # also in the midst of calls: nobody waits for them


def _answer(call: bytes) -> bytes:
    try:
        function, arguments, named = pickle.loads(call)  # noqa: S301  by a pipe of ours
        return pickle.dumps((True, function(*arguments, **named)))
    except BaseException as error:
        return _told(error)


def _told(error: BaseException) -> bytes:
    """As it is, if it can be pickled there and back; else in words."""
    try:
        told = pickle.dumps((False, error))
        pickle.loads(told)  # noqa: S301  just pickled
    except Exception:
        return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
    return told
