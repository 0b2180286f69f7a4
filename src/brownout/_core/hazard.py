"""The completion hazard ratio: one number for how slow a target is.

A call that took so long that a share S of the calls usually takes longer has used up -ln S of its hazard:
1 on average while all is as usual. So calls answered / hazard used up is 1 then, well below it where all
takes several times as long, and 0 where nothing is answered: calls that wait use up hazard as they wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from brownout._core.finding import Row

FEWEST = 3  # calls, of which it is told


def theta(rows: Iterable[Row], hazard: Sequence[float]) -> float | None:
    """The hazard ratio of these ticks, the attempts in flight at their end among them; None if unknown."""
    if not hazard:
        return None
    answered, used, calls = 0, 0.0, 0
    ages: Sequence[int] = ()
    for row in rows:
        for index, count in row.tick.answered:
            before = hazard[index - 1] if index else 0.0
            answered += count
            used += count * max((before + hazard[index]) / 2, 1e-3)
        for index, count in row.tick.censored:
            calls += count
            used += count * (hazard[index - 1] if index else 0.0)
        ages = row.tick.ages
    used += sum(hazard[index - 1] if index else 0.0 for index in ages)
    calls += answered + len(ages)
    return answered / used if calls >= FEWEST and used > 0 else None
