"""Attempts that go on when their function has returned: an answer that is still being read.

A held attempt stays in flight, and keeps its permit, until it is ended: by whoever reads the answer, when
nobody can read it any more, or at its deadline. The first of them counts, once. It is the target's turn
while somebody waits for more of the answer, and the caller's turn otherwise. Only the target's turns are
its time, and what is counted is its longest silence: a long answer that keeps coming is not slow, and a
caller that reads at leisure is nothing against the target.

Ending one takes no lock, since it may happen in the midst of anything (a garbage collection): what it
showed is laid aside, and counted by the next fold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from brownout._core.labelled import Labelled
from brownout._core.outcome import OutcomeClass
from brownout._core.sketch import bucket

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from brownout._core.attempt import Attempt
    from brownout._core.evidence import Shard
    from brownout._core.limit import Limit


class Hold(Protocol):
    """An attempt that goes on. Without a word it ends when this is garbage, or at the attempt's deadline."""

    def listening(self) -> Listening:
        """A block in which we wait for more of the answer: it is the target's turn.

        `async with` bounds it by the attempt's deadline, and raises TimedOut then. `with` interrupts nothing.
        """
        ...

    def settle(self, class_: OutcomeClass) -> None:
        """End it, and say what it showed. The first word counts."""
        ...

    def end(self) -> None:
        """End it, where nobody knows how it would have gone on.

        In the caller's turn that is a success; in the target's, the caller has left.
        """
        ...


class Listening(Protocol):
    """A block that is the target's turn: `with` for threads, `async with` for asyncio."""

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...

    def __aenter__(self) -> Coroutine[Any, Any, None]: ...

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> Coroutine[Any, Any, None]: ...


class Held:
    """A held attempt, as the table knows it."""

    __slots__ = ("attempt", "limit", "longest_seconds", "since")

    def __init__(self, attempt: Attempt, limit: Limit | None, now: float) -> None:
        self.attempt = attempt
        self.limit = limit
        self.longest_seconds = attempt.shard.took(attempt, now)
        self.since: float | None = None  # when the target's turn began

    def listen(self, now: float) -> None:
        """It is the target's turn."""
        self.since = now

    def heard(self, now: float) -> None:
        """More of the answer has come: it is the caller's turn."""
        if self.since is not None:
            self.longest_seconds = max(self.longest_seconds, self.silence(self.since, now))
            self.since = None

    def silence(self, since: float, now: float) -> float:
        """How long the target has said nothing since then; what we stood still ourselves is not its time."""
        late = self.attempt.shard.late
        return now - since - (late.lost(since, now) if late else 0.0)

    def left(self) -> OutcomeClass:
        """What it showed when its caller left it."""
        return OutcomeClass.SUCCESS if self.since is None else OutcomeClass.CANCELLED

    def expired(self) -> OutcomeClass:
        """What it showed when its deadline has passed."""
        if self.since is None:
            return OutcomeClass.SUCCESS
        return OutcomeClass.SHORT if self.attempt.inherited else OutcomeClass.UNKNOWN


class Holds:
    """The held attempts of one operation, and what those that have ended showed."""

    __slots__ = ("_ended", "_table")

    def __init__(self) -> None:
        self._table: dict[Held, None] = {}
        self._ended: list[tuple[Held, OutcomeClass]] = []

    def forget(self) -> None:
        """After a fork: what is held is the parent's, and ending it here gives nobody a permit back."""
        self._table.clear()
        self._ended.clear()

    def __len__(self) -> int:
        return len(self._table)

    @property
    def known(self) -> bool:
        """Whether there is anything to fold."""
        return bool(self._table or self._ended)

    def take(self, attempt: Attempt, limit: Limit | None, now: float) -> Held:
        """Hold an attempt that is in flight. Whoever settles it afterwards finds that it isn't pending.

        Raises RuntimeError if it is over already, or held.
        """
        held = Held(attempt, limit, now)
        if attempt not in attempt.shard.pending:
            raise RuntimeError("the attempt is over, or held already: hold it once, while it runs")
        self._table[held] = None
        del attempt.shard.pending[attempt]
        return held

    def end(self, held: Held, class_: OutcomeClass, now: float) -> bool:
        """End one, once; False if it has ended before."""
        if self._table.pop(held, self) is self:
            return False
        if held.since is not None:
            held.longest_seconds = max(held.longest_seconds, held.silence(held.since, now))
        if held.limit is not None:
            held.limit.give()
        self._ended.append((held, class_))
        return True

    def labelled(self, now: float) -> list[Labelled]:
        """Those with labels that the target owes more of its answer, by how long it has been silent."""
        known = [(held, held.since) for held in list(self._table) if held.attempt.labels]
        return [
            Labelled(now, held.attempt.labels, None, bucket(held.silence(since, now)))
            for held, since in known
            if since is not None
        ]

    def fold(self, now: float, shard: Shard) -> tuple[list[int], int]:
        """Count what has ended into `shard`; the buckets of the silences under way, and how many rest."""
        for held in list(self._table):
            if now >= held.attempt.deadline:
                self.end(held, held.expired(), now)
        while self._ended:
            held, class_ = self._ended.pop()
            attempt = held.attempt
            shard.pending[attempt] = None
            shard.settle(
                attempt, class_, attempt.began + attempt.waited_seconds + held.longest_seconds
            )
            if attempt.probe is not None:
                gate, lease = attempt.probe
                gate.settle(lease, class_, now)
        known = [(held, held.since) for held in list(self._table)]
        silences = [bucket(held.silence(since, now)) for held, since in known if since is not None]
        return silences, len(known) - len(silences)
