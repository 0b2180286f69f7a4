"""An HTTP/2 connection, which many streams share, and giving up on one of them.

- Whoever is given up is reset alone (RST_STREAM), so that the target stops; the others go on.
- A stream that has waited long enough must not end the connection for the others. To the client's own pool a
  read time-out means just that, and a guard makes them short: it is taken back.
- Under threads one stream reads for all. Nobody waits for its turn to read past their own deadline.
- A connection that has said nothing at all for a while, though asked, may lead nowhere any more: it takes no
  further streams, and is aborted when the last one has left it.

All of it is inside of the client's connection. Where that looks otherwise, it is left as it is.
"""
# ruff: noqa: SLF001 - see above

from __future__ import annotations

import selectors
import threading
from contextlib import suppress
from functools import partial
from importlib import import_module
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from brownout import remaining
from brownout.ext.httpx.connection import abort

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

SILENT_SECONDS = 1.0  # a caller who leaves sooner says nothing of the connection
LONG_SECONDS = 1e6  # more than a selector takes would be an error
_CANCEL = 8  # the error code of a stream that is not wanted any more (RFC 9113, 7)
_NEEDED = (
    "_connection_error", "_events", "_expire_at", "_h2_state", "_network_stream", "_read_exception",
    "_read_incoming_data", "_read_lock", "_write_outgoing_data",
)  # fmt: skip


class Turn:
    """The lock under which one stream reads for all. Past its attempt's deadline nobody waits for it."""

    def __init__(self, late: type[Exception]) -> None:
        self._lock = threading.Lock()
        self._late = late

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=min(remaining(), threading.TIMEOUT_MAX)):
            raise self._late("the time was over while another stream read from the connection")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()


class Shared:
    """What is known of an HTTP/2 connection, from its first stream on."""

    def __init__(self, connection: Any, *, is_async: bool) -> None:
        self._connection = connection
        self._asked: float | None = None  # and nothing has been heard since
        self._retired = False
        self._read = connection._read_incoming_data
        module = type(connection).__module__.partition(".")[0]
        self._late: type[Exception] = import_module(module).ReadTimeout
        connection._read_incoming_data = self._listen_async if is_async else self._listen
        if not is_async:
            connection._read_lock = Turn(self._late)

    def _listen(self, request: Any) -> Any:
        # The socket has one time-out for all its threads, the span of whoever touched it last: so the wait
        # is not left to it. The lock is held: nobody sees the pool's error before it is taken back.
        span = request.extensions.get("timeout", {}).get("read")
        end = inf if span is None else monotonic() + span
        while True:
            if not _ready(self._connection._network_stream, min(end - monotonic(), remaining())):
                raise self._late("timed out")
            try:
                events = self._read(request)
            except self._late:
                self._spare()
            else:
                self._asked = None
                return events

    async def _listen_async(self, request: Any) -> Any:
        try:
            events = await self._read(request)
        except self._late:
            self._spare()
            raise
        self._asked = None
        return events

    def _spare(self) -> None:
        self._connection._read_exception = None
        self._connection._connection_error = self._retired

    @staticmethod
    def begin(connection: Any, *, is_async: bool) -> None:
        """Know a connection from now on, before its first stream; not if it looks otherwise inside."""
        if all(hasattr(connection, name) for name in _NEEDED):
            connection.brownout = Shared(connection, is_async=is_async)

    def ask(self, now: float) -> None:
        """A stream begins."""
        if self._asked is None:
            self._asked = now

    def give_up(self, now: float) -> None:
        """A stream is given up. The connection is blamed if it has been silent for long."""
        if self._asked is not None and now - self._asked >= SILENT_SECONDS:
            self._retired = self._connection._connection_error = True
            abort(self._connection._network_stream)

    def left(self) -> None:
        """A stream has gone. After the last one of a retired connection the pool closes it."""
        if self._retired and not self._connection._events:
            self._connection._expire_at = 0.0


class Stream:
    """One request's stream on an HTTP/2 connection."""

    def __init__(self, connection: Any, request: Any, number: int, now: float) -> None:
        self._connection = connection
        self._request = request
        self._number = number
        found = getattr(connection, "brownout", None)
        self._shared = found if isinstance(found, Shared) else None  # None: others began it
        if self._shared is not None:
            self._shared.ask(now)

    def give_up(self, now: float) -> Callable[[], Any] | None:
        """Reset it. What sends that, if the connection takes it now; else it goes with what comes next."""
        if self._shared is not None:
            self._shared.give_up(now)
        with suppress(Exception):
            state = self._connection._h2_state
            for event in self._connection._events.get(self._number, ()):
                length = getattr(event, "flow_controlled_length", 0)
                if length:  # nobody will read it: it is room for the others
                    state.acknowledge_received_data(length, self._number)
            state.reset_stream(self._number, _CANCEL)
            if _ready(self._connection._network_stream, 0.0, selectors.EVENT_WRITE):
                return partial(self._connection._write_outgoing_data, self._request)
        return None

    def left(self) -> None:
        """The client has done with it."""
        if self._shared is not None:
            self._shared.left()


def _ready(stream: Any, seconds: float, event: int = selectors.EVENT_READ) -> bool:
    """Whether a network stream can be read from (or written to) within so many seconds."""
    tls = stream.get_extra_info("ssl_object")
    if event == selectors.EVENT_READ and tls is not None and tls.pending():
        return True
    with selectors.DefaultSelector() as selector:
        selector.register(stream.get_extra_info("socket").fileno(), event)
        return bool(selector.select(min(max(0.0, seconds), LONG_SECONDS)))
