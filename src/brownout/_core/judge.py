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
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.outcome import OutcomeClass
from brownout._core.state import State
from brownout._core.usual import LATE, Baseline

if TYPE_CHECKING:
    from brownout._core.evidence import Tick

FALSE_ALARM_SECONDS = 86_400.0
MOST_NATS = 5.0  # what one call may weigh: no single call decides
ONE_TICK = 0.45  # of the threshold: three ticks must speak
RECOVERED_NATS = 7.0
PROBATION_SECONDS = 10.0  # after a recovery the threshold is halved for so long
RECENT_SECONDS = 2.0
RECENT_CALLS = 20
SUSPICIOUS_NATS = 4.0
CLEAR_NATS = 2.0  # by so much must one name explain the calls better than another,
OTHER_STATE_NATS = 5.0  # and by so much if the state is another: a breaker may hang on it
SILENT_CALLS = 3  # so many must have been silent for long enough before a target is UNRESPONSIVE
SURGE = 1.25  # load explains slowness only if it is above the usual by so much

# What a call can show, by column: answered at level 0 to 4, late; failed, overloaded, refused; and "has
# waited beyond level 1 to 5": the callers who left, and the attempts in flight.
ERROR, OVERLOAD, REFUSED, WAITING = 6, 7, 8, 8
COLUMNS = 14
_SILENT = 9  # in a distribution, where what never answers is one thing


class Mode(NamedTuple):
    """One way to be ill.

    Its kind, its extent (a share, or a hazard ratio for "shift"), its state, the log probability of
    each column under it, and what a call in each column adds to its score.
    """

    kind: str
    extent: float
    state: State
    log_p: tuple[float, ...]
    nats: tuple[float, ...]


class Row(NamedTuple):
    """One tick as the judge keeps it: the tick, and its calls by column."""

    tick: Tick
    calls: list[int]


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


def _usual(base: Baseline, tails: tuple[float, ...]) -> list[float]:
    late = tails[3] * 3**-1.5
    edges = (1.0, *tails, late)
    rest = base.errors + base.overload + base.refused + base.silent
    levels = [(edges[i] - edges[i + 1]) * (1 - rest) for i in range(5)]
    return [*levels, late * (1 - rest), base.errors, base.overload, base.refused, base.silent]


def _mixed(p: list[float], share: float, where: dict[int, float]) -> list[float]:
    return [(1 - share) * x + share * where.get(i, 0.0) for i, x in enumerate(p)]


def _shifted(p: list[float], theta: float) -> list[float]:
    """Every call's completion hazard is `theta` times the usual."""
    answers = sum(p[:6])
    beyond = [sum(p[i:6]) / answers for i in range(6)]
    curve = [*(share**theta for share in beyond), 0.0]
    return [(curve[i] - curve[i + 1]) * answers for i in range(6)] + p[6:]


def _beyond(p: list[float], level: int, share: float) -> list[float]:
    """`share` of the answers lie at `level` or above."""
    answers, high = sum(p[:6]), sum(p[level:6])
    share = (
        max(share, min(0.985, 1.3 * high / answers)) if share * answers <= 1.15 * high else share
    )
    up, down = share * answers / high, (1 - share) * answers / (answers - high)
    return [x * (up if i >= level else down) for i, x in enumerate(p[:6])] + p[6:]


def _columns(p: list[float]) -> tuple[float, ...]:
    whole = sum(p)
    never = p[_SILENT]
    waiting = (sum(p[level:6]) + never for level in range(1, 6))
    return tuple(log(max(x, 1e-12) / whole) for x in (*p[:9], *waiting))


_SHARES = (
    # kind, share of calls, what they show, state
    ("silent", (0.04, 0.15, 0.4), {_SILENT: 1.0}, State.DEGRADED),
    ("silent", (0.7, 0.97), {_SILENT: 1.0}, State.UNRESPONSIVE),
    ("errors", (0.03, 0.1, 0.3, 0.7, 0.97), {ERROR: 1.0}, State.DEGRADED),
    ("overload", (0.03, 0.1, 0.3, 0.6, 0.9), {OVERLOAD: 1.0}, State.OVERLOADED),
    ("refused", (0.04, 0.15, 0.4), {REFUSED: 1.0}, State.DEGRADED),
    ("refused", (0.7, 0.97), {REFUSED: 1.0}, State.CRASHED),
)
_BEYOND = ((1, 0.92), (2, 0.5), (2, 0.85), (3, 0.3), (3, 0.7), (3, 0.95))
_TAIL_SHARES = (0.05, 0.15, 0.4, 0.7)
_TAIL = {3: 0.1, 4: 0.4, LATE: 0.4, _SILENT: 0.1}
_SLOW = {3: 0.05, 4: 0.35, LATE: 0.55, _SILENT: 0.05}


def modes(base: Baseline) -> tuple[list[Mode], list[tuple[float, ...]]]:
    """The table of modes against a baseline, and the log probabilities of the usual: plain, and rough."""
    plain, rough = _usual(base, base.tails), _usual(base, base.rough)
    table: list[Mode] = []

    def add(kind: str, extent: float, state: State, p: list[float], against: list[float]) -> None:
        log_p, null = _columns(p), _columns(against)
        nats = tuple(
            max(-MOST_NATS, min(MOST_NATS, a - b)) for a, b in zip(log_p, null, strict=True)
        )
        table.append(Mode(kind, extent, state, log_p, nats))

    for kind, shares, where, state in _SHARES:
        for share in shares:
            add(kind, share, state, _mixed(plain, share, where), plain)
    if not base.cold:
        for theta in (0.65, 0.4, 0.2, 0.07):
            add("shift", theta, State.DEGRADED, _shifted(rough, theta), rough)
        for level, share in _BEYOND:
            add("shift", share, State.DEGRADED, _beyond(rough, level, share), rough)
        add("shift", 0.97, State.DEGRADED, _mixed(rough, 0.97, _SLOW), rough)
        for share in _TAIL_SHARES:
            if share >= 3 * base.rough[3]:  # else a rough but ordinary stretch would show it
                add("tail", share, State.DEGRADED, _mixed(plain, share, _TAIL), plain)
    return table, [_columns(plain), _columns(rough)]


class Judge:
    """The sequential test of one operation.

    `step` is told each tick; `finding` is None while nothing is wrong.
    """

    __slots__ = (
        "_base", "_current", "_good", "_nulls", "_onset", "_probation", "_reverse", "_rows", "_scored",
        "_scores", "_sticky", "_supported", "_table", "_told", "_waiting", "_well_since", "_zero",
        "finding", "seen",
    )  # fmt: skip

    def __init__(self, base: Baseline, now: float) -> None:
        self._base: Baseline = base
        self._table, self._nulls = modes(base)
        self._rows: deque[Row] = deque(maxlen=64)
        self._waiting = [0] * COLUMNS
        self._scored = [0.0] * COLUMNS
        self._probation = -inf
        self._well_since = -inf
        self.seen = 0
        self._reset(now)

    def _reset(self, now: float) -> None:
        self.finding: Finding | None = None
        self._scores = [0.0] * len(self._table)
        self._zero = [now] * len(self._table)
        self._current = -1
        self._onset = now
        self._reverse = 0.0
        self._good = [0] * COLUMNS
        self._supported = now
        self._sticky = False
        self._told = 0

    @property
    def suspicious(self) -> bool:
        """Whether some mode has gathered evidence: such time is not learned as usual."""
        return self.finding is not None or max(self._scores) >= SUSPICIOUS_NATS

    def recent(self) -> tuple[Row, ...]:
        """The latest ticks (two seconds, or twenty calls), after a recovery only those since."""
        return self._recent(self._rows[-1].tick.at, self._well_since) if self._rows else ()

    def rebase(self, base: Baseline, now: float) -> None:
        """Judge against a new baseline. Scores start anew; while something is wrong, nothing changes."""
        if self.finding is None and base is not self._base:
            self._base = base
            self._table, self._nulls = modes(base)
            self._reset(now)

    def lapse(self, now: float) -> None:
        """Nobody has called for so long that nothing is known any more."""
        self._reset(now)

    def step(self, tick: Tick) -> Finding | None:
        """Take in a tick; the finding, or None while nothing is wrong."""
        calls, waiting = self._count(tick)
        moved = [c + w - old for c, w, old in zip(calls, waiting, self._scored, strict=True)]
        self._waiting = waiting
        self._rows.append(Row(tick, calls))
        self.seen += sum(calls)
        gains, part = self._gains(moved)
        # What went beyond one tick's most is scored at the next, if it waits even then; what waits no
        # longer is paid back at once, lest its debt speaks for a target that nobody calls.
        self._scored = [
            s + part * (w - s) if w > s else w for s, w in zip(self._scored, waiting, strict=True)
        ]
        threshold = self._threshold(tick.at)
        for index, gain in enumerate(gains):
            score = min(max(0.0, self._scores[index] + gain), threshold + 6)
            self._scores[index] = score
            if not score:
                self._zero[index] = tick.at
        if self.finding is None:
            self._alarm(threshold, tick.at)
        else:
            self._follow(gains[self._current], calls, tick.at)
        return self.finding

    def _count(self, tick: Tick) -> tuple[list[int], list[int]]:
        level, cold = self._base.level, self._base.cold
        calls = [0] * COLUMNS
        for index, count in tick.answered:
            calls[level[index]] += count
        for index, count in tick.censored:
            if level[index]:
                calls[WAITING + level[index]] += count
        if cold:  # without a usual, what timed out was silent as long as anybody was ready to wait
            calls[WAITING + LATE] = max(calls[WAITING + LATE], tick.classes[OutcomeClass.UNKNOWN])
        calls[ERROR] = tick.classes[OutcomeClass.FAILURE]
        calls[OVERLOAD] = tick.classes[OutcomeClass.OVERLOAD]
        calls[REFUSED] = tick.classes[OutcomeClass.CONNECT]
        waiting = [0] * COLUMNS
        for index in tick.ages:
            if level[index]:
                waiting[WAITING + level[index]] += 1
        return calls, waiting

    def _gains(self, moved: list[float]) -> tuple[list[float], float]:
        """What the tick adds to each score, and which part of its calls that is."""
        columns = [(index, count) for index, count in enumerate(moved) if count]
        gains = [sum(count * mode.nats[index] for index, count in columns) for mode in self._table]
        # However many calls one moment holds up, they weigh no more than one, and calls made one after
        # the other are that many moments; but neither one tick may decide nor two.
        threshold = self._threshold(self._supported)
        most, top = max(threshold / 6, MOST_NATS), max(gains)
        if top > most:
            nats = self._table[gains.index(top)].nats
            bad = sum(count for index, count in columns if nats[index] > 0)
            moments = [row.tick.together for row in list(self._rows)[-2:]]
            together = max(1.0, self._base.rate * self._base.p50, *moments)
            most = max(most, min(most * bad / together, threshold * ONE_TICK))
        part = most / top if top > most else 1.0
        return [gain * part for gain in gains], part

    def _threshold(self, now: float) -> float:
        rate = self._base.rate or self._rate()
        threshold = log(max(rate * FALSE_ALARM_SECONDS, 100.0))
        return threshold / 2 if now < self._probation else threshold

    def _rate(self) -> float:
        seconds = sum(row.tick.seconds for row in self._rows)
        return sum(row.tick.started for row in self._rows) / max(1.0, seconds)

    def _recent(self, now: float, onset: float, least: int = 0) -> tuple[Row, ...]:
        rate = self._base.rate or self._rate()
        oldest = now - max(RECENT_SECONDS, RECENT_CALLS / max(rate, 0.1))
        rows: list[Row] = []
        for row in reversed(self._rows):
            if row.tick.at <= onset or (row.tick.at <= oldest and least <= 0):
                break
            rows.append(row)
            least -= sum(row.calls)  # who waits long for each call makes few
        return tuple(reversed(rows))

    def _best(self, calls: list[int]) -> tuple[int, float]:
        """The mode that explains the calls best, and by how many nats better than the usual does."""
        columns = [(index, count) for index, count in enumerate(calls) if count]
        fits = [sum(count * mode.log_p[index] for index, count in columns) for mode in self._table]
        usual = max(sum(count * null[index] for index, count in columns) for null in self._nulls)
        best = max(range(len(fits)), key=fits.__getitem__)
        return best, fits[best] - usual

    def _alarm(self, threshold: float, now: float) -> None:
        winner = max(range(len(self._scores)), key=self._scores.__getitem__)
        if self._scores[winner] < threshold:
            return
        self._onset = self._zero[winner]
        self._current = winner
        self._supported = now
        self._good = [0] * COLUMNS
        self._reverse = 0.0
        self._name(now)

    def _follow(self, gain: float, calls: list[int], now: float) -> None:
        if gain > 0 or any(calls):  # where nothing ended nothing is well
            self._reverse = max(0.0, self._reverse - gain)
        if self._reverse:
            self._good = [a + b for a, b in zip(self._good, calls, strict=True)]
        else:
            self._good = [0] * COLUMNS
            self._supported = now
        if self._reverse >= RECOVERED_NATS:
            _, nats = self._best([a + b for a, b in zip(self._good, self._waiting, strict=True)])
            if nats <= CLEAR_NATS:
                self._well_since = self._supported
                self._reset(now)
                self._probation = now + PROBATION_SECONDS
                return
            self._reverse, self._good = 0.0, [0] * COLUMNS
        self._name(now)

    def _name(self, now: float) -> None:
        rows = self._recent(now, self._onset, SILENT_CALLS) or tuple(self._rows)[-1:]
        calls = [sum(column) for column in zip(*(row.calls for row in rows), strict=True)]
        everything = [a + b for a, b in zip(calls, self._waiting, strict=True)]
        told = sum(everything)
        if self.finding is not None and told < min(self._told, RECENT_CALLS // 2):
            # So few calls are made now (the breaker is open) that they say less than those that decided.
            self.finding = self.finding._replace(supported_at=self._supported)
            return
        best, nats = self._best(everything)
        if nats > CLEAR_NATS and not self._milder(best) and self._clearer(best, everything):
            self._current, self._reverse = best, 0.0
        mode = self._table[self._current]
        state = self._state(mode, rows, calls)
        self._told = told
        what = (state, mode.kind, mode.extent, self._onset, self._supported)
        self.finding = Finding(*what, rows, self._waiting, self._sticky)

    def _milder(self, best: int) -> bool:
        """Whether `best` is less of the same, while calls go well: then it is ending, not getting milder."""
        one, other = self._table[best], self._table[self._current]
        less = one.kind == other.kind != "shift" and one.extent < other.extent
        return less and self._reverse > 0

    def _clearer(self, best: int, calls: list[int]) -> bool:
        one, other = self._table[best], self._table[self._current]
        pairs = zip(calls, one.log_p, other.log_p, strict=True)
        nats = sum(count * (a - b) for count, a, b in pairs if count)
        return nats > (CLEAR_NATS if one.state is other.state else OTHER_STATE_NATS)

    def _state(self, mode: Mode, rows: tuple[Row, ...], calls: list[int]) -> State:
        ended = sum(calls[:9])
        seconds = sum(row.tick.seconds for row in rows)
        state = mode.state
        silent = calls[WAITING + LATE] + self._waiting[WAITING + LATE]
        # Callers may leave before `silent_after`: then nobody is answered, for longer than it ever takes.
        left = sum(calls[WAITING + LATE - 1 :]) if seconds >= self._base.quiet_after else 0
        if not ended and max(silent, left) >= SILENT_CALLS:
            state = State.CRASHED if state is State.CRASHED else State.UNRESPONSIVE
        elif state is State.UNRESPONSIVE and silent < max(SILENT_CALLS, ended):
            # Slow to answer, so far: most of those that are old enough to tell did answer.
            state = State.DEGRADED
        surge = self._surge(rows, seconds)
        if mode.kind == "overload" or (surge and ended > sum(self._waiting[WAITING + 1 :])):
            self._sticky = True
        elif not surge and not calls[OVERLOAD]:
            self._sticky = False
        # Once overloaded, its slowness and its silence are overload for as long as the load lasts.
        if self._sticky and mode.kind in {"shift", "tail", "silent"}:
            return State.OVERLOADED
        return state

    def _surge(self, rows: tuple[Row, ...], seconds: float) -> bool:
        """Whether more calls are made than usual, by a quarter and beyond chance (Poisson, 6 nats)."""
        made = sum(row.tick.started for row in rows)
        usual = self._base.rate * seconds
        if not usual or made <= SURGE * usual:
            return False
        return made * log(made / usual) - (made - usual) > 6
