"""Rows as a table for a terminal, and changes as lines.

from brownout.render.text import table
for line in table(fleet.rows, at=fleet.at, observers=len(fleet.observers)):
    print(line)
"""

from __future__ import annotations

import time
from math import isinf, nan
from typing import TYPE_CHECKING

from brownout._core.state import State
from brownout._core.view import absence, blame_sentence, scope_sentence
from brownout.render.cells import PLAIN, Style, bars, fit, mark, paint, plain, style, width, wrap
from brownout.render.faults import MARK

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from brownout._core.view import Row
    from brownout.fleet.local import Fleet, ObservedChange
    from brownout.replay import Change

__all__ = ["PLAIN", "Style", "line", "notes", "replayed", "style", "table"]

WINDOW_SECONDS = 30
SHAPE_COLUMNS = 80  # narrower, the SHAPE folds away
HISTORY_COLUMNS = 90  # narrower, the p99 history folds away: the target's name needs its place
HEALTHY_MOST = 8  # rows; what goes over is one line with a count
HISTORY_CELLS = 12
_SHAPE_CELLS = 13
_STATE_CELLS = 16
_NARROWEST = 50


def table(
    rows: Sequence[Row],
    *,
    at: float,
    title: str = "brownout status",
    observers: int | None = None,
    history: Mapping[str, Sequence[float | None]] | None = None,
    columns: int = 100,
    style: Style = PLAIN,
    healthy_most: int = HEALTHY_MOST,
    suffering: Collection[str] = (),
) -> list[str]:
    """The rows as lines of at most `columns` cells (fewer than 50 count as 50), without line ends.

    Two header lines (targets, window, time; observers, contradictions), the table, and beneath each
    target that is ill its sentence. Rows stand in the order given: `Fleet.rows` has the worst first.
    `at` is the wall instant of the header's clock; `observers` how many there are (None: not told).
    `history` maps a target to its p99 in seconds over time, the oldest first (None: no evidence, drawn
    as a gap); its column is there only if it is given, and from 90 columns on; SHAPE from 80 on.
    `style` says whether colour and shapes may be used (`brownout.render.text.style`); letters always
    are. More than `healthy_most` HEALTHY rows, and rows without evidence, fold into one line each.
    Targets in `suffering` have a fault made on purpose, and bear a "†".

    Pure: the same rows give the same lines.
    """
    layout = _Layout(max(columns, _NARROWEST), style, history, suffering)
    lines = _header(rows, at, title, observers, layout)
    healthy = [row for row in rows if row.state is State.HEALTHY]
    shown = healthy if len(healthy) <= healthy_most else healthy[: max(0, healthy_most - 1)]
    for row in rows:
        if row.ill:
            lines += [layout.row(row), *layout.beneath(row, at)]
    lines += [layout.row(row) for row in shown]
    if len(healthy) > len(shown):
        lines.append(f"   + {len(healthy) - len(shown)} more HEALTHY")
    gaps = [row for row in rows if row.state is None]
    lines += layout.gaps(gaps)
    if not rows:
        lines.append("   nobody has called a guarded target yet")
    lines.append(layout.rule)
    return [plain(line, style) for line in lines]


def _header(
    rows: Sequence[Row], at: float, title: str, observers: int | None, layout: _Layout
) -> list[str]:
    healthy = sum(1 for row in rows if row.state is State.HEALTHY)
    clock = time.strftime("%H:%M:%S", time.localtime(at))
    left, right = (
        f" {title}",
        f"{healthy} of {len(rows)} targets HEALTHY   window {WINDOW_SECONDS} s   {clock}",
    )
    if width(left) + 2 + width(right) > layout.columns:
        right = f"{healthy} of {len(rows)} HEALTHY   {clock}"
    first = fit(left, max(0, layout.columns - width(right) - 2)) + "  " + right
    second = [] if observers is None else [f"{observers} observer{'' if observers == 1 else 's'}"]
    if says := sum(1 for row in rows if row.contradiction):
        one = says == 1
        second.append(
            f"≠ {says} target{'' if one else 's'} say{'s' if one else ''} ok while callers suffer"
        )
    lines = [fit(first, layout.columns)]
    if second:
        lines.append(fit(" " + "   ".join(second), layout.columns))
    return [*(text.rstrip() for text in lines), layout.rule, layout.head()]


class _Layout:
    """The columns of the table, as wide as the terminal has them."""

    def __init__(
        self,
        columns: int,
        style: Style,
        history: Mapping[str, Sequence[float | None]] | None,
        suffering: Collection[str] = (),
    ) -> None:
        self.suffering = suffering
        self.columns = columns
        self.style = style
        self.history = history if columns >= HISTORY_COLUMNS else None
        self.shape = columns >= SHAPE_COLUMNS
        self.says = columns >= 64
        self.rule = "─" * columns
        rest = 3 + 1 + _STATE_CELLS + 7 + 7 + 5 + 5
        rest += (1 + HISTORY_CELLS) if self.history is not None else 0
        rest += (1 + _SHAPE_CELLS) if self.shape else 0
        rest += 7 if self.says else 0
        self.target = min(40, max(6, columns - rest))

    def head(self) -> str:
        """The names of the columns."""
        cells = [fit("TARGET", self.target), fit("STATE", _STATE_CELLS)]
        if self.history is not None:
            cells.append(fit("p99 history", HISTORY_CELLS))
        if self.shape:
            cells.append(fit("SHAPE 1ms-10s", _SHAPE_CELLS))
        return self._line([*cells, *self._numbers("p50", "p99", "FLY", "UNK", "SAYS")])

    def row(self, row: Row) -> str:
        """One target."""
        name = row.state.name if row.state else "no evidence"
        state = fit(f"{mark(row.state, self.style)} {name}", _STATE_CELLS)
        cells = [self._name(row), paint(state, row.state, self.style)]
        if self.history is not None:
            past = list(self.history.get(row.target, ()))[-HISTORY_CELLS:]
            known = [value for value in past if value is not None and not isinf(value)]
            top = max(known, default=1.0) or 1.0
            drawn = [nan if value is None else min(value, 2 * top) for value in past]
            cells.append(fit(bars(drawn, self.style), HISTORY_CELLS, right=True))
        verdict = row.verdict
        if self.shape:
            cells.append(fit(bars(verdict.shape, self.style) if verdict else "", _SHAPE_CELLS))
        p50, p99 = (_latency(row, name) for name in ("p50_seconds", "p99_seconds"))
        says = {None: "none", True: "ok", False: "not ok"}[row.claim]
        if row.contradiction:
            says = "ok ≠"
        cells += self._numbers(p50, p99, _count(row.in_flight), _count(row.unanswered), says)
        return self._line(cells)

    def _name(self, row: Row) -> str:
        if row.target in self.suffering:
            return fit(
                fit(row.target, min(width(row.target), self.target - 2)) + f" {MARK}", self.target
            )
        return fit(row.target, self.target)

    def beneath(self, row: Row, at: float) -> list[str]:
        """The sentence of a row, who says so, and who is not heard of."""
        text = row.because
        if row.verdict and row.verdict.operation:
            text = f"{row.verdict.operation}: {text}"
        text += "."
        if row.observers > 1 and row.observer:
            text += (
                f" Seen by {row.seen_by} of {row.observers} observers, told by {row.observer.name}."
            )
        lines = wrap(text, self.columns - 8)
        said = "its own health check said ok" in row.because
        told = ["" if said else row.contradiction_because, blame_sentence(row)]
        told[1:1] = [scope_sentence(row)] if row.scope.kind else []
        for sentence in told:
            lines += (
                wrap(f"{sentence[0].upper()}{sentence[1:]}.", self.columns - 8) if sentence else []
            )
        for one in row.stale:
            lines += wrap(f"Not counted: {absence(one.observer, at)}.", self.columns - 8)
        return [" " * 7 + text for text in lines]

    def gaps(self, rows: Sequence[Row]) -> list[str]:
        """Those without evidence: one line for each of a few, else a count and names."""
        dot = mark(None, self.style)
        if len(rows) <= 4:
            return [
                "   " + fit(f"{dot} {self._marked(row)}: {row.because}", self.columns - 3).rstrip()
                for row in rows
            ]
        names = ", ".join(row.target for row in rows)
        return [fit(f"   {dot} {len(rows)} without evidence: {names}", self.columns).rstrip()]

    def _marked(self, row: Row) -> str:
        return f"{row.target} {MARK}" if row.target in self.suffering else row.target

    def _numbers(self, p50: str, p99: str, fly: str, unk: str, says: str) -> list[str]:
        cells = [fit(p50, 6, right=True), fit(p99, 6, right=True)]
        cells += [fit(fly, 4, right=True), fit(unk, 4, right=True)]
        return [*cells, fit(says, 6)] if self.says else cells

    def _line(self, cells: list[str]) -> str:
        return ("   " + " ".join(cells)).rstrip()


def _latency(row: Row, name: str) -> str:
    """A latency in six cells; "-" where nothing was answered, "never" where most were not."""
    for number in row.verdict.numbers if row.verdict else ():
        if number.name == name and number.value:
            return _short(number.value)
    return "-"


def _short(value: float) -> str:
    if isinf(value):
        return "never"
    if value < 0.001:
        return "<1ms"
    return (
        f"{value * 1000:.0f}ms"
        if value < 0.9995
        else f"{value:.1f}s"
        if value < 100
        else f"{value:.0f}s"
    )


def _count(value: int) -> str:
    return str(value) if value < 10_000 else f"{value // 1000}k"


def line(change: ObservedChange, *, style: Style = PLAIN) -> str:
    """A change as one line: when, which target, from what to what, the sentence, and who says so."""
    clock = time.strftime("%H:%M:%S", time.localtime(change.at))
    before = mark(change.before, PLAIN._replace(ascii=True))
    name = change.after.name if change.after else "no evidence"
    turn = paint(f"{before} → {mark(change.after, style)} {name}", change.after, style)
    says = " ≠" if change.contradiction else ""
    return plain(
        f"{clock} {fit(change.target, 16)} {turn}{says}  {change.because}  ({change.name})", style
    )


def notes(fleet: Fleet, *, columns: int = 100, style: Style = PLAIN) -> list[str]:
    """What must be said beneath the table: observers that are not counted, what was skipped or lost."""
    told = [
        f"not counted: {absence(one, fleet.at)}" for one in fleet.observers if one.stale(fleet.at)
    ]
    if len(told) > 5:
        told = [*told[:4], f"not counted: {len(told) - 4} more observers, not heard of"]
    if fleet.malformed:
        told.append(
            f"{fleet.malformed} rows of the fleet file were skipped: nobody of ours can have written them"
        )
    if lost := sum(one.lost for one in fleet.observers):
        told.append(f"{lost} changes are missing: their observers could not write them")
    if left := sum(one.left_out for one in fleet.observers):
        told.append(f"{left} targets are missing: their observers have too many to share")
    return [plain(f" {text}", style) for note in told for text in wrap(note, columns - 1)]


def replayed(change: Change) -> str:
    """One change of a replay as a line."""
    names = [one.name if one else "no evidence" for one in (change.before, change.state)]
    what = f"{change.target} {change.operation}".rstrip()
    return f"{change.t_seconds:10.1f} s  {what}  {' -> '.join(names)}  {change.because}"
