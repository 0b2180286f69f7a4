"""What is to be done to one request: decided once for each, for all forms of HTTP in the same way.

A carrier (middleware, transport, proxy) asks in the order in which a request lives: `before` it is
executed, for the `answer` that is given instead, how often it is executed, what comes before the `head` of
the answer, and what becomes of each piece of its body. It gets *deeds*, and carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Literal, NamedTuple

from brownout._core.fault import Injection, drawn
from brownout.fault.kind import Cut, Drop, Duplicate, Latency, Slice, Stall, Status, Wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from brownout._core.fault import Amount, Chance, Fault

    from .ending import Ending

__all__ = [
    "MAKES",
    "Active",
    "End",
    "Hit",
    "Plan",
    "Request",
    "Wait",
    "bodiless",
    "instead",
    "reworded",
]

MAKES: frozenset[type[Fault]] = frozenset(
    {Cut, Drop, Duplicate, Latency, Slice, Stall, Status, Wrong}
)
_OF_BODY = frozenset({b"content-length", b"transfer-encoding", b"content-encoding", b"trailer"})


@dataclass(frozen=True, slots=True)
class Request:
    """What a fault may look at."""

    method: bytes
    path: bytes  # as it was sent, without the query
    headers: Sequence[tuple[bytes, bytes]]
    client: str = ""


@dataclass(eq=False, slots=True)
class Active:
    """A fault that is made here, and how many requests it was meant for."""

    injection: Injection
    ending: Ending
    count: int = 0


class Hit(NamedTuple):
    """A fault that hits this request."""

    active: Active
    number: int
    chance: Chance


class Wait(NamedTuple):
    """Deed: go on so many seconds later, or when the fault ends."""

    ending: Ending
    seconds: float


class End(NamedTuple):
    """Deed, the last one: the caller gets no more.

    "reset" and "close" end the connection; "silence" does so only when the fault ends.
    """

    how: Literal["reset", "close", "silence"]
    ending: Ending


Deed = Wait | End


class Plan:
    """What is done to one request. Faults that have ended meanwhile do nothing more."""

    def __init__(self, hits: Sequence[Hit], clock: Callable[[], float]) -> None:
        self._hits = hits
        self._clock = clock
        self._passed = 0  # bytes of the body that were handed on
        self._pieces = 0
        self._marks: list[tuple[int, Hit, float]] | None = None

    def __bool__(self) -> bool:
        """Whether anything is done at all."""
        return bool(self._hits)

    def _in_force(self, *kinds: type[Fault]) -> Iterator[tuple[Hit, Fault]]:
        for hit in self._hits:
            fault = hit.active.injection.fault
            if isinstance(fault, kinds) and not hit.active.ending.over:
                yield hit, fault

    def note(self, hit: Hit, what: str, amount: float = 0.0) -> None:
        """Log what was done."""
        injection = hit.active.injection
        injection.note(self._clock(), 0, hit.number, what, amount, self._passed)

    def _wait(self, hit: Hit, amount: float | Amount, what: str) -> Iterator[Wait]:
        seconds = drawn(amount, hit.chance)
        if seconds:
            self.note(hit, what, seconds)
            yield Wait(hit.active.ending, seconds)

    # ---------------------------------------------------------------------------------- in order

    def before(self) -> Iterator[Deed]:
        """Before it is executed."""
        for hit, fault in self._in_force(Latency, Cut, Drop):
            ending = hit.active.ending
            if isinstance(fault, Latency) and fault.stream == "upstream":
                yield from self._wait(hit, fault.seconds, "delayed")
            elif isinstance(fault, Cut) and fault.at == "request":
                yield from self._wait(hit, fault.after_seconds, "delayed")
                if not ending.over:
                    self.note(hit, fault.how)
                    yield End(fault.how, ending)
            elif isinstance(fault, Drop) and fault.stream != "downstream":
                self.note(hit, "dropped")
                yield End("silence", ending)

    def answer(self) -> Status | None:
        """What is answered without executing it."""
        for hit, fault in self._in_force(Status):
            if isinstance(fault, Status):
                self.note(hit, "answered", fault.code)
                return fault
        return None

    @property
    def duplicates(self) -> bool:
        """Whether it is executed more than once, so that the request is to be kept."""
        return any(True for _ in self._in_force(Duplicate))

    def extra(self) -> int:
        """How often it is executed before the time whose answer is handed on."""
        total = 1
        for hit, fault in self._in_force(Duplicate):
            if isinstance(fault, Duplicate):
                self.note(hit, "duplicated", fault.times)
                total *= fault.times
        return total - 1

    def refuse_duplicate(self, why: str) -> None:
        """It can't be executed more than once: say so in the log."""
        for hit, _ in self._in_force(Duplicate):
            self.note(hit, f"refused: {why}")

    def wrong(self) -> bytes | None:
        """The body that the answer has instead of its own."""
        found = None
        for hit, fault in self._in_force(Wrong):
            if isinstance(fault, Wrong):
                self.note(hit, "replaced", len(fault.body))
                found = fault.body
        return found

    def head(self) -> Iterator[Deed]:
        """Once it is executed, before the head of the answer is handed on."""
        for hit, fault in self._in_force(Latency, Cut, Drop):
            ending = hit.active.ending
            if isinstance(fault, Latency) and fault.stream != "upstream":
                yield from self._wait(hit, fault.seconds, "delayed")
            elif isinstance(fault, Cut) and fault.at == "reply" and not fault.after_bytes:
                yield from self._wait(hit, fault.after_seconds, "delayed")
                if not ending.over:
                    self.note(hit, fault.how)
                    yield End(fault.how, ending)
            elif isinstance(fault, Drop) and fault.stream == "downstream":
                self.note(hit, "dropped")
                yield End("silence", ending)

    @property
    def shapes(self) -> bool:
        """Whether anything is done to the body."""
        return bool(self._offsets()) or any(True for _ in self._in_force(Slice))

    def _offsets(self) -> list[tuple[int, Hit, float]]:
        if self._marks is None:
            self._marks = [
                (fault.after_bytes, hit, number)
                for number, (hit, fault) in enumerate(self._in_force(Stall, Cut))
                if (isinstance(fault, Cut) and fault.at == "reply" and fault.after_bytes)
                or isinstance(fault, Stall)
            ]
            self._marks.sort(key=lambda mark: (mark[0], mark[2]))
        return self._marks

    def body(self, data: bytes) -> Iterator[Deed | bytes]:
        """What becomes of a piece of the body: pieces of it, with deeds between them."""
        marks = self._offsets()
        while data:
            while marks and marks[0][0] <= self._passed:
                yield from self._mark(marks.pop(0)[1])
            size = min(len(data), marks[0][0] - self._passed) if marks else len(data)
            for hit, fault in self._in_force(Slice):
                if isinstance(fault, Slice):
                    size = min(size, max(1, round(drawn(fault.bytes, hit.chance))))
                    if self._pieces:
                        yield from self._wait(hit, fault.seconds, "sliced")
            yield data[:size]
            self._passed += size
            self._pieces += 1
            data = data[size:]

    def _mark(self, hit: Hit) -> Iterator[Deed]:
        fault, ending = hit.active.injection.fault, hit.active.ending
        if ending.over:
            return
        if isinstance(fault, Stall):
            yield from self._wait(hit, fault.seconds, "stalled")
        elif isinstance(fault, Cut):
            yield from self._wait(hit, fault.after_seconds, "delayed")
            if not ending.over:
                self.note(hit, fault.how)
                yield End(fault.how, ending)


def instead(status: Status) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that nobody gave."""
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(status.body)),
    ]
    if status.retry_after is not None:  # whole seconds, as RFC 9110 10.2.3 has it
        headers.append((b"retry-after", b"%d" % ceil(status.retry_after)))
    return headers


def reworded(headers: Sequence[tuple[bytes, bytes]], body: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that has this body instead of its own."""
    kept = [each for each in headers if each[0].lower() not in _OF_BODY]
    return [*kept, (b"content-length", b"%d" % len(body))]


def bodiless(method: bytes, code: int) -> bool:
    """Whether an answer has no body, whatever its headers say (RFC 9110 6.4.1)."""
    return method == b"HEAD" or code in (204, 304) or code < 200
