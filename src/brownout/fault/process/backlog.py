"""Fill a listener's backlog: connect until the kernel takes no more, and keep it so.

Who has been accepted meanwhile is replaced. The kernel says how full the queue is (SOCK_DIAG; a Unix
socket by EAGAIN): it is full with one more than the backlog, and a further connection then waits for a
second and more between its tries. It drains as its owner accepts what is dead by then.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from brownout.errors import BrownoutError, FaultRefused
from brownout.fault.process.diag import LISTEN, OPEN, Diag
from brownout.fault.process.mechanism import Mechanism

if TYPE_CHECKING:
    from brownout.fault.tcp.address import Address

__all__ = ["fill"]

MOST = 16_384  # connections that we hold
FILL_SECONDS = 3.0
LOOK_SECONDS = 0.01
DRAIN_SECONDS = 1.0
AT_ONCE = 256
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close is an RST


def fill(address: Address) -> Mechanism:
    """Fill it. Raises FaultRefused if nobody on this machine listens there."""
    queue = _Unix(address.path) if address.path else _Tcp(address)
    crowd = _Crowd(queue, str(address))
    return Mechanism(
        name="connections that nobody accepts",
        enter=crowd.begin,
        leave=crowd.end,
        close=crowd.end,
        closed=crowd.drained,
    )


class _Tcp:
    """The accept queues of all TCP listeners of an address, in our network namespace."""

    def __init__(self, address: Address) -> None:
        try:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise FaultRefused(f"{address}: {error.strerror}") from error
        self._family = found[0][0]
        self._end = (str(found[0][4][0]), address.port)
        self._ports: set[int] = set()
        listeners = self._listeners()
        self.enough = 64 + 4 * sum(room + 1 for _, room in listeners)
        if not listeners:
            raise FaultRefused(
                f"nobody on this machine (in this network namespace) listens on {address}: a backlog is "
                "filled only where its listener is"
            )

    def _listeners(self) -> list[tuple[int, int]]:
        with Diag() as diag:
            found = diag.tcp(LISTEN)
        any_ = ("0.0.0.0", "::")  # noqa: S104  compared with, not bound to
        return [
            (one.waiting, one.room)
            for one in found
            if one.local[1] == self._end[1] and one.local[0] in (self._end[0], *any_)
        ]

    def missing(self) -> int:
        """How many connections there is still room for."""
        return sum(max(0, room + 1 - waiting) for waiting, room in self._listeners())

    def join(self) -> list[socket.socket]:
        """As many connections as there is room for now, on their way; none: it is full."""
        room = sum(max(0, room + 1 - waiting) for waiting, room in self._listeners())
        return [one for _ in range(min(room, AT_ONCE)) if (one := self._join())]

    def _join(self) -> socket.socket | None:
        one = _dialled(self._family, self._end)
        if one is not None:
            self._ports.add(one.getsockname()[1])
        return one

    def full(self) -> bool:
        """Whether there is no room, where anybody still listens."""
        listeners = self._listeners()
        return bool(listeners) and all(waiting > room for waiting, room in listeners)

    def left(self) -> int:
        """How many connections of ours the kernel still knows."""
        with Diag() as diag:
            found = diag.tcp(OPEN)
        return sum(one.local[1] in self._ports and one.peer[1] == self._end[1] for one in found)


class _Unix:
    """The accept queue of a Unix socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.enough = MOST

    def join(self) -> list[socket.socket]:
        """As many connections as there is room for now; none: it is full."""
        made: list[socket.socket] = []
        while len(made) < AT_ONCE and (one := _dialled(socket.AF_UNIX, self._path)):
            made.append(one)
        return made

    def left(self) -> int:
        """None: a closed Unix socket is gone at once."""
        return 0

    def full(self) -> bool:
        """Whether there is no room, told by one connection that is closed at once."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            one.setblocking(False)  # noqa: FBT003  socket's own
            try:
                one.connect(self._path)
            except BlockingIOError:
                return True
            except OSError:  # nobody listens any more
                return False
        return False


def _dialled(family: int, end: tuple[str, int] | str) -> socket.socket | None:
    """A connection on its way; None if a Unix socket's queue is full. Raises OSError."""
    one = socket.socket(family, socket.SOCK_STREAM)
    one.setblocking(False)  # noqa: FBT003  socket's own
    try:
        one.connect(end)
    except BlockingIOError as error:
        if error.errno == errno.EAGAIN:
            one.close()
            return None
    except OSError:
        one.close()
        raise
    return one


class _Crowd:
    """The connections that fill a queue, and the thread that sees to it."""

    def __init__(self, queue: _Tcp | _Unix, address: str) -> None:
        self._queue = queue
        self._address = address
        self._held: list[socket.socket] = []
        self._joined = 0
        self._wanted = threading.Event()
        self._full = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._closed_at = 0.0

    def begin(self) -> None:
        """Fill it. Raises FaultRefused if it is not full within `FILL_SECONDS`."""
        self._wanted.set()
        self._full.clear()
        self._error = None
        self._thread = threading.Thread(target=self._run, name="brownout-backlog", daemon=True)
        self._thread.start()
        full = self._full.wait(FILL_SECONDS)
        error = self._error
        if error is not None or not full:
            self.end()
            why = error or f"it is not full after {FILL_SECONDS:g} s"
            raise FaultRefused(f"the backlog of {self._address} can't be filled: {why}") from error

    def _run(self) -> None:
        looks = 0  # in a row that found it full: one is chance, if its owner is quick
        try:
            while self._wanted.is_set():
                if joined := self._queue.join():
                    looks = 0
                    self._held += joined
                    self._joined += len(joined)
                    self._prune()
                    self._check()
                    continue
                looks += 1
                if looks > 2:
                    self._full.set()
                time.sleep(LOOK_SECONDS)
        except Exception as error:  # told by who waits for it
            self._error = error
            self._full.set()

    def _check(self) -> None:
        if len(self._held) > MOST:
            raise BrownoutError(f"it takes more than {MOST} connections")
        if self._joined > self._queue.enough and not self._full.is_set():
            raise BrownoutError(
                f"it accepts as fast as we connect, {self._joined} connections so far. Pause its process "
                "first, or use its files up"
            )

    def _prune(self) -> None:
        """Forget those that were accepted and closed."""
        poll = select.poll()
        for one in self._held:
            poll.register(one, select.POLLRDHUP)
        over = {fd for fd, _ in poll.poll(0)}
        for one in self._held:
            if one.fileno() in over:
                one.close()
        self._held = [one for one in self._held if one.fileno() >= 0]

    def end(self) -> None:
        """Reset all of them."""
        self._wanted.clear()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._closed_at = time.monotonic()
        while self._held:
            one = self._held.pop()
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            one.close()

    def drained(self) -> bool:
        """Whether none of ours is left, and there is room again.

        An owner that does not accept, since it is stopped too, keeps the dead ones until it does: nobody
        else can take them out. It is waited for `DRAIN_SECONDS`.
        """
        if self._thread is not None or self._queue.left():
            return False
        return not self._queue.full() or time.monotonic() > self._closed_at + DRAIN_SECONDS
