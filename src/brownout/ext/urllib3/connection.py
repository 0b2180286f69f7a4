"""A connection of urllib3 that knows how far it has come with a request.

http.client takes the end of the stream for the end of the headers. Such an answer, a status line and nothing
that can be relied on, is refused here: it would pass for a 200 with an empty body.
"""

# The base of a watched connection is known when one is made.
# pyright: reportUnknownVariableType=false
from __future__ import annotations

import http.client
import time
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

from brownout.ext import peer
from brownout.ext.reply import SAFE, answer, changed
from brownout.ext.trail import mark, tell
from brownout.ext.urllib3.meaning import broken, connecting

if TYPE_CHECKING:
    from brownout import Attempt

    # It is made the first base of one of urllib3's own connections.
    Base: Any
else:
    Base = object

__all__ = ["ATTEMPT", "kind"]

ATTEMPT: ContextVar[Attempt | None] = ContextVar("brownout_urllib3", default=None)


class _Lines:
    """The stream of an answer while its headers are read: whether it ended in the midst of them."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.ended = False

    def readline(self, *args: Any) -> Any:
        line = self._stream.readline(*args)
        self.ended = not line
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Response(http.client.HTTPResponse):
    def begin(self) -> None:
        stream: Any = self.fp
        lines: Any = _Lines(stream)
        self.fp = lines
        try:
            super().begin()
        finally:
            if self.fp is lines:
                self.fp = stream
        if lines.ended:
            self.close()
            raise http.client.RemoteDisconnected("the answer ended in the midst of its headers")


class _Watched(Base):  # type: ignore[misc]
    response_class = _Response
    _connecting = 0
    _changes = True

    def connect(self) -> None:
        """Connect, and tell that nothing was sent if it fails."""
        self._begun()
        self._connecting += 1
        try:
            super().connect()
        except BaseException as error:
            tell(error, connecting(error))
            raise
        finally:
            self._connecting -= 1
        peer.forget(self)
        self._label()

    def request(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Send a request."""
        self._begun()
        self._changes = method.upper() not in SAFE
        if self.sock is not None:
            self._label()
        return super().request(method, *args, **kwargs)

    def send(self, data: Any) -> Any:
        """Send a part of it. From its first byte on it may have been done."""
        if self._connecting:
            return super().send(data)  # to a proxy: the target has not been told anything
        if self.sock is None and self.auto_open:
            self.connect()
        attempt = ATTEMPT.get()
        if attempt is not None:
            attempt.sent()
        try:
            return super().send(data)
        except BaseException as error:
            tell(error, broken(error), changes=self._changes)
            raise

    def getresponse(self) -> Any:
        """Read the answer's headers."""
        try:
            response = super().getresponse()
        except BaseException as error:
            tell(error, broken(error), changes=self._changes)
            raise
        attempt = ATTEMPT.get()
        if attempt is not None:
            attempt.receiving()
        status = int(response.status)  # pyright: ignore[reportUnknownArgumentType]
        if self._changes and changed(status, answer(status, response.headers)):
            mark()
        return response

    def _label(self) -> None:
        attempt = ATTEMPT.get()
        if attempt is not None:
            direct = self.proxy is None and getattr(self, "_socks_options", None) is None
            peer.tell(attempt, self, self.sock, direct=direct)

    @staticmethod
    def _begun() -> None:
        """The pool has given us a connection, or leave to make one."""
        attempt = ATTEMPT.get()
        if attempt is not None and attempt.queued:
            attempt.waited(time.monotonic() - attempt.began)


@cache
def kind(base: Any) -> Any:
    """The watched form of a class of connections."""
    return (
        base
        if issubclass(base, _Watched)
        else type(f"Watched{base.__name__}", (_Watched, base), {})
    )
