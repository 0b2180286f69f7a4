"""What is done to a request of HTTP and to its answer."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, ClassVar

from brownout._core.fault import Amount, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator


# ------------------------------------------------------------------------------ answers are bad

BODY_MOST = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Status(Fault):
    """The answer is this one, and the request is not executed.

    `retry_after` (seconds) is told in a Retry-After header, as a 429 or a 503 has it.
    """

    kind: ClassVar[str] = "status"

    code: int
    retry_after: float | None = None
    body: bytes = b""

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        if not 200 <= self.code <= 599:
            yield f"code={self.code!r} is the status of an answer, from 200 to 599"
        if self.retry_after is not None and not self.retry_after < inf:
            yield f"retry_after={self.retry_after!r} is a number of seconds"
        yield from _body_wrong(self.body)


@dataclass(frozen=True, kw_only=True)
class Stall(Fault):
    """The body of the answer stops after so many bytes of it, and goes on `seconds` later."""

    kind: ClassVar[str] = "stall"

    after_bytes: int = 0
    seconds: float | Amount = inf


@dataclass(frozen=True, kw_only=True)
class Wrong(Fault):
    """The request is executed, and the answer has this body instead of its own."""

    kind: ClassVar[str] = "wrong"

    body: bytes

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        yield from _body_wrong(self.body)


@dataclass(frozen=True, kw_only=True)
class Duplicate(Fault):
    """The request is executed so many times, one after another, and answered once: by the last answer.

    So it is when something between lost the first answer and tried again. A request of more than 1 MiB
    can't be kept to be sent again: it is executed once, and the log says so.
    """

    kind: ClassVar[str] = "duplicate"

    times: int = 2

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        yield from super().wrong()
        if not 2 <= self.times <= 100:
            yield f"times={self.times!r} is from 2 to 100"


def _body_wrong(body: bytes) -> Iterator[str]:
    if not isinstance(body, bytes):
        yield f"body={body!r} is bytes"
    elif len(body) > BODY_MOST:
        yield f"a body of {len(body)} bytes is too long: 1 MiB at most"
