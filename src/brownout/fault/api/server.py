"""The API's server: connections counted and timed, one answer after the other on each."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from brownout.errors import BrownoutError, ConfigurationError
from brownout.fault.api.access import (
    BEYOND,
    address_of,
    check_request,
    check_token,
    is_loopback,
    resolved,
)
from brownout.fault.api.answer import Problem
from brownout.fault.api.body import parsed_list
from brownout.fault.api.proxies import Proxies
from brownout.fault.api.routes import answered
from brownout.fault.api.wire import HEAD_BYTES, read_body, read_head, written
from brownout.fault.made import LONGEST_SECONDS
from brownout.fault.tcp.address import Address

if TYPE_CHECKING:
    from types import TracebackType

    from brownout.fault.api.answer import Answer
    from brownout.fault.api.wire import Head

__all__ = ["FOR_SECONDS", "Server"]

FOR_SECONDS = (
    3600.0  # longer than a suite of tests takes; a toxic that was forgotten ends in the same hour
)
CONNECTIONS = 256
REFUSALS = 64  # so many more are told that there are too many
WRITE_SECONDS = 15.0
LINGER_SECONDS = 1.0
LINGER_BYTES = 8 << 20
CLOSE_SECONDS = 1.0


class Server:
    """Toxiproxy's HTTP API, over brownout's proxies; to be started and stopped in one running loop.

    It listens on this machine alone, and so do its proxies, unless there is a `token` that every request
    then has to show. The same `seed` makes toxics hit the same connections of a proxy. A toxic is undone
    after `seconds`, unless its attribute `for_ms` says otherwise. `listen` is the real address once it is
    started. Raises ConfigurationError.
    """

    def __init__(
        self,
        listen: str = "127.0.0.1:8474",
        *,
        token: str | None = None,
        seed: int = 0,
        seconds: float = FOR_SECONDS,
    ) -> None:
        check_token(token)
        if not 0 < seconds <= LONGEST_SECONDS:
            raise ConfigurationError(
                f"seconds={seconds!r} is how long a toxic is in force, above 0 and at most"
                f" {LONGEST_SECONDS:.0f} (a week); every fault has an end"
            )
        address_of(listen)
        self.listen = listen
        self.proxies = Proxies(seed=seed, beyond=token is not None, seconds=seconds)
        self._token = token
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._idle: dict[asyncio.Task[None], None] = {}  # the longest idle first
        self._requests = 0

    async def start(self) -> None:
        """Listen. Raises ConfigurationError, or BrownoutError if the address can't be had."""
        address = await resolved(self.listen)
        if self._token is None and not is_loopback(address.host):
            raise ConfigurationError(f"{self.listen} is open {BEYOND}")
        try:
            self._server = await asyncio.start_server(
                self._connection,
                address.host,
                address.port,
                limit=HEAD_BYTES,
                backlog=CONNECTIONS,
            )
        except OSError as error:
            raise BrownoutError(f"can't listen on {self.listen}: {error}") from error
        self.listen = str(Address(*self._server.sockets[0].getsockname()[:2]))

    async def populate(self, body: bytes) -> int:
        """Begin with the proxies of a toxiproxy.json; how many there are. Raises ConfigurationError."""
        try:
            done, problem = await self.proxies.populate(parsed_list(body))
        except Problem as refused:
            done, problem = [], refused
        if problem is not None:
            raise ConfigurationError(problem.message)
        return len(done)

    async def stop(self) -> None:
        """Stop all proxies, close all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._open.values():
            writer.transport.abort()
        if self._open:
            await asyncio.wait(list(self._open), timeout=CLOSE_SECONDS)
        await self.proxies.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # ---------------------------------------------------------------------------- one connection

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        writer.transport.set_write_buffer_limits(0)  # a drain waits until all is the kernel's
        try:
            if len(self._open) > CONNECTIONS and not self._close_longest_idle():
                busy = Problem(503, f"there are {CONNECTIONS} connections already")
                if len(self._open) <= CONNECTIONS + REFUSALS:
                    await self._write(writer, busy.answer(), keep_alive=False)
                    await _linger(reader, writer)
                return
            while await self._turn(reader, writer, task):
                pass
        except (OSError, TimeoutError):  # it left, or doesn't read
            writer.transport.abort()
        finally:
            del self._open[task]
            self._idle.pop(task, None)
            writer.close()  # all that was drained is the kernel's by now

    async def _turn(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        task: asyncio.Task[None],
    ) -> bool:
        """Read one request and answer it; whether another may follow."""
        self._idle[task] = None
        head: Head | None = None
        try:
            head = await read_head(reader)
            self._idle.pop(task, None)
            if head is None:
                return False
            check_request(head.headers, self._token)
            body = await read_body(reader, writer, head)
        except Problem as problem:  # what follows it on this connection can't be told apart
            bodiless = head is not None and head.method == "HEAD"
            await self._write(writer, problem.answer(), keep_alive=False, bodiless=bodiless)
            await _linger(reader, writer)
            return False
        answer = await self._answered(head, body)
        await self._write(
            writer, answer, keep_alive=head.keep_alive, bodiless=head.method == "HEAD"
        )
        return head.keep_alive

    async def _answered(self, head: Head, body: bytes) -> Answer:
        try:
            return await answered(self.proxies, head.method, head.path, body)
        except Exception as error:  # a bug of ours: told, and the next request is served
            context = {"message": f"{head.method} {head.path} failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            return Problem(500, f"internal error: {type(error).__name__}: {error}").answer()

    async def _write(
        self,
        writer: asyncio.StreamWriter,
        answer: Answer,
        *,
        keep_alive: bool,
        bodiless: bool = False,
    ) -> None:
        self._requests += 1
        writer.write(
            written(
                answer,
                number=self._requests,
                at=time.time(),
                keep_alive=keep_alive,
                bodiless=bodiless,
            )
        )
        async with asyncio.timeout(WRITE_SECONDS):
            await writer.drain()

    def _close_longest_idle(self) -> bool:
        for task in self._idle:
            self._idle.pop(task)
            self._open[task].transport.abort()
            return True
        return False


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let the client read the answer before what it still sends makes the kernel reset it (RFC 9112, 9.6)."""
    with suppress(OSError, TimeoutError):
        if writer.can_write_eof():
            writer.write_eof()
        left = LINGER_BYTES
        async with asyncio.timeout(LINGER_SECONDS):
            while left > 0 and (read := await reader.read(1 << 16)):
                left -= len(read)
