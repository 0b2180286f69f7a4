"""One end of a connection through the proxy: the client's, or the upstream's."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, cast

from .stage import End

if TYPE_CHECKING:
    from collections.abc import Callable

    from .link import Link
    from .stream import Stream

__all__ = ["Side"]

WRITE_BYTES = 1 << 20  # waiting to be written, before the other side is read no more
LINGER_SECONDS = (
    0.25  # a closed side is read so long, lest what it sent in the meantime turn FIN into RST
)
DRAIN_SECONDS = 5.0  # what was written before a cut has so long to leave
_RST_ON_CLOSE = struct.pack("ii", 1, 0)


class Side(asyncio.Protocol):
    """Reads into `stream`; `back` is the direction that is written to it."""

    def __init__(self, link: Link, stream: Stream, back: Stream) -> None:
        self.link = link
        self.stream = stream
        self.back = back
        self.transport: asyncio.Transport | None = None
        self.gone = False
        self._waits: set[str] = set()  # why it is not read
        self._drained: Callable[[], object] | None = None
        self._plain = False
        stream.source = back.sink = self

    # ------------------------------------------------------------------------- asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self.transport = whole = cast("asyncio.Transport", transport)  # uvloop's is none by type
        whole.set_write_buffer_limits(WRITE_BYTES)
        self.link.came(self)

    def data_received(self, data: bytes) -> None:
        """Take in what came; `plain` puts the other side's `write` in this place."""
        self.stream.feed(data)

    def eof_received(self) -> bool:
        """Hand the half-close on; this side stays open for what still comes."""
        self.stream.finish(End.CLOSE)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self.gone = True
        self._drain()
        self.link.lost(self, exc)

    def pause_writing(self) -> None:
        """It takes no more: don't read the other one."""
        self.back.source.pause("blocked")

    def resume_writing(self) -> None:
        """It takes more."""
        self.back.source.resume("blocked")
        self._drain()

    # ---------------------------------------------------------------------------------- reading

    def plain(self, onward: asyncio.Transport | None) -> None:
        """Write what comes straight to the other side; with None no longer."""
        if onward is None:
            if not self._plain:
                return
            del self.data_received
        else:
            self.data_received = onward.write  # type: ignore[method-assign]
        self._plain = onward is not None
        self._rebind()

    def ignore(self) -> None:
        """Lose what comes from now on."""
        self.data_received = _nothing  # type: ignore[method-assign]
        self.eof_received = self._close_now  # type: ignore[method-assign]
        self._plain = True
        self._rebind()

    def _rebind(self) -> None:
        # uvloop looks `data_received` up when it is given the protocol, asyncio at each call.
        if self.transport is not None and not self.transport.is_closing():
            self.transport.set_protocol(self)

    def pause(self, why: str) -> None:
        """Don't read, for one more reason."""
        if not self._waits and self._alive():
            assert self.transport is not None
            self.transport.pause_reading()
        self._waits.add(why)

    def resume(self, why: str) -> None:
        """One reason less; without any it is read again."""
        if not self._waits:
            return
        self._waits.discard(why)
        if not self._waits and self._alive():
            assert self.transport is not None
            self.transport.resume_reading()

    def _alive(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    # ---------------------------------------------------------------------------------- writing

    def when_drained(self, then: Callable[[], object]) -> None:
        """Call once all that was written is with the kernel, or in 5 s."""
        transport = self.transport
        if transport is None or transport.is_closing() or not transport.get_write_buffer_size():
            then()
            return
        self._drained = then
        self.link.alarm.at(self.link.now() + DRAIN_SECONDS, self._drain)
        transport.set_write_buffer_limits(0)  # so that it tells when it is empty

    def _drain(self) -> None:
        then, self._drained = self._drained, None
        if then is not None:
            then()

    def write_end(self) -> None:
        """Send FIN, after what was written."""
        if self._alive():
            assert self.transport is not None
            if self.transport.can_write_eof():
                self.transport.write_eof()

    def finish(self) -> None:
        """Close, after what was written."""
        if self.transport is not None:
            self.transport.close()

    def _leave(self) -> None:
        """Close a side that was read to see its end; one that doesn't take what was written is aborted."""
        if not self.gone and self.transport is not None:
            self.transport.close()
            self.link.alarm.at(self.link.now() + DRAIN_SECONDS, self.transport.abort)

    def close(self) -> None:
        """Send FIN and read nothing more; gone in a quarter of a second at the latest."""
        if not self._alive():
            return
        self.ignore()
        self.write_end()
        self._waits.clear()
        self.resume_reading()
        self.link.alarm.at(self.link.now() + LINGER_SECONDS, self._leave)

    def resume_reading(self) -> None:
        """Read, whatever the reasons were."""
        if self._alive():
            assert self.transport is not None
            self.transport.resume_reading()

    def _close_now(self) -> bool:
        self.finish()
        return True

    def reset(self) -> None:
        """Close by a real RST, on a connection however old. A Unix socket has none: it is closed."""
        if self.transport is None:
            return
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.family != getattr(socket, "AF_UNIX", None):
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
            except OSError:  # it is closed already
                pass
        self.transport.abort()


def _nothing(data: bytes) -> None:
    """Lose it."""
