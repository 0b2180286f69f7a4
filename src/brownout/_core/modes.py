"""Modes: the ways in which an operation could be ill, each a distribution over what a call can show.

The table is made from the usual, and holds for each mode what a call adds to the evidence for it: the
logarithm of how much likelier that is if the operation is ill in this way than if all is as usual.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.baseline import LATE
from brownout._core.state import State

if TYPE_CHECKING:
    from brownout._core.baseline import Baseline

MOST_NATS = 5.0  # what one call may weigh: no single call decides

# What a call can show, by column: answered at level 0 to 4, late; failed, overloaded, refused; "has
# waited beyond level 1 to 5" (the callers who left, and the attempts in flight); answered too fast.
ERROR, OVERLOAD, REFUSED, WAITING, FAST = 6, 7, 8, 8, 14
COLUMNS = 15
CERTAIN = ("errors", "overload", "refused")  # the kinds of which each call is certain
_SILENT = 9  # in a distribution, where what never answers is one thing
_TOO_FAST = 10
FAST_SHARE = (
    0.1  # as many answers at most are usually below the threshold, which 5 % are at its widest
)


class Mode(NamedTuple):
    """One way to be ill.

    Its kind, its extent (a share, or a hazard ratio for "shift"), its state, the log probability of
    each column under it, and what a call in each column adds to its score. A table has all modes, so
    that the scores of two usuals add up: one that can't be judged by a usual says nothing either way.
    """

    kind: str
    extent: float
    state: State
    log_p: tuple[float, ...]
    nats: tuple[float, ...]

    @property
    def certain(self) -> bool:
        """Whether each call that speaks for it does so for certain: it does not merely take long."""
        return self.kind in CERTAIN


def _usual(base: Baseline, tails: tuple[float, ...]) -> list[float]:
    late = tails[3] * 3**-1.5
    edges = (1.0, *tails, late)
    rest = base.errors + base.overload + base.refused + base.silent
    levels = [(edges[i] - edges[i + 1]) * (1 - rest) for i in range(5)]
    fast = FAST_SHARE * levels[0] if base.fast else 0.0
    levels[0] -= fast
    return [*levels, late * (1 - rest), base.errors, base.overload, base.refused, base.silent, fast]


def _mixed(p: list[float], share: float, where: dict[int, float]) -> list[float]:
    return [(1 - share) * x + share * where.get(i, 0.0) for i, x in enumerate(p)]


def _shifted(p: list[float], theta: float) -> list[float]:
    """Every call's completion hazard is `theta` times the usual."""
    answers = sum(p[:6]) + p[_TOO_FAST]
    beyond = [1.0, *(sum(p[i:6]) / answers for i in range(1, 6))]
    curve = [*(share**theta for share in beyond), 0.0]
    return _levels(p, [(curve[i] - curve[i + 1]) * answers for i in range(6)])


def _levels(p: list[float], levels: list[float]) -> list[float]:
    """With other levels; of the first, the same part is too fast."""
    fast = p[_TOO_FAST] / (p[0] + p[_TOO_FAST]) * levels[0]
    return [levels[0] - fast, *levels[1:], *p[6:_TOO_FAST], fast]


def _beyond(p: list[float], level: int, share: float) -> list[float]:
    """`share` of the answers lie at `level` or above."""
    answers, high = sum(p[:6]) + p[_TOO_FAST], sum(p[level:6])
    share = (
        max(share, min(0.985, 1.3 * high / answers)) if share * answers <= 1.15 * high else share
    )
    up, down = share * answers / high, (1 - share) * answers / (answers - high)
    levels = [p[0] + p[_TOO_FAST], *p[1:6]]
    return _levels(p, [x * (up if i >= level else down) for i, x in enumerate(levels)])


def _columns(p: list[float]) -> tuple[float, ...]:
    whole = sum(p)
    never = p[_SILENT]
    waiting = (sum(p[level:6]) + never for level in range(1, 6))
    shown = (*p[:9], *waiting, p[_TOO_FAST])
    return tuple(log(max(x, 1e-12) / whole) for x in shown)


_SHARES = (
    # kind, share of calls, what they show, state
    ("silent", (0.04, 0.15, 0.4), {_SILENT: 1.0}, State.DEGRADED),
    ("silent", (0.7, 0.97), {_SILENT: 1.0}, State.UNRESPONSIVE),
    ("errors", (0.03, 0.1, 0.3, 0.7, 0.97), {ERROR: 1.0}, State.DEGRADED),
    ("overload", (0.03, 0.1, 0.3, 0.6, 0.9), {OVERLOAD: 1.0}, State.OVERLOADED),
    ("refused", (0.04, 0.15, 0.4), {REFUSED: 1.0}, State.DEGRADED),
    ("refused", (0.7, 0.97), {REFUSED: 1.0}, State.CRASHED),
)
DEFINITE = sum(len(shares) for _, shares, _, _ in _SHARES)  # the first modes: in every table
_BEYOND = ((1, 0.92), (2, 0.5), (2, 0.85), (3, 0.3), (3, 0.7), (3, 0.95))
_TAIL_SHARES = (0.05, 0.15, 0.4, 0.7)
_TAIL = {3: 0.1, 4: 0.4, LATE: 0.4, _SILENT: 0.1}
_SLOW = {3: 0.05, 4: 0.35, LATE: 0.55, _SILENT: 0.05}


_FAST_SHARES = (0.35, 0.6, 0.9)


def modes(base: Baseline) -> tuple[list[Mode], list[tuple[float, ...]]]:
    """The table of modes against a baseline, and the log probabilities of the usual: plain, and rough."""
    plain, rough = _usual(base, base.tails), _usual(base, base.rough)
    nulls = [_columns(plain), _columns(rough)]
    table: list[Mode] = []

    def add(
        kind: str, extent: float, state: State, p: list[float], null: int, *, known: bool = True
    ) -> None:
        log_p = _columns(p) if known else nulls[0]
        pairs = zip(log_p, nulls[null] if known else log_p, strict=True)
        nats = tuple(max(-MOST_NATS, min(MOST_NATS, a - b)) for a, b in pairs)
        table.append(Mode(kind, extent, state, log_p, nats))

    for kind, shares, where, state in _SHARES:
        for share in shares:
            add(kind, share, state, _mixed(plain, share, where), 0)
    warm = not base.cold
    for theta in (0.8, 0.65, 0.4, 0.2, 0.07):
        add("shift", theta, State.DEGRADED, _shifted(rough, theta), 1, known=warm)
    for level, share in _BEYOND:
        add("shift", share, State.DEGRADED, _beyond(rough, level, share), 1, known=warm)
    add("shift", 0.97, State.DEGRADED, _mixed(rough, 0.97, _SLOW), 1, known=warm)
    for share in _TAIL_SHARES:
        # Else a rough but ordinary stretch would show it.
        clear = warm and share >= 3 * base.rough[3]
        add("tail", share, State.DEGRADED, _mixed(plain, share, _TAIL), 0, known=clear)
    for share in _FAST_SHARES:
        p = _mixed(plain, share, {_TOO_FAST: 1.0})
        add("too fast", share, State.DEGRADED, p, 0, known=bool(base.fast))
    return table, nulls
