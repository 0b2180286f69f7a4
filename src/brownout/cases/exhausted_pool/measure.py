"""Measures a run: what was true, what was seen, what the callers got. Pure.

The truth comes from the proxy and the load alone; what was seen, from the guards' state changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from brownout import State

if TYPE_CHECKING:
    from .records import Call, Run, Seen, Spell
    from .schedule import Phase

CHAINS = ("with", "without")
VERDICTS = ("right", "degraded", "refused", "failed", "wrong", "late", "never")
SERVED = frozenset({"right", "degraded"})
SERVED_SHARE = 0.97
AFTER_SECONDS = (
    1.0  # the callers' deadline: so long may a call that began in a phase wait after its end
)
HEALTHY_SECONDS = 6.0  # so long may a target be called ill after all is well


class Stretch(NamedTuple):
    """A stretch of time in one state. No state: no evidence, or a truth that is not defined."""

    began: float
    ended: float
    state: State | None
    because: str = ""


@dataclass(frozen=True)
class Detection:
    """One phase for one target: how long until it was seen and rightly named, and until all was well.

    Seconds are infinite for what never was. `kept` is the share of the rest of the phase, once it was
    named, in which the name was right. `because` is the sentence with which it was named.
    """

    phase: str
    target: str
    truth: State
    seen_seconds: float
    named_seconds: float
    kept: float
    back_seconds: float
    because: str


@dataclass(frozen=True)
class Service:
    """What the callers of one chain got over a stretch of time, and what its downstream had to do."""

    calls: int
    counts: dict[str, int]  # by verdict
    p50_seconds: float
    p99_seconds: float
    received: int
    received_most: int
    shed: int
    attempts_per_call: float

    @property
    def served(self) -> float:
        """The share answered in time: rightly, or by the shop's own degraded answer."""
        return self.share("right") + self.share("degraded")

    def share(self, verdict: str) -> float:
        """The share of its calls that came to this verdict."""
        return self.counts[verdict] / max(1, self.calls)


def stretches(seen: list[Seen], target: str, start: float, stop: float) -> list[Stretch]:
    """A target's state as one stretch after the other, from `start` to `stop`, without a hole."""
    marks: list[tuple[float, State | None, str]] = [(start, None, "")]
    mine = [change for change in seen if change.target == target and change.at < stop]
    marks += [(max(change.at, start), change.state, change.because) for change in mine]
    ends = [mark[0] for mark in marks[1:]] + [stop]
    pairs = zip(marks, ends, strict=True)
    return [Stretch(at, end, state, why) for (at, state, why), end in pairs if end > at]


def true_stretches(run: Run, table: dict[str, Phase], target: str) -> list[Stretch]:
    """A target's true state over the whole run; no state where it is not defined."""
    found = []
    at = run.start
    for spell in run.spells:
        found.append(Stretch(at, spell.first, State.HEALTHY))
        found.append(Stretch(spell.first, spell.ended, table[spell.name].truth.get(target)))
        at = spell.ended
    return [*found, Stretch(at, run.stop, State.HEALTHY)]


def until(run: Run, spell: Spell) -> float:
    """When what follows a spell is over: the next one begins, or all ends."""
    return min((s.began for s in run.spells if s.began > spell.began), default=run.stop)


def detect(spell: Spell, phase: Phase, target: str, seen: list[Stretch], until: float) -> Detection:
    """How one phase was seen at one target."""
    truth = phase.truth[target]
    during = [s for s in seen if s.ended > spell.first and s.began < spell.ended]
    ill = [s for s in during if s.state not in {None, State.HEALTHY}]
    # Still ill from before is not seeing what has begun now.
    ill = [s for s in ill if s.began >= spell.began]
    right = [s for s in during if s.state is truth and s.began >= spell.began]
    named_at = right[0].began if right else inf
    well = well_again([s for s in seen if s.began < until], spell)
    rest = spell.ended - named_at
    kept = sum(min(s.ended, spell.ended) - max(s.began, named_at) for s in right)
    return Detection(
        phase=spell.name,
        target=target,
        truth=truth,
        seen_seconds=max(0.0, ill[0].began - spell.first) if ill else inf,
        named_seconds=max(0.0, named_at - spell.first),
        kept=kept / rest if right and rest > 0 else 0.0,
        back_seconds=well - spell.ended,
        because=right[0].because if right else "",
    )


def well_again(seen: list[Stretch], spell: Spell) -> float:
    """When a target was seen HEALTHY for good after a phase; infinite if it never was.

    For good: beyond the time in which calls that were made during the phase may still be waiting.
    """
    well = [s for s in seen if s.state is State.HEALTHY and s.ended > spell.ended + AFTER_SECONDS]
    return min((max(s.began, spell.ended) for s in well), default=inf)


def false_alarms(seen: list[Stretch], spells: list[Spell]) -> list[Stretch]:
    """Where a target was said to be ill while it was well.

    A phase excuses it, and so does the time that it takes to be seen HEALTHY again afterwards, up to
    the limit; from then on nothing does.
    """
    excused = [
        (spell.began, min(spell.ended + HEALTHY_SECONDS, well_again(seen, spell)))
        for spell in spells
    ]
    found: list[Stretch] = []
    for stretch in seen:
        if stretch.state not in {None, State.HEALTHY}:
            at = stretch.began
            for began, ended in excused:
                if began <= at < ended:
                    at = ended
            if at < stretch.ended and not any(began <= at < ended for began, ended in excused):
                found.append(stretch)
    return found


def service(run: Run, chain: str, began: float, ended: float) -> Service:
    """What the calls made in that time came to."""
    calls = [call for call in run.calls if call.chain == chain and began <= call.at < ended]
    waits = sorted(call.seconds for call in calls)
    busy = [row for row in run.busy if row.chain == chain and began <= row.at < ended]
    seconds: dict[int, int] = {}
    for row in busy:
        second = int(row.at - began)
        seconds[second] = seconds.get(second, 0) + row.received
    received = sum(seconds.values())
    quotes = sum(call.path != "/catalog" for call in calls)
    return Service(
        calls=len(calls),
        counts={verdict: sum(call.verdict == verdict for call in calls) for verdict in VERDICTS},
        p50_seconds=quantile(waits, 0.5),
        p99_seconds=quantile(waits, 0.99),
        received=received,
        received_most=max(seconds.values(), default=0),
        shed=sum(row.shed for row in busy),
        attempts_per_call=received / max(1, quotes),
    )


def quantile(ordered: list[float], share: float) -> float:
    """The value that a share of the others do not exceed; 0 for none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def served_again(calls: list[Call], chain: str, ended: float, until: float) -> float:
    """Seconds after `ended` until a whole second's calls are served in time again; infinite if never."""
    mine = [call for call in calls if call.chain == chain and ended <= call.at < until]
    bad = [call.at for call in mine if call.verdict not in SERVED]
    for at in [ended, *bad]:
        window = [call for call in mine if at < call.at <= at + 1.0]
        good = sum(call.verdict in SERVED for call in window)
        if window and good >= SERVED_SHARE * len(window):
            return at - ended
    return inf
