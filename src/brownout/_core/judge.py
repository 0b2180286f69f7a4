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

from collections import deque
from math import inf, log
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.bank import Bank, table
from brownout._core.baseline import LATE, Baseline
from brownout._core.modes import COLUMNS, DEFINITE, ERROR, OVERLOAD, REFUSED, WAITING, Mode
from brownout._core.moment import ENDING, LASTING, MOMENT_NATS, Room
from brownout._core.outcome import OutcomeClass
from brownout._core.sketch import bucket
from brownout._core.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brownout._core.cell import Tick

FALSE_ALARM_SECONDS = 86_400.0
START_CALLS = 1000.0  # of a start of n calls, one in so many / ln(n) may cry wolf over its errors
MOMENT_SECONDS = (
    0.2  # as long a stall may be: the calls in flight together are counted over such a time
)
RECOVERED_NATS = 9.0
PROBATION_SECONDS = 10.0  # after a recovery the threshold is halved for so long
REMEMBERED_CALLS = 400  # of those since the onset; then they count half
RECENT_SECONDS = 2.0
RECENT_CALLS = 20
SUSPICIOUS_NATS = 4.0
CLEAR_NATS = 2.0  # by so much must one name explain the calls better than another,
OTHER_STATE_NATS = 5.0  # and by so much if the state is another: a breaker may hang on it
# What a call without an answer, and an answer, say for "2 % are answered" against "half are"; and by so
# much it must explain the calls better, before a target is UNRESPONSIVE or CRASHED.
NONE, ONE = log(0.98 / 0.5), log(0.02 / 0.5)
TOTAL_NATS = 6.0
SILENT_CALLS = 3  # or so few, if they are in flight together and nobody is answered for so long
QUIET_SECONDS = 0.25
BLINK = bucket(0.001)  # no caller is so impatient
STALL = 0.45  # of the threshold: so much may what takes long weigh in
STALL_SECONDS = 0.1
SURGE = 1.25  # load explains slowness only if it is above the usual by so much

_SLOW = (1, 2, 3, 4, LATE)  # columns of answers that came late
_TOTAL = (State.UNRESPONSIVE, State.CRASHED)  # on which a breaker opens
_NO_ANSWER = (REFUSED, WAITING + LATE - 1, WAITING + LATE)
_SURE = tuple(index for index in range(COLUMNS) if index not in _SLOW)


class Row(NamedTuple):
    """One tick as the judge keeps it: the tick, its calls by column, how many were in flight together."""

    tick: Tick
    calls: list[int]
    together: float


class Finding(NamedTuple):
    """What the judge found, for the verdict and its sentence.

    `onset` and `supported_at` (the last tick that spoke for it) are monotonic instants; `rows` are the
    ticks that decided; `load` says that the calls made explain it.
    """

    state: State
    kind: str
    extent: float
    onset: float
    supported_at: float
    rows: tuple[Row, ...]
    waiting: list[int]
    load: bool


class Judge:
    """The sequential test of one operation.

    `step` is told each tick; `finding` is None while nothing is wrong. `every` is the wanted time between
    two false alarms, in seconds.
    """

    __slots__ = (
        "_bank", "_base", "_current", "_good", "_ill", "_onset", "_probation", "_reverse", "_rows",
        "_scored", "_seconds", "_slow", "_started", "_sticky", "_supported", "_sure", "_table",
        "_time", "_told", "_waiting", "_well_since", "every", "finding", "seen",
    )  # fmt: skip

    def __init__(self, base: Baseline, now: float, every: float = FALSE_ALARM_SECONDS) -> None:
        self._base: Baseline = base
        self.every = every
        self._table = table(base)
        self._rows: deque[Row] = deque(maxlen=512)
        self._waiting = [0] * COLUMNS
        self._scored = [0.0] * COLUMNS
        self._probation = -inf
        self._well_since = -inf
        self._sure, self._slow = Room(), Room()
        self._time = 1.0
        self._started = 0
        self._seconds = 0.0
        self.seen = 0
        self._reset(now)

    def _reset(self, now: float) -> None:
        self.finding: Finding | None = None
        self._bank = Bank(len(self._table.modes), now)
        self._current = -1
        self._onset = now
        self._reverse = 0.0
        self._good = [0.0] * COLUMNS
        self._ill = [0] * COLUMNS  # all calls since the onset
        self._supported = now
        self._sticky = False
        self._told = 0

    @property
    def suspicious(self) -> bool:
        """Whether some mode has gathered evidence: such time is not learned as usual."""
        return self.finding is not None or max(self._bank.scores) >= SUSPICIOUS_NATS

    def recent(self) -> tuple[Row, ...]:
        """The latest ticks (two seconds, or twenty calls), after a recovery only those since."""
        return self._recent(self._rows[-1].tick.at, self._well_since) if self._rows else ()

    def rebase(self, base: Baseline, now: float) -> None:
        """Judge against a new baseline. While something is wrong, nothing changes.

        Scores of latency start anew: what they counted by was the old usual.
        """
        if self.finding is None and base is not self._base:
            self._base = base
            self._table, bank = table(base), self._bank
            self._reset(now)
            bank.keep(DEFINITE, len(self._table.modes), now)
            self._bank = bank

    def lapse(self, now: float) -> None:
        """Nobody has called for so long that nothing is known any more."""
        self._reset(now)

    def step(self, tick: Tick, together: float) -> Finding | None:
        """Take in a tick; the finding, or None while nothing is wrong.

        `together` is how many calls were in flight at one moment of it.
        """
        calls, waiting = self._count(tick)
        self._waiting = waiting
        self._rows.append(Row(tick, calls, together))
        self._started += tick.started
        self._seconds += tick.seconds
        self.seen += sum(calls)
        if self._calm(calls, waiting, tick):
            return None
        fresh = [c + w - s for c, w, s in zip(calls, waiting, self._scored, strict=True)]
        gains, part = self._gains(calls, tick)
        # What there was no room for is scored at the next tick, if it waits even then; what waits no
        # longer is paid back at once, lest its debt speaks for a target that nobody calls.
        self._scored = [
            s + part * (w - s) if w > s else w for s, w in zip(self._scored, waiting, strict=True)
        ]
        threshold = self._threshold(tick.at)
        self._bank.add(gains, threshold + 6, tick.at)
        if self.finding is None:
            self._alarm(threshold, tick.at)
        else:
            self._follow(gains[self._current], calls, fresh, tick.at)
        return self.finding

    def _count(self, tick: Tick) -> tuple[list[int], list[int]]:
        level, left, cold = self._base.level, self._base.left, self._base.cold
        calls = [0] * COLUMNS
        for index, count in tick.answered:
            calls[level[index]] += count
        for index, count in tick.censored:
            if left[index]:
                calls[WAITING + left[index]] += count
        unknown = tick.classes[OutcomeClass.UNKNOWN]
        if cold:  # without a usual, what timed out was silent as long as anybody was ready to wait
            calls[WAITING + LATE] = max(calls[WAITING + LATE], unknown)
        else:  # no timer is so short: whoever says so at once is not impatient, but told so
            waited = sum(count for index, count in tick.censored if index > BLINK)
            calls[WAITING + LATE] += max(0, unknown - waited)
        calls[ERROR] = tick.classes[OutcomeClass.FAILURE]
        calls[OVERLOAD] = tick.classes[OutcomeClass.OVERLOAD]
        calls[REFUSED] = tick.classes[OutcomeClass.CONNECT]
        waiting = [0] * COLUMNS
        for index in tick.ages:
            if level[index]:
                waiting[WAITING + level[index]] += 1
        return calls, waiting

    def _gains(self, calls: list[int], tick: Tick) -> tuple[list[float], float]:
        """What the tick adds to each score, and which part of what waits is in it."""
        together = self._together(tick.at)
        sure = [(index, calls[index]) for index in _SURE if calls[index]]
        gains = self._table.weigh(sure)
        threshold = self._threshold(self._supported)
        passed = sum(count for _, count in sure) / together
        part = self._sure.take(max(gains), passed, ENDING * threshold * tick.seconds)
        if part != 1.0:
            gains = [gain * part if gain > 0 else gain for gain in gains]
        # What merely takes long may be a stall. It is over when the next call goes well, so only what is
        # bad counts as a moment; and however many they are, a tick's worth of time must not decide.
        late = [count if index in _SLOW else 0 for index, count in enumerate(calls)]
        news = [n + w - old for n, w, old in zip(late, self._waiting, self._scored, strict=True)]
        slow = [(index, count) for index, count in enumerate(news) if count]
        more = self._table.weigh(slow)
        sums = list(map(add, gains, more))
        index = sums.index(max(sums))
        nats = self._table.modes[index].nats
        bad = sum(count for column, count in slow if nats[column] > 0) / together
        self._time = min(1.0, self._time + tick.seconds / STALL_SECONDS)
        most = self._time * STALL * threshold
        room = max(0.0, min(most, self._slow.filled(bad, LASTING * threshold * tick.seconds)))
        part, spent = 1.0, sums[index]
        if spent > 0.0:  # for no mode may it be more: each could be the one that decides
            wells = [min(0.0, gain) for gain in gains]
            parts = [1.0, *((room - w) / x for w, x in zip(wells, more, strict=True) if x > 0.0)]
            part = min(parts)
            spent = max(w + part * x for w, x in zip(wells, more, strict=True))
            self._slow.spend(max(0.0, spent))
            self._time -= max(0.0, spent) / (STALL * threshold)
        if part != 1.0:
            extra = [nats * part if nats > 0 else nats for nats in more]
            sums = list(map(add, gains, extra))
        return sums, part

    def _calm(self, calls: list[int], waiting: list[int], tick: Tick) -> bool:
        """Whether the tick can't raise a score of a bank that is zero: then nothing else is to be done.

        Nor may there be a debt, or a moment's room still to be filled.
        """
        if (
            not (self._bank.calm and self._sure.full and self._slow.full)
            or self.finding is not None
        ):
            return False
        if any(waiting) or any(self._scored) or not self._table.calm(calls):
            return False
        self._time = min(1.0, self._time + tick.seconds / STALL_SECONDS)
        self._bank.pass_(tick.at)
        return True

    def _together(self, now: float) -> float:
        together = 1.0
        for row in reversed(self._rows):
            if row.tick.at < now - MOMENT_SECONDS:
                break
            together = max(together, row.together)
        return together

    def _threshold(self, now: float) -> float:
        threshold = log(max(self._rate() * self.every, 100.0))
        return threshold / 2 if now < self._probation else threshold

    def _rate(self) -> float:
        return self._base.rate or self._started / max(1.0, self._seconds)

    def _recent(self, now: float, onset: float) -> tuple[Row, ...]:
        oldest, least = now - RECENT_SECONDS, RECENT_CALLS
        rows: list[Row] = []
        for row in reversed(self._rows):
            if row.tick.at <= onset or (row.tick.at <= oldest and least <= 0):
                break
            rows.append(row)
            least -= sum(row.calls)  # who waits long for each call makes few
        return tuple(reversed(rows))

    def _best(self, calls: Sequence[float]) -> tuple[int, float]:
        """The mode that explains the calls best, and by how many nats better than the usual does."""
        columns = [(index, count) for index, count in enumerate(calls) if count]
        modes, nulls = self._table.modes, self._table.nulls
        fits = [sum(count * mode.log_p[index] for index, count in columns) for mode in modes]
        usual = max(sum(count * null[index] for index, count in columns) for null in nulls)
        best = max(range(len(fits)), key=fits.__getitem__)
        return best, fits[best] - usual

    def _alarm(self, threshold: float, now: float) -> None:
        # What fails for certain is no matter of a moment's stall: at the start less of it is enough.
        start = min(threshold, max(log(START_CALLS * max(self.seen, 10)), 2 * MOMENT_NATS))
        over = [
            score - (start if mode.certain else threshold)
            for score, mode in zip(self._bank.scores, self._table.modes, strict=True)
        ]
        winner = max(range(len(over)), key=over.__getitem__)
        if over[winner] < 0:
            return
        self._onset = self._bank.zero(winner)
        self._current = winner
        self._supported = now
        self._good = [0.0] * COLUMNS
        self._reverse = 0.0
        rows = [row.calls for row in self._rows if row.tick.at > self._onset]
        self._ill = [sum(column) for column in zip(*rows, strict=True)] or [0] * COLUMNS
        self._name(now)

    def _follow(self, gain: float, calls: list[int], fresh: list[float], now: float) -> None:
        self._ill = [a + b for a, b in zip(self._ill, calls, strict=True)]
        if sum(self._ill) > REMEMBERED_CALLS:
            self._ill = [count >> 1 for count in self._ill]
        if gain > 0 or any(calls):  # where nothing ended nothing is well
            self._reverse = max(0.0, self._reverse - gain)
        self._good = [0.0 if gain > 0 else a + b for a, b in zip(self._good, fresh, strict=True)]
        if not self._reverse:
            self._supported = now
        if self._reverse >= RECOVERED_NATS and self._outweighed():
            _, nats = self._best(self._good)
            if nats <= CLEAR_NATS:
                self._well_since = self._supported
                self._reset(now)
                self._probation = now + PROBATION_SECONDS
                return
            self._reverse, self._good = 0.0, [0.0] * COLUMNS
        self._name(now)

    def _outweighed(self) -> bool:
        """Whether the calls that went well speak also against what is left of it by now.

        The first name may have said too much: five of the first twenty failed, and few ever since.
        """
        best, _ = self._best(self._ill)
        mode = self._table.modes[best if self._less(best) else self._current]
        if mode.kind in {"shift", "tail"}:
            return True  # that is not named so soon
        nats = -sum(count * mode.nats[index] for index, count in enumerate(self._good) if count)
        return nats >= RECOVERED_NATS

    def _name(self, now: float) -> None:
        rows = self._recent(now, self._onset) or tuple(self._rows)[-1:]
        calls = [sum(column) for column in zip(*(row.calls for row in rows), strict=True)]
        everything = [a + b for a, b in zip(calls, self._waiting, strict=True)]
        told = sum(everything)
        if self.finding is not None and told < min(self._told, RECENT_CALLS // 2):
            # So few calls are made now (the breaker is open) that they say less than those that decided.
            self.finding = self.finding._replace(supported_at=self._supported)
            return
        best, nats = self._best(everything)
        ending = self._reverse > 0 and self._less(best)  # then it is not getting milder
        if nats > CLEAR_NATS and not ending and self._clearer(best, everything):
            self._current, self._reverse = best, 0.0
        mode = self._table.modes[self._current]
        state = self._state(mode, rows, calls)
        self._told = told
        what = (state, mode.kind, mode.extent, self._onset, self._supported)
        self.finding = Finding(*what, rows, self._waiting, self._sticky)

    def _less(self, best: int) -> bool:
        """Whether `best` is less of the same."""
        one, other = self._table.modes[best], self._table.modes[self._current]
        return one.kind == other.kind != "shift" and one.extent < other.extent

    def _clearer(self, best: int, calls: list[int]) -> bool:
        one, other = self._table.modes[best], self._table.modes[self._current]
        pairs = zip(calls, one.log_p, other.log_p, strict=True)
        nats = sum(count * (a - b) for count, a, b in pairs if count)
        return nats > (CLEAR_NATS if one.state is other.state else OTHER_STATE_NATS)

    def _state(self, mode: Mode, rows: tuple[Row, ...], calls: list[int]) -> State:
        ended = sum(calls[:9])
        seconds = sum(row.tick.seconds for row in rows)
        state = mode.state
        if self._total(calls, seconds):
            state = State.CRASHED if state is State.CRASHED else State.UNRESPONSIVE
        elif state in _TOTAL:
            state = State.DEGRADED  # a part of the calls is answered: a breaker would end that too
        surge = self._surge(rows, seconds)
        if mode.kind == "overload" or (surge and ended > sum(self._waiting[WAITING + 1 :])):
            self._sticky = True
        elif not surge and not calls[OVERLOAD]:
            self._sticky = False
        # Once overloaded, its slowness and its silence are overload for as long as the load lasts.
        if self._sticky and mode.kind in {"shift", "tail", "silent"}:
            return State.OVERLOADED
        return state

    def _total(self, calls: list[int], seconds: float) -> bool:
        """Whether hardly any call is answered: so surely that it is no chance where half of them are."""
        silent = self._waiting[WAITING + LATE]
        none = sum(calls[index] for index in _NO_ANSWER) + silent
        answers = sum(calls[:REFUSED])
        if silent >= SILENT_CALLS and not answers and seconds >= QUIET_SECONDS:
            return True  # all who still wait have waited long, and nobody got an answer meanwhile
        return none * NONE + answers * ONE >= TOTAL_NATS

    def _surge(self, rows: tuple[Row, ...], seconds: float) -> bool:
        """Whether more calls are made than usual, by a quarter and beyond chance (Poisson, 6 nats)."""
        if all(row.together < 2 for row in rows):
            return False  # one call at a time is no load
        made = sum(row.tick.started for row in rows)
        usual = self._base.rate * seconds
        if not usual or made <= SURGE * usual:
            return False
        return made * log(made / usual) - (made - usual) > 6
