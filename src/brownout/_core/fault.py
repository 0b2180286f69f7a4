"""What a fault is: a value that says what is done, to whom and when; and what it decided, kept.

Nothing here does harm. A *place* (a proxy, a process, a disk) makes a fault by its real mechanism, and
asks the fault's `Injection` about each connection or request: the same seed gives the same answers, in
whatever order the connections come.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field, fields
from ipaddress import ip_address, ip_network
from math import cos, inf, isfinite, log, pi, sqrt
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from brownout.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "KINDS",
    "Amount",
    "Chance",
    "Decision",
    "Fault",
    "Injection",
    "Log",
    "Schedule",
    "drawn",
]

Stream = Literal["upstream", "downstream", "both"]
DECISIONS_KEPT = 100_000
BODY_SHOWN = 40
_COUNTED = frozenset({"share", "nth", "first"})  # with limits of their own
_MASK = (1 << 64) - 1


class Chance:
    """Numbers that look random, fixed by a seed and by what they are for.

    SplitMix64 (Steele, Lea, Flood 2014): the same on every Python and machine.
    """

    __slots__ = ("_at",)

    def __init__(self, seed: int, *parts: int | str) -> None:
        at = seed & _MASK
        for part in parts:
            for piece in part.encode() if isinstance(part, str) else (part,):
                at = _mixed(at + piece + 0x9E3779B97F4A7C15)
        self._at = at

    def random(self) -> float:
        """The next number, from 0 up to but not 1."""
        self._at = (self._at + 0x9E3779B97F4A7C15) & _MASK
        return (_mixed(self._at) >> 11) / (1 << 53)


def _mixed(at: int) -> int:
    at &= _MASK
    at = ((at ^ (at >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    at = ((at ^ (at >> 27)) * 0x94D049BB133111EB) & _MASK
    return at ^ (at >> 31)


@dataclass(frozen=True, slots=True)
class Amount:
    """A quantity that varies: seconds or bytes, never below 0.

    `shape` says what `jitter` means: "uniform" is value ± jitter, "normal" has it as standard deviation,
    "exponential" adds an exponential wait with that mean, "pareto" a heavy tail (shape 2) with that mean.
    """

    value: float
    jitter: float = 0.0
    shape: Literal["uniform", "normal", "exponential", "pareto"] = "uniform"

    def wrong(self) -> str | None:
        """What is wrong with it, or None."""
        if not (self.value >= 0 and 0 <= self.jitter < inf):
            return "an amount and its jitter are 0 or more"
        if self.shape not in ("uniform", "normal", "exponential", "pareto"):
            return f'no distribution is called "{self.shape}": uniform, normal, exponential, pareto'
        return None


def drawn(amount: float | Amount, chance: Chance) -> float:
    """One value of an amount; a plain number is itself."""
    if not isinstance(amount, Amount):
        return amount
    if not amount.jitter:
        return amount.value
    u = chance.random()
    if amount.shape == "uniform":
        extra = amount.jitter * (2 * u - 1)
    elif amount.shape == "normal":  # Box-Muller
        extra = amount.jitter * sqrt(-2 * log(1 - u)) * cos(2 * pi * chance.random())
    elif amount.shape == "exponential":
        extra = -amount.jitter * log(1 - u)
    else:
        extra = amount.jitter * (1 / sqrt(1 - u) - 1)
    return max(0.0, amount.value + extra)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a fault is in force, in seconds after it was made.

    From `start` to `end`; its share grows from 0 to full in the first `ramp` seconds; it flaps where
    `off` is given: `on` seconds in force, `off` seconds not.
    """

    start: float = 0.0
    ramp: float = 0.0
    on: float = inf
    off: float = 0.0
    end: float = inf

    def wrong(self) -> str | None:
        """What is wrong with it, or None."""
        if not (0 <= self.start < self.end and 0 <= self.ramp < inf and 0 <= self.off < inf):
            return "a schedule has 0 <= start < end, and a ramp and an off of 0 s or more"
        if self.on <= 0 or (self.off and not isfinite(self.on)):
            return "a schedule that flaps has on and off above 0 s"
        return None

    def strength(self, elapsed: float) -> float:
        """How much of its share is in force: from 0 (none) to 1 (all)."""
        since = elapsed - self.start
        if since < 0 or elapsed >= self.end:
            return 0.0
        if self.off and since % (self.on + self.off) >= self.on:
            return 0.0
        return min(1.0, since / self.ramp) if self.ramp else 1.0

    def next_change(self, elapsed: float) -> float:
        """When it next comes into force or goes out of it, in the same seconds; inf for never."""
        if elapsed < self.start:
            return self.start
        if elapsed >= self.end:
            return inf
        if not self.off:
            return self.end
        cycle, place = divmod(elapsed - self.start, self.on + self.off)
        turn = self.on if place < self.on else self.on + self.off
        return min(self.end, self.start + cycle * (self.on + self.off) + turn)


KINDS: dict[str, type[Fault]] = {}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is done, to whom, when. Each kind is a subclass with its own amounts.

    `share` of the subjects are hit, drawn once for each: a connection, or with `per="request"` each
    request on it. `nth=3` hits every third alone, `first=2` the first two, `client="10.0.0.0/8"` those
    from there, `match` (a regular expression) those whose request begins so, and in HTTP `header`, a name
    and a regular expression, those where a value of it begins so. All that are given must hold.
    """

    kind: ClassVar[str] = ""

    share: float = 1.0
    stream: Stream = "both"
    per: Literal["connection", "request"] = "connection"
    nth: int | None = None
    first: int | None = None
    client: str | None = None
    match: str | None = None
    header: tuple[str, str] | None = None
    schedule: Schedule = field(default_factory=Schedule)

    def __init_subclass__(cls, **rest: Any) -> None:
        """Register the kind by its name."""
        super().__init_subclass__(**rest)
        if cls.kind:
            KINDS[cls.kind] = cls

    def __post_init__(self) -> None:
        """Refuse what can't be made, all at once."""
        if wrong := list(self.wrong()):
            raise ConfigurationError(f"{type(self).__name__}: " + "; ".join(wrong))

    def wrong(self) -> Iterator[str]:
        """All that is wrong with it."""
        if not 0 <= self.share <= 1:
            yield f"share={self.share!r} is a part of 1, from 0 to 1"
        if self.stream not in ("upstream", "downstream", "both"):
            yield f'stream={self.stream!r} is "upstream", "downstream" or "both"'
        if self.per not in ("connection", "request"):
            yield f'per={self.per!r} is "connection" or "request"'
        for name, count in (("nth", self.nth), ("first", self.first)):
            if count is not None and count < 1:
                yield f"{name}={count!r} counts from 1"
        yield from self._whom_wrong()
        if problem := self.schedule.wrong():
            yield problem
        for name in (each.name for each in fields(self)):
            amount = getattr(self, name)
            if isinstance(amount, Amount) and (problem := amount.wrong()):
                yield f"{name}: {problem}"
            elif isinstance(amount, int | float) and name not in _COUNTED and not amount >= 0:
                yield f"{name}={amount!r} is 0 or more"

    def _whom_wrong(self) -> Iterator[str]:
        if self.client is not None:
            try:
                ip_network(self.client, strict=False)
            except ValueError:
                yield f'client={self.client!r} is an address or a network, such as "10.0.0.0/8"'
        if self.match is not None:
            try:
                re.compile(self.match.encode())
            except re.error as error:
                yield f"match={self.match!r} is no regular expression ({error})"
        if self.header is not None:
            try:
                name, value = self.header
                re.compile(value.encode("latin-1"))
                name.encode("ascii")
            except (re.error, ValueError, AttributeError, TypeError) as error:
                yield f"header is a name and a regular expression for its value ({error})"

    def __str__(self) -> str:
        """As in `Latency(seconds=0.2, share=0.3)`: what differs from the defaults."""
        told = [
            f"{each.name}={_shown(each.name, getattr(self, each.name))}"
            for each in fields(self)
            if each.name != "schedule" and getattr(self, each.name) != each.default
        ]
        return f"{type(self).__name__}({', '.join(told)})"


def _shown(name: str, value: Any) -> str:
    """As it may stand in a record: without the value of a header, nor all of a long body."""
    if name == "header":
        return f"({value[0]!r}, ...)"
    if isinstance(value, bytes) and len(value) > BODY_SHOWN:
        return f"{value[:BODY_SHOWN]!r}... {len(value)} bytes"
    return repr(value)


class Decision(NamedTuple):
    """One thing that a fault decided or did: the truth that what was seen is set against."""

    at: float  # monotonic seconds, of the place
    injection: str
    connection: int
    request: int
    what: str  # "hit", "passed", or what was done: "reset", "dropped", "delayed"...
    amount: float = 0.0  # seconds or bytes of it
    offset: int = 0  # how many bytes of its stream had passed


class Log:
    """The last decisions, oldest first; `lost` counts those that are no longer kept."""

    def __init__(self, kept: int = DECISIONS_KEPT) -> None:
        self._kept: deque[Decision] = deque(maxlen=kept)
        self.lost = 0

    def add(self, decision: Decision) -> None:
        """Keep one."""
        self.lost += len(self._kept) == self._kept.maxlen
        self._kept.append(decision)

    def __iter__(self) -> Iterator[Decision]:
        """All that are kept."""
        return iter(tuple(self._kept))

    def __len__(self) -> int:
        return len(self._kept)


class Injection:
    """One fault, made at one place: decides whom it hits, the same way for the same seed.

    `name` is unique at its place and a part of the seed.
    """

    def __init__(self, name: str, fault: Fault, *, seed: int, since: float, log: Log) -> None:
        self.name = name
        self.fault = fault
        self.seed = seed
        self.since = since
        self.log = log
        self._match = None if fault.match is None else re.compile(fault.match.encode())
        self._among = None if fault.client is None else ip_network(fault.client, strict=False)
        self._header = None
        if fault.header is not None:
            wanted, value = (each.encode("latin-1") for each in fault.header)
            self._header = wanted.lower(), re.compile(value)

    def chance(self, connection: int, request: int = 0) -> Chance:
        """The draws for one subject, of amounts as of whether it is hit."""
        return Chance(self.seed, self.name, connection, request)

    def hits(
        self, at: float, connection: int, request: int = 0, *, client: str = "", head: bytes = b""
    ) -> bool:
        """Whether it hits this connection (counted from 1 at its place), or this request on it.

        `request` counts from 1 among those of the place where the fault is `per` request, and is 0 else.
        """
        fault = self.fault
        number = request if fault.per == "request" else connection
        if fault.nth is not None and number % fault.nth:
            return False
        if fault.first is not None and number > fault.first:
            return False
        if not self.fits(client=client, head=head):
            return False
        drawn = Chance(self.seed, self.name, connection, request, "hit").random()
        return drawn < fault.share * fault.schedule.strength(at - self.since)

    def fits(self, *, client: str = "", head: bytes = b"") -> bool:
        """Whether it is meant for those from there, whose request begins so."""
        if self._among is not None and not _within(client, self._among):
            return False
        return self._match is None or bool(self._match.match(head))

    def fits_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether it is meant for a request with these headers."""
        if self._header is None:
            return True
        wanted, value = self._header
        return any(name.lower() == wanted and value.match(each) for name, each in headers)

    def note(
        self,
        at: float,
        connection: int,
        request: int,
        what: str,
        amount: float = 0.0,
        offset: int = 0,
    ) -> None:
        """Log what was decided or done."""
        self.log.add(Decision(at, self.name, connection, request, what, amount, offset))


def _within(client: str, among: Any) -> bool:
    try:
        return ip_address(client.partition("%")[0]) in among
    except ValueError:  # a Unix socket's client has no address
        return False
