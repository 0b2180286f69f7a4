"""The judge: a sequential test on what the callers of one operation suffer.

Each tick's counts are added up against a table of *modes*: ways in which the operation could be ill,
each a distribution over what a call can show. For every mode a CUSUM of the log-likelihood ratio
against the usual is kept; when one passes the threshold the state is no longer HEALTHY, and the mode
that explains the counts since the onset best is its name. Attempts in flight are scored while they
wait, for what their age rules out. Recovery is the reverse test. The only dial is how often the judge
may cry wolf: threshold = ln(calls a second x seconds between false alarms).

Sources: E. S. Page, "Continuous Inspection Schemes", Biometrika 41 (1954); G. Lorden, "Procedures for
Reacting to a Change in Distribution", Ann. Math. Statist. 42 (1971).
"""

from __future__ import annotations

from math import inf, log
from operator import add
from typing import TYPE_CHECKING

from brownout._core.bank import Bank
from brownout._core.baseline import LATE
from brownout._core.finding import Finding, Row
from brownout._core.load import Load
from brownout._core.modes import COLUMNS, DEFINITE, Mode
from brownout._core.moment import ENDING, LASTING, MOMENT_NATS, Room
from brownout._core.named import extent_of, state_of, whose
from brownout._core.rows import RECENT_CALLS, Rows
from brownout._core.stream import Part, Stream, Tally, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from brownout._core.bank import Table
    from brownout._core.baseline import Baseline
    from brownout._core.cell import Tick
    from brownout._core.labelled import Labelled
    from brownout._core.stream import News

FALSE_ALARM_SECONDS = 86_400.0
START_CALLS = 1000.0  # of a start of n calls, one in so many / ln(n) may cry wolf over its errors
RECOVERED_NATS = 9.0
PROBATION_SECONDS = 10.0  # after a recovery what is certain needs half the threshold for so long
FEW = 0.15  # of the calls are bad: hundreds of good ones recover it, and a stray bad one is usual there
REMEMBERED_CALLS = 400  # of those since the onset; then they count half
SUSPICIOUS_NATS = 4.0
CLEAR_NATS = 2.0  # by so much must one name explain the calls better than another,
OTHER_STATE_NATS = 5.0  # and by so much if the state is another: a breaker may hang on it
STALL = 0.3  # of the threshold: so much may what takes long weigh in
STALL_SECONDS = 0.1
SETTLED_CALLS = 160  # a usual learned from fewer may have been wrong: what it told is forgotten

_SLOW = (1, 2, 3, 4, LATE)  # columns of answers that came late
_SURE = tuple(index for index in range(COLUMNS) if index not in _SLOW)


class Judge:
    """The sequential test of one operation, or of several streams of calls as one.

    `step` is told each tick; `finding` is None while nothing is wrong. `every` is the wanted time between
    two false alarms, in seconds.
    """

    __slots__ = (
        "_bank", "_current", "_good", "_ill", "_load", "_onset", "_probation", "_reverse", "_rows",
        "_seconds", "_slow", "_started", "_supported", "_sure", "_time", "_told", "_waiting",
        "_well_since", "every", "finding", "seen", "streams",
    )  # fmt: skip

    def __init__(self, now: float, every: float = FALSE_ALARM_SECONDS) -> None:
        self.every = every
        self.streams: list[Stream] = []
        self._rows = Rows()
        self._waiting = [0] * COLUMNS
        self._probation = -inf
        self._well_since = -inf
        self._sure, self._slow = Room(), Room()
        self._time = 1.0
        self._started = 0
        self._seconds = 0.0
        self.seen = 0
        self._bank = Bank(0, now)
        self._reset(now)

    def _reset(self, now: float) -> None:
        self.finding: Finding | None = None
        self._bank = Bank(len(self._modes), now)
        self._current = -1
        self._onset = now
        self._reverse = 0.0
        self._good = Tally()
        self._ill = Tally()  # all calls since the onset
        self._supported = now
        self._load = Load()
        self._told = 0.0

    def join(self, base: Baseline, now: float, labels: tuple[tuple[str, str], ...] = ()) -> Stream:
        """Another stream of calls, with a usual of its own."""
        stream = Stream(base, labels)
        self.streams.append(stream)
        if len(self.streams) == 1:
            self._reset(now)
        return stream

    @property
    def _modes(self) -> tuple[Mode, ...]:
        return self.streams[0].table.modes if self.streams else ()

    @property
    def suspicious(self) -> bool:
        """Whether some mode has gathered evidence: such time is not learned as usual."""
        return self.finding is not None or max(self._bank.scores) >= SUSPICIOUS_NATS

    def recent(self) -> tuple[Row, ...]:
        """The latest ticks (two seconds, or twenty calls), after a recovery only those since."""
        return self._rows.recent(self._rows.at, self._well_since)

    def rebase(self, stream: Stream, base: Baseline, now: float) -> None:
        """Judge a stream against a new baseline. While something is wrong, nothing changes.

        Scores of latency start anew if little was known: what they counted by was no good usual.
        """
        if self.finding is not None or base is stream.base:
            return
        little = stream.base.n < SETTLED_CALLS and len(self.streams) == 1
        stream.rebase(base)
        if little:
            bank = self._bank
            self._reset(now)
            bank.keep(DEFINITE, len(self._modes), now)
            self._bank = bank

    def lapse(self, now: float) -> None:
        """Nobody has called for so long that nothing is known any more."""
        self._reset(now)

    def step(self, news: Sequence[News], together: float) -> Finding | None:
        """Take in what is new of each stream; the finding, or None while nothing is wrong.

        `together` is how many calls were in flight at one moment of it.
        """
        tick = merged([told for _, told in news])
        parts = tuple(Part(stream, stream.table, stream.count(told), told) for stream, told in news)
        calls = parts[0].calls
        for part in parts[1:]:
            calls = list(map(add, calls, part.calls))
        self._rows.add(Row(tick, calls, together, parts))
        self._started += tick.started
        self._seconds += tick.seconds
        self.seen += sum(calls)
        if self._calm(parts, tick):
            self._rest()
            return None
        self._waiting = self.streams[0].waiting
        for stream in self.streams[1:]:
            self._waiting = list(map(add, self._waiting, stream.waiting))
        fresh = [
            [c + w - s for c, w, s in zip(p.calls, p.stream.waiting, p.stream.scored, strict=True)]
            for p in parts
        ]
        gains, room = self._gains(parts, tick)
        # What there was no room for is scored at the next tick, if it waits even then; what waits no
        # longer is paid back at once, lest its debt speaks for a target that nobody calls.
        for part in parts:
            stream = part.stream
            pairs = zip(stream.scored, stream.waiting, strict=True)
            stream.scored = [s + room * (w - s) if w > s else w for s, w in pairs]
        threshold = self._threshold()
        self._bank.add(gains, threshold + 6, tick.at)
        if self.finding is not None:
            self._follow(gains[self._current], parts, fresh, tick.at)
        elif self._bank.calm:
            self._rest()
        else:
            self._alarm(threshold, tick.at)
        return self.finding

    @property
    def rests(self) -> bool:
        """Whether nothing is suspicious, nobody waits, and there is room for all that may come."""
        if not (self._bank.calm and self._sure.full and self._slow.full):
            return False
        return self.finding is None and all(stream.rests for stream in self.streams)

    def rest(self, tick: Tick) -> bool:
        """Whether a tick in which nothing happened is of no account, so that `step` need not look at it."""
        if not self.rests:
            return False
        self._seconds += tick.seconds
        self._time = min(1.0, self._time + tick.seconds / STALL_SECONDS)
        self._bank.pass_(tick.at)
        self._rows.idle(tick)
        return True

    def _rest(self) -> None:
        if len(self.streams) == 1:  # else the sentence asks whose calls they were
            self._rows.rest(self._well_since)

    def _gains(self, parts: Sequence[Part], tick: Tick) -> tuple[Sequence[float], float]:
        """What the tick adds to each score, and which part of what waits is in it."""
        together = self._rows.together
        gains: Sequence[float] = ()
        more: Sequence[float] = ()
        passed = 0
        slows: list[tuple[Table, list[tuple[int, float]]]] = []
        for table, stream, calls in ((part.table, part.stream, part.calls) for part in parts):
            sure = [(index, calls[index]) for index in _SURE if calls[index]]
            passed += sum(count for _, count in sure)
            late = [count if index in _SLOW else 0 for index, count in enumerate(calls)]
            news = [
                n + w - old for n, w, old in zip(late, stream.waiting, stream.scored, strict=True)
            ]
            slow = [(index, count) for index, count in enumerate(news) if count]
            slows.append((table, slow))
            weight, slow_weight = table.weigh(sure), table.weigh(slow)
            gains = list(map(add, gains, weight)) if gains else weight
            more = list(map(add, more, slow_weight)) if more else slow_weight
        threshold = self._threshold()
        part = self._sure.take(max(gains), passed / together, ENDING * threshold * tick.seconds)
        if part != 1.0:
            gains = [gain * part if gain > 0 else gain for gain in gains]
        # What merely takes long may be a stall. It is over when the next call goes well, so only what is
        # bad counts as a moment; and however many they are, a tick's worth of time must not decide.
        sums = list(map(add, gains, more))
        index = sums.index(max(sums))
        bad = sum(
            count
            for table, slow in slows
            for column, count in slow
            if table.columns[column][index] > 0
        )
        self._time = min(1.0, self._time + tick.seconds / STALL_SECONDS)
        most = self._time * STALL * threshold
        lasting = LASTING * threshold * tick.seconds
        room = max(0.0, min(most, self._slow.filled(bad / together, lasting)))
        part = 1.0
        if sums[index] > 0.0:  # for no mode may it be more: each could be the one that decides
            wells = [min(0.0, gain) for gain in gains]
            bounds = [1.0, *((room - w) / x for w, x in zip(wells, more, strict=True) if x > 0.0)]
            part = min(bounds)
            spent = max(0.0, *(w + part * x for w, x in zip(wells, more, strict=True)))
            self._slow.spend(spent)
            self._time -= spent / (STALL * threshold)
        if part != 1.0:
            extra = [nats * part if nats > 0 else nats for nats in more]
            sums = list(map(add, gains, extra))
        return sums, part

    def _calm(self, parts: Sequence[Part], tick: Tick) -> bool:
        """Whether the tick can't raise a score of a bank that is zero: then nothing else is to be done.

        Nor may there be a debt, or a moment's room still to be filled.
        """
        if (
            not (self._bank.calm and self._sure.full and self._slow.full)
            or self.finding is not None
        ):
            return False
        for table, stream, calls in ((part.table, part.stream, part.calls) for part in parts):
            if any(stream.waiting) or any(stream.scored) or not table.calm(calls):
                return False
        self._time = min(1.0, self._time + tick.seconds / STALL_SECONDS)
        self._bank.pass_(tick.at)
        return True

    def _threshold(self) -> float:
        return log(max(self._rate() * self.every, 100.0))

    def _rate(self) -> float:
        """Calls a second, as usual."""
        one = self.streams[0].base.rate if len(self.streams) == 1 else 0.0
        return one or self._started / max(1.0, self._seconds)

    def _alarm(self, threshold: float, now: float) -> None:
        scores = self._bank.scores
        # What fails for certain is no matter of a moment's stall: at the start less of it is enough, and
        # after a recovery.
        start = min(threshold, max(log(START_CALLS * max(self.seen, 10)), 2 * MOMENT_NATS))
        certain = min(start, threshold / 2) if now < self._probation else start
        if max(scores) < certain:
            return
        over = [
            score - (certain if mode.certain else threshold)
            for score, mode in zip(scores, self._modes, strict=True)
        ]
        winner = max(range(len(over)), key=over.__getitem__)
        if over[winner] < 0:
            return
        self._onset = self._bank.zero(winner)
        self._current = winner
        self._supported = now
        self._good = Tally()
        self._reverse = 0.0
        self._ill = _told(row for row in self._rows if row.tick.at > self._onset)
        self._name(now)

    def _follow(
        self, gain: float, parts: Sequence[Part], fresh: Sequence[Sequence[float]], now: float
    ) -> None:
        for part in parts:
            self._ill.add(part.table, part.calls)
        if self._ill.total > REMEMBERED_CALLS:
            self._ill.halve()
        if gain > 0 or any(
            any(part.calls) for part in parts
        ):  # where nothing ended nothing is well
            self._reverse = max(0.0, self._reverse - gain)
        for part, new in zip(parts, fresh, strict=True):
            self._good.add(part.table, new)
        best, _ = self._ill.best()
        left = best if self._less(best) else self._current  # of it by now
        if self._good.speaks(left) >= 0 or (gain > 0 and self._modes[left].extent > FEW):
            self._good = Tally()
        if not self._reverse:
            self._supported = now
        if self._reverse >= RECOVERED_NATS and self._outweighed(left) and self._past():
            _, nats = self._good.best()
            if nats <= CLEAR_NATS:
                self._well_since = self._supported
                self._reset(now)
                self._probation = now + PROBATION_SECONDS
                return
            self._reverse, self._good = 0.0, Tally()
        self._name(now)

    def _past(self) -> bool:
        """Whether what merely takes long would not be named anew at once: marginal slowness flickers else."""
        if self._modes[self._current].kind not in {"shift", "tail"}:
            return True
        return max(self._bank.scores) < self._threshold()

    def _outweighed(self, left: int) -> bool:
        """Whether the calls that went well speak also against what is left of it by now.

        The first name may have said too much: five of the first twenty failed, and few ever since.
        """
        if self._modes[left].kind in {"shift", "tail"}:
            return True  # that is not named so soon
        return -self._good.speaks(left) >= RECOVERED_NATS

    def _name(self, now: float) -> None:
        rows = self._rows.recent(now, self._onset) or tuple(self._rows)[-1:]
        everything = _told(rows)
        for stream in self.streams:
            if any(stream.waiting):
                everything.add(stream.table, stream.waiting)
        told = everything.total
        if self.finding is not None and told < min(self._told, RECENT_CALLS // 2):
            # So few calls are made now (the breaker is open) that they say less than those that decided.
            self.finding = self.finding._replace(supported_at=self._supported)
            return
        best, nats = everything.best()
        ending = self._reverse > 0 and self._less(best)  # then it is not getting milder
        if nats > CLEAR_NATS and not ending and self._clearer(best, everything):
            self._current, self._reverse = best, 0.0
        mode = self._modes[self._current]
        rate = self._rate()
        median = max((stream.base.p50 for stream in self.streams), default=0.0)
        usual = (rate, 1.5 * rate * median)
        load = self._load.weigh(
            mode.kind, rows, tuple(self._rows), self._waiting, usual, self._onset
        )
        self._told = told
        before = self.finding.state if self.finding else None
        self.finding = Finding(
            state_of(mode, rows, self._waiting, before, overloaded=bool(load)),
            mode.kind,
            extent_of(mode, rows, self._waiting),
            self._onset,
            self._supported,
            rows,
            self._waiting,
            load,
        )

    def told(self, labelled: Callable[[float], Sequence[Labelled]] | None = None) -> Finding | None:
        """The finding, with the label that tells its bad calls; `labelled` gives those since an instant."""
        if self.finding is None:
            return None
        rows = [row for row in self._rows if row.tick.at > self._onset]
        calls = labelled(self._onset) if labelled else ()
        return self.finding._replace(split=whose(self._current, rows, self.streams[0], calls))

    def _less(self, best: int) -> bool:
        """Whether `best` is less of the same."""
        one, other = self._modes[best], self._modes[self._current]
        return one.kind == other.kind != "shift" and one.extent < other.extent

    def _clearer(self, best: int, calls: Tally) -> bool:
        one, other = self._modes[best], self._modes[self._current]
        nats = CLEAR_NATS if one.state is other.state else OTHER_STATE_NATS
        return calls.clearer(best, self._current) > nats


def _told(rows: Iterable[Row]) -> Tally:
    """The calls of so many ticks."""
    tally = Tally()
    for row in rows:
        for part in row.parts:
            tally.add(part.table, part.calls)
    return tally
