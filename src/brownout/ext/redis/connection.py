"""A connection of redis-py that knows how far it has come with a command."""

# The base of a watched connection is known when one is made.
# pyright: reportUnknownVariableType=false
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis

from brownout.ext.redis.meaning import READS, SCRIPTS, answered, broken, connecting
from brownout.ext.trail import mark, tell

if TYPE_CHECKING:
    # Each is made the first base of one of redis-py's own connections.
    Base: Any
else:
    Base = object

_TRANSACTION = b"*1\r\n$5\r\nMULTI\r\n"


class _Known:
    """What is known of the command under way."""

    _busy = 0  # with its own: connecting, the handshake, a ping
    _reads = True
    _alone = False
    _transaction = False
    _begun = False  # its MULTI was taken

    def _named(self, args: tuple[Any, ...]) -> None:
        """A single command is sent."""
        first = args[0] if args else ""
        name = (
            (first.decode("latin-1") if isinstance(first, bytes) else str(first))
            .split(" ")[0]
            .upper()
        )
        if not self._busy:
            self._reads, self._alone = name in READS, name not in SCRIPTS
            self._transaction = False

    def _packed(self, command: Any) -> None:
        """Several commands are sent as one."""
        if not self._busy:
            self._reads = self._alone = False
            head = command[0] if isinstance(command, (list, tuple)) and command else command
            self._transaction = isinstance(head, bytes) and head.startswith(_TRANSACTION)
            self._begun = False

    def _unsent(self, error: BaseException) -> None:
        """It was not sent, or not to its end."""
        if self._busy:
            tell(error, connecting(error))
        else:
            tell(error, broken(error), changes=not self._reads)

    def _unread(self, error: BaseException) -> None:
        """No answer came, or it is an error. A server that is full says so to whatever it is told first."""
        if self._busy or "max number of clients" in str(error):
            tell(error, connecting(error))
        elif isinstance(error, (redis.ResponseError, redis.BusyLoadingError)):
            if not self._begun:
                self._transaction = (
                    False  # MULTI itself was refused: what follows is done one by one
                )
            alone = self._alone or self._transaction  # EXEC does nothing after an error before it
            tell(error, answered(error, alone=alone), changes=not self._reads)
        else:
            tell(error, broken(error), changes=not self._reads)

    def _answer(self, answer: Any) -> None:
        """An answer came. Of a transaction only its last one, a list, tells that it was done."""
        if (
            not self._busy
            and not self._reads
            and (not self._transaction or isinstance(answer, list))
        ):
            mark()
        self._begun = True


class Watched(_Known, Base):  # type: ignore[misc]
    """For a client of threads."""

    def connect_check_health(self, *args: Any, **kwargs: Any) -> Any:
        """Connect, and tell that nothing was sent if it fails."""
        self._busy += 1
        try:
            return super().connect_check_health(*args, **kwargs)
        except BaseException as error:
            tell(error, connecting(error))
            raise
        finally:
            self._busy -= 1

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Connect, and tell that nothing was sent if it fails."""
        self._busy += 1
        try:
            return super().connect(*args, **kwargs)
        except BaseException as error:
            tell(error, connecting(error))
            raise
        finally:
            self._busy -= 1

    def check_health(self, *args: Any, **kwargs: Any) -> Any:
        """Ping where it is due."""
        self._busy += 1
        try:
            return super().check_health(*args, **kwargs)
        finally:
            self._busy -= 1

    def send_command(self, *args: Any, **kwargs: Any) -> Any:
        """Send one command."""
        self._named(args)
        packed = self._command_packer.pack(*args)
        return self._send(packed, kwargs.get("check_health", True))

    def send_packed_command(self, command: Any, check_health: bool = True) -> Any:  # noqa: FBT001, FBT002
        """Send several commands."""
        self._packed(command)
        return self._send(command, check_health)

    def _send(self, command: Any, check_health: Any) -> Any:
        try:
            return super().send_packed_command(command, check_health)
        except BaseException as error:
            self._unsent(error)
            raise

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read one answer."""
        try:
            answer = super().read_response(*args, **kwargs)
        except BaseException as error:
            self._unread(error)
            raise
        self._answer(answer)
        return answer


class WatchedAsync(_Known, Base):  # type: ignore[misc]
    """For a client of asyncio."""

    async def connect_check_health(self, *args: Any, **kwargs: Any) -> Any:
        """Connect, and tell that nothing was sent if it fails."""
        self._busy += 1
        try:
            return await super().connect_check_health(*args, **kwargs)
        except BaseException as error:
            tell(error, connecting(error))
            raise
        finally:
            self._busy -= 1

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Connect, and tell that nothing was sent if it fails."""
        self._busy += 1
        try:
            return await super().connect(*args, **kwargs)
        except BaseException as error:
            tell(error, connecting(error))
            raise
        finally:
            self._busy -= 1

    async def check_health(self, *args: Any, **kwargs: Any) -> Any:
        """Ping where it is due."""
        self._busy += 1
        try:
            return await super().check_health(*args, **kwargs)
        finally:
            self._busy -= 1

    async def send_command(self, *args: Any, **kwargs: Any) -> Any:
        """Send one command."""
        self._named(args)
        packed = self.pack_command(*args)
        return await self._send(packed, kwargs.get("check_health", True))

    async def send_packed_command(self, command: Any, check_health: bool = True) -> Any:  # noqa: FBT001, FBT002
        """Send several commands."""
        self._packed(command)
        return await self._send(command, check_health)

    async def _send(self, command: Any, check_health: Any) -> Any:
        try:
            return await super().send_packed_command(command, check_health)
        except BaseException as error:
            self._unsent(error)
            raise

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read one answer."""
        try:
            answer = await super().read_response(*args, **kwargs)
        except BaseException as error:
            self._unread(error)
            raise
        self._answer(answer)
        return answer
