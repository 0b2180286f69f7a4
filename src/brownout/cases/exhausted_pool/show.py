"""Shows the play while it lasts: a table redrawn in place on a terminal, else lines as things happen."""

from __future__ import annotations

import shutil
import time
from collections import deque
from math import inf
from typing import TYPE_CHECKING, TextIO

from brownout import BrownoutError
from brownout.fleet import local
from brownout.render.cells import fit, plain
from brownout.render.text import Style, line, table

from .schedule import steps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .crew import Crew
    from .schedule import Phase, Step

WIDEST = 100
EVENTS = 6  # on the terminal; the scorecard has them all
HISTORY = 12
RECENT_SECONDS = 2.0
INTRODUCTION = (
    " A caller, a shop and its downstream, twice: with brownout and without. Both get the same 100",
    " calls a second and the same faults, while the shop's own health check goes on saying ok.",
    " It takes {seconds:.0f} s. Ctrl-C ends it, and every process that it has started.",
    "",
)
_SERVED = ("right", "degraded")


def _told(step: Step) -> str:
    return step.phase.title if step.begins else f"undone: {step.phase.name}"


class Events:
    """What happens, as lines: what is made to fail, and each state change with its reason."""

    def __init__(self, out: TextIO, style: Style, fleet: Path) -> None:
        self._out = out
        self._style = style
        self._fleet = fleet
        self._last = 0

    def __call__(self, _seconds: float, step: Step | None) -> None:
        """Write what has happened since the last time."""
        for text in self.news(step):
            self._out.write(text + "\n")
        self._out.flush()

    def news(self, step: Step | None) -> list[str]:
        """Lines for what is new: first what was seen, then the step that was taken now."""
        found: list[str] = []
        try:
            changes, self._last = local.changes(self._fleet, after=self._last)
            found = [line(change, style=self._style) for change in changes]
        except BrownoutError:  # nobody has written yet, or somebody is writing
            pass
        if step is not None:
            what = _told(step)
            clock = time.strftime("%H:%M:%S")
            found.append(plain(f"{clock} {fit('(on purpose)', 16)} {what}", self._style))
        return found


class Table:
    """The live table on a terminal, with what both chains' callers get, and the latest events."""

    def __init__(self, out: TextIO, style: Style, fleet: Path, crew: Crew, end: float) -> None:
        self._out = out
        self._style = style
        self._fleet = fleet
        self._crew = crew
        self._end = end
        self._news = Events(out, style._replace(colour=False), fleet)  # cut to the width by cells
        self._events: deque[str] = deque(maxlen=EVENTS)
        self._tallies: deque[tuple[float, dict[str, dict[str, int]]]] = deque(maxlen=40)
        self._history: dict[str, deque[float | None]] = {}
        self._sampled = -inf
        self._phase = "learning what is usual"
        self._drawn = 0

    def __call__(self, seconds: float, step: Step | None) -> None:
        """Draw the table anew, over the last one."""
        if step is not None:
            self._phase = _told(step)
        self._events.extend(self._news.news(step))
        self._tallies.append((seconds, self._crew.members["load"].tally))
        size = shutil.get_terminal_size((WIDEST, 30))
        columns = min(WIDEST, size.columns - 1)
        lines = [*self._rows(seconds, columns), *self._served(seconds), *self._events]
        self._draw([self._cut(text, columns) for text in lines[: size.lines - 1]])

    def _rows(self, seconds: float, columns: int) -> list[str]:
        left = f"{seconds:.0f} of {self._end:.0f} s"
        lines = [f" brownout demo   exhausted-pool   {left}   {self._phase}"]
        try:
            fleet = local.read(self._fleet)
        except BrownoutError:
            return [*lines, " ... nothing has been seen yet"]
        if seconds - self._sampled >= 1.0:
            self._sampled = seconds
            for row in fleet.rows:
                past = self._history.setdefault(row.target, deque(maxlen=HISTORY))
                past.append(row.verdict.number("p99_seconds") if row.verdict else None)
        history: dict[str, Sequence[float | None]] = {
            target: list(past) for target, past in self._history.items()
        }
        lines += table(
            fleet.rows,
            at=fleet.at,
            title="what the callers see",
            observers=len(fleet.observers),
            history=history,
            columns=columns,
            style=self._style,
        )
        return lines

    def _served(self, seconds: float) -> list[str]:
        """What the callers of both chains got in the last two seconds."""
        past = [tally for at, tally in self._tallies if at >= seconds - RECENT_SECONDS]
        text: list[str] = []
        for chain, name in (("with", "with brownout   "), ("without", "without brownout")):
            old, new = (past[index].get(chain, {}) for index in (0, -1))
            gained = {verdict: new[verdict] - old.get(verdict, 0) for verdict in new}
            made = sum(gained.values())
            if made:
                good = sum(gained.get(verdict, 0) for verdict in _SERVED) / made
                bar = ("#" if self._style.ascii else "█") * round(40 * good)
                text.append(f" served in time {name} {100 * good:4.0f} %  {bar}")
        return text

    def _cut(self, text: str, columns: int) -> str:
        return text if "\x1b" in text else fit(text, columns).rstrip()

    def _draw(self, lines: list[str]) -> None:
        back = f"\x1b[{self._drawn}F" if self._drawn else "\x1b[?25l"
        body = "".join(f"{text}\x1b[K\n" for text in lines)
        self._out.write(f"{back}{body}\x1b[J")
        self._out.flush()
        self._drawn = len(lines)

    def close(self) -> None:
        """Give the cursor back, below the table."""
        if self._drawn:
            self._out.write("\x1b[?25h\n")
            self._out.flush()


class Screen:
    """Says what is to be seen, chooses how to show it, and leaves the terminal as it was."""

    def __init__(self, out: TextIO, style: Style, phases: tuple[Phase, ...], *, live: bool) -> None:
        self._out = out
        self._style = style
        self._end = steps(phases)[1]
        self._live = live
        self._table: Table | None = None

    def open(self) -> None:
        """Say what is to be seen."""
        for text in INTRODUCTION:
            self._out.write(text.format(seconds=self._end + 1) + "\n")
        self._out.flush()

    def watch(self, crew: Crew, fleet: Path) -> Events | Table:
        """What is told of the play while it lasts."""
        if not self._live:
            return Events(self._out, self._style, fleet)
        self._table = Table(self._out, self._style, fleet, crew, self._end)
        return self._table

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._table is not None:
            self._table.close()
