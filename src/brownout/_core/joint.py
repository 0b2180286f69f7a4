"""Several kinds of calls of one target, judged as one.

Each has its own usual, and what they show against it adds up: so a target that is called once a second, by
several observers, at several operations, is judged by all its calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from brownout._core.because import ENOUGH_CALLS, judged
from brownout._core.finding import Row
from brownout._core.judge import Judge
from brownout._core.operation import Operation
from brownout._core.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brownout._core.because import Claim, Verdict
    from brownout._core.cell import Tick
    from brownout._core.stream import Stream

_BY_THE_USUAL = ("shift", "tail", "too fast")


class Joint:
    """What is judged as one: `name` is that of its operation, or "" for all of a target."""

    __slots__ = ("judge", "known", "name", "streams")

    def __init__(self, name: str, now: float, false_alarm_every: float) -> None:
        self.name = name
        self.judge = Judge(now, false_alarm_every)
        self.streams: dict[Operation, Stream] = {}
        self.known = False

    def member(
        self,
        timeout: float,
        now: float,
        dead_band: tuple[float, float],
        labels: tuple[tuple[str, str], ...],
    ) -> Operation:
        """Another kind of calls."""
        every = self.judge.every
        new = Operation(self.name, timeout, now, dead_band, every, self.judge, labels)
        self.streams[new] = new.stream
        return new

    def take(self, operation: Operation, now: float) -> None:
        """An operation that is judged by itself too; and again, for what has become usual of it."""
        base, stream = operation.usual.baseline, self.streams.get(operation)
        if stream is None:
            label = ("operation", operation.name)
            self.streams[operation] = self.judge.join(base, now, (label,))
        else:
            self.judge.rebase(stream, base, now)

    def judged(self, news: Sequence[tuple[Operation, Tick]]) -> None:
        """Judge what is new of them at one time, and learn from it if nothing is suspicious."""
        if len(self.streams) == 1:
            member, tick = news[0]
            member.judged(tick)
            self.known = member.known
            return
        self.step(news)
        for member, tick in news:
            member.learn(tick)

    def step(self, news: Sequence[tuple[Operation, Tick]]) -> None:
        """Judge what is new of them at one time."""
        judge, first = self.judge, news[0][1]
        if len(news) > 1 or not first.idle or not judge.rest(first):
            together = sum(tick.together for _, tick in news)
            judge.step([(self.streams[member], tick) for member, tick in news], together)
        settled = sum(member.evidence.settled for member in self.streams)
        if judge.finding is not None and not settled and not any(tick.ages for _, tick in news):
            judge.lapse(first.at)  # nobody has called for a whole window: no evidence
        enough = settled >= (ENOUGH_CALLS // 2 if self.known else ENOUGH_CALLS)
        self.known = enough and (self.known or not judge.suspicious)

    def forget(self, now: float) -> None:
        """Nothing is known of what comes next; what is usual is."""
        self.judge.lapse(now)
        self.known = False
        for member, stream in self.streams.items():
            member.evidence.forget(now)
            member.known = False
            stream.quiet()
            member.usual.interrupt()

    @property
    def state(self) -> State | None:
        """What it is judged to be; None without evidence."""
        if self.judge.finding is not None:
            return self.judge.finding.state
        return State.HEALTHY if self.known else None

    def verdict(self, target: str, claim: Claim | None = None) -> tuple[Operation, Verdict]:
        """The state with its reason, and whose calls show it most: where it takes a usual, by theirs."""
        finding, rows = self.judge.told(), self.judge.recent()
        lead = self._lead(rows if finding is None else finding.rows, ill=finding is not None)
        stream, alone = self.streams[lead], len(self.streams) == 1
        if not alone and (finding is None or finding.kind in _BY_THE_USUAL):
            if finding is not None:
                rows = finding.rows
                own = _own(rows, stream)
                finding = finding._replace(rows=own, waiting=list(stream.waiting))
            else:
                rows = _own(rows, stream)
        base = lead.usual.baseline
        told = judged(
            target,
            self.name,
            lead.evidence,
            base,
            finding,
            self.state,
            rows,
            claim,
            None,
            lead.usual.hazard(),
        )
        if finding is None or finding.kind not in _BY_THE_USUAL or alone:
            return lead, told
        who = " of ".join(value for _, value in stream.labels)
        return lead, told.__replace__(because=f"{who}: {told.because}")

    def _lead(self, rows: Sequence[Row], *, ill: bool) -> Operation:
        """Whose calls are the most, or show the most that is ill."""
        calls = dict.fromkeys(self.streams, 0)
        by_stream = {stream: member for member, stream in self.streams.items()}
        for part in (part for row in rows for part in row.parts):
            calls[by_stream[part.stream]] += sum(part.calls) - (part.calls[0] if ill else 0)
        return max(self.streams, key=calls.__getitem__)


def _own(rows: Sequence[Row], stream: Stream) -> tuple[Row, ...]:
    """What one stream showed in these ticks."""
    return tuple(
        Row(part.tick, part.calls, row.together, (part,))
        for row in rows
        for part in row.parts
        if part.stream is stream
    )
