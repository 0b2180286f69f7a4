"""The body of an answer, read under the attempt that brought it.

The attempt is settled when the body is: at its end, where it breaks, or where its reader leaves.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

from brownout import OutcomeClass
from brownout.ext.httpx.meaning import library, stopped
from brownout.ext.trail import lost, tell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from brownout import Attempt

SWITCHED = 101  # the connection is the caller's from now on
_EVENTS = "text/event-stream"  # is silent for long when all is well
_END: Any = object()


class _Body:
    """What both colours share. Subclasses of the library's own stream class are made of it."""

    def __init__(self, stream: Any, attempt: Attempt) -> None:
        self._stream = stream
        self._attempt = attempt
        self._hold = attempt.hold()

    def _stopped(self, error: BaseException) -> None:
        class_ = stopped(error, self._attempt, time.monotonic())
        silent = not isinstance(error, Exception)
        tell(error, lost(OutcomeClass.UNKNOWN if silent else class_), changes=False)
        self._hold.settle(class_)


class _SyncBody(_Body):
    def __iter__(self) -> Iterator[bytes]:
        parts = iter(self._stream)
        while True:
            try:
                with self._hold.listening():
                    part = next(parts, _END)
            except BaseException as error:
                self._stopped(error)
                raise
            if part is _END:
                self._hold.settle(OutcomeClass.SUCCESS)
                return
            yield part

    def close(self) -> None:
        self._hold.end()
        self._stream.close()


class _AsyncBody(_Body):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts = aiter(self._stream)
        while True:
            try:
                async with self._hold.listening():
                    part = await anext(parts, _END)
            except BaseException as error:
                self._stopped(error)
                raise
            if part is _END:
                self._hold.settle(OutcomeClass.SUCCESS)
                return
            yield part

    async def aclose(self) -> None:
        self._hold.end()
        await self._stream.aclose()


_KINDS = {"SyncByteStream": _SyncBody, "AsyncByteStream": _AsyncBody}


@cache
def _class(body: type, base: type) -> Any:
    """The clients ask for an instance of their own stream class, which nobody else can import for them."""
    return type("Body", (body, base), {})


def follow(response: Any, attempt: Attempt, kind: str) -> None:
    """Hold the attempt until the body of the answer has been read, if it is still to be read."""
    if response.is_closed or response.status_code == SWITCHED:
        return
    if response.headers.get("content-type", "").partition(";")[0].strip().lower() == _EVENTS:
        return
    for base in type(response.stream).__mro__:
        if base.__name__ == kind and library(base):
            response.stream = _class(_KINDS[kind], base)(response.stream, attempt)
            return
