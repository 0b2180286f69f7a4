"""One request through the proxy, and its answer back."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, NoReturn

from brownout.fault.kind.answer import BODY_MOST

from . import wire
from .cut import cut
from .plan import End, Plan, Wait, bodiless, instead, reworded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from .plan import Deed

__all__ = ["Exchange", "Upstream"]

DRAIN_SECONDS = 5.0


class Upstream:
    """The connection to the upstream of one client's: opened when it is needed, kept while it can be."""

    def __init__(
        self, dial: Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
    ) -> None:
        self._dial = dial
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """It. Raises OSError."""
        if self._open is not None and (self._open[0].at_eof() or self._open[1].is_closing()):
            self.abort()
        if self._open is None:
            self._open = await self._dial()
        return self._open

    def abort(self) -> None:
        """End it."""
        if self._open is not None:
            self._open[1].transport.abort()
            self._open = None


@dataclass
class _Reply:
    """An answer, wherever it is from."""

    code: int
    reason: bytes
    headers: wire.Headers
    framing: wire.Framing
    body: AsyncIterator[bytes]
    keeps: bool  # whether the upstream can be asked again after it


class _Over(Exception):
    """The client's connection was ended."""


class Exchange:
    """One request on its way."""

    def __init__(
        self,
        head: wire.Head,
        plan: Plan,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: Upstream,
    ) -> None:
        self._head = head
        self._plan = plan
        self._writer = writer
        self._upstream = upstream
        self._reader = reader
        self._framing = head.framing(0)
        self._body = wire.body(reader, self._framing)
        self._kept: bytes | None = None
        self._old = head.third == b"HTTP/1.0"
        self._upgrade = b"upgrade" in head.tokens(b"connection") and bool(head.all(b"upgrade"))
        self._pump: asyncio.Task[None] | None = None

    async def serve(self) -> bool:
        """Do it; whether the client's connection can be used again. Raises OSError, Malformed."""
        try:
            return await self._serve()
        except _Over:
            return False
        except wire.Broken:
            await cut(self._writer.transport, reset=False)
            return False
        finally:
            if self._pump is not None and not self._pump.done():
                self._pump.cancel()
                await asyncio.gather(self._pump, return_exceptions=True)
            if self._pump is not None and not self._pump.cancelled():
                self._pump.exception()

    async def _serve(self) -> bool:
        if b"100-continue" in self._head.tokens(b"expect"):
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await self._do(self._plan.before(), self._body)
        status = self._plan.answer()
        if status is None:
            try:
                reply = await self._executed()
            except OSError as error:
                why = f"brownout: the upstream can't be reached: {error.strerror or error}\n"
                reply = self._said(502, [], why.encode())
        else:
            if not await self._emptied(self._body):
                self._old = True  # the rest of the request would be taken for the next one
            reply = self._said(status.code, instead(status), status.body)
        await self._do(self._plan.head(), reply.body)
        if reply.code == 101:
            return await self._spliced(reply)
        return await self._answer(reply)

    def _said(self, code: int, headers: wire.Headers, body: bytes) -> _Reply:
        headers = headers or [(b"content-length", b"%d" % len(body))]
        reason = HTTPStatus(code).phrase.encode() if code in {*HTTPStatus} else b""
        return _Reply(code, reason, headers, len(body), _one(body), keeps=True)

    # ---------------------------------------------------------------------------------- execute

    async def _executed(self) -> _Reply:
        if self._plan.duplicates and await self._keep():
            for _ in range(self._plan.extra()):
                reply = await self._once()
                if not await self._emptied(reply.body) or not reply.keeps:
                    self._upstream.abort()
        return await self._once()

    async def _keep(self) -> bool:
        """Have the whole request here; False if it is too long."""
        kept = b""
        async for data in self._body:
            kept += data
            if len(kept) > BODY_MOST:
                self._plan.refuse_duplicate(f"the request has more than {BODY_MOST} bytes")
                self._body = _chained(kept, self._body)
                return False
        self._kept = kept
        return True

    async def _once(self) -> _Reply:
        """Have the upstream execute it. Raises OSError if it can't be reached, Broken, _Over."""
        reader, writer = await self._upstream.opened()
        headers = self._head.onward(upgrade=self._upgrade)
        if self._framing == "chunked":
            headers.append((b"Transfer-Encoding", b"chunked"))
        first = (self._head.first, self._head.second, b"HTTP/1.1")
        try:
            writer.write(wire.write_head(first, headers))
            body = self._body if self._kept is None else _one(self._kept)
            self._pump = asyncio.create_task(self._sent(body, writer))
            head = await wire.read_head(reader)
            while head is not None and head.second[:1] == b"1" and head.second != b"101":
                head = await wire.read_head(reader)
        except OSError:
            await self._over(reset=True)
        if head is None or not (head.second.isdigit() and len(head.second) == 3):
            await self._over(reset=False)
        code = int(head.second)
        none = bodiless(self._head.first, code)
        framing = 0 if none else head.framing("close")
        keeps = framing != "close" and b"close" not in head.tokens(b"connection")
        keeps = keeps and head.first == b"HTTP/1.1"
        headers = head.onward(upgrade=code == 101)
        return _Reply(code, head.third, headers, framing, wire.body(reader, framing), keeps)

    async def _sent(self, body: AsyncIterator[bytes], writer: asyncio.StreamWriter) -> None:
        await _written(body, writer, chunked=self._framing == "chunked")

    async def _emptied(self, body: AsyncIterator[bytes]) -> bool:
        """Read a body and forget it; False if it was too long, or took too long."""
        size = 0
        with suppress(TimeoutError, wire.Broken, wire.Malformed, OSError):
            async with asyncio.timeout(DRAIN_SECONDS):
                async for data in body:
                    size += len(data)
                    if size > BODY_MOST:
                        return False
                return True
        return False

    # ----------------------------------------------------------------------------------- answer

    async def _answer(self, reply: _Reply) -> bool:
        none = bodiless(self._head.first, reply.code)
        wrong = None if none else self._plan.wrong()
        if wrong is not None:
            if not await self._emptied(reply.body) or not reply.keeps:
                self._upstream.abort()
                reply.keeps = False
            reply.headers = reworded(reply.headers, wrong)
            reply.body, reply.framing = _one(wrong), len(wrong)
        keeps = not self._old and b"close" not in self._head.tokens(b"connection")
        chunked = not none and not isinstance(reply.framing, int)
        if chunked and self._head.third == b"HTTP/1.0":
            chunked = keeps = False
        headers = list(reply.headers)
        if chunked:
            headers.append((b"Transfer-Encoding", b"chunked"))
        if not keeps:
            headers.append((b"Connection", b"close"))
        first = (b"HTTP/1.1", b"%d" % reply.code, reply.reason)
        self._writer.write(wire.write_head(first, headers))
        await self._writer.drain()
        if not none:
            try:
                shaped = self._shaped(reply.body)
                await _written(shaped, self._writer, chunked=chunked)
            except wire.Malformed:
                raise wire.Broken from None
            except ConnectionResetError:
                await self._over(reset=True)
        if not reply.keeps:
            self._upstream.abort()
        pumped = self._pump is None or self._pump.done()
        return keeps and pumped

    async def _shaped(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for data in body:
            for deed in self._plan.body(data):
                if isinstance(deed, bytes):
                    yield deed
                else:
                    await self._do([deed])

    async def _spliced(self, reply: _Reply) -> bool:
        """Another protocol from here on: bytes, until both sides have ended."""
        reader, writer = await self._upstream.opened()
        first = (b"HTTP/1.1", b"101", reply.reason)
        self._writer.write(wire.write_head(first, reply.headers))
        await asyncio.gather(_copied(self._reader, writer), _copied(reader, self._writer))
        return False

    # ------------------------------------------------------------------------------- what is done

    async def _do(self, deeds: Iterable[Deed], rest: AsyncIterator[bytes] | None = None) -> None:
        """Carry out deeds; before the connection is ended, read the rest of what is under way.

        So a client has sent all of its request, and an upstream has executed it. Raises _Over after the end.
        """
        for deed in deeds:
            if isinstance(deed, Wait):
                await deed.ending.await_(deed.seconds)
                continue
            if rest is not None:
                await self._emptied(rest)
            await self._end(deed)

    async def _end(self, end: End) -> NoReturn:
        if end.how == "silence":
            self._upstream.abort()
            await end.ending.await_(inf)
        await self._over(reset=end.how == "reset")

    async def _over(self, *, reset: bool) -> NoReturn:
        self._upstream.abort()
        await cut(self._writer.transport, reset=reset)
        raise _Over


async def _one(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for data in rest:
        yield data


async def _written(
    body: AsyncIterator[bytes], writer: asyncio.StreamWriter, *, chunked: bool
) -> None:
    async for data in body:
        writer.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
        await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(wire.PIECE_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
