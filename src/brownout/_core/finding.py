"""What a judge finds: the state, its kind and extent, and the ticks that decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from brownout._core.cell import Tick
    from brownout._core.state import State
    from brownout._core.stream import Part


class Row(NamedTuple):
    """One tick as the judge keeps it: the tick, its calls by column, how many were in flight together.

    `parts` has the calls of each stream.
    """

    tick: Tick
    calls: list[int]
    together: float
    parts: tuple[Part, ...]

    @property
    def flying(self) -> int:
        """Attempts in flight at its end."""
        return len(self.tick.ages) + self.tick.queued


class Split(NamedTuple):
    """A label that explains which calls are bad: those of some `values` of it, and hardly any other.

    `label` is what the values are of ("operation", "observer", "part"); `bad` of `calls` are theirs, and
    `other_bad` of `other_calls` are of the rest.
    """

    label: str
    values: tuple[str, ...]
    bad: int
    calls: int
    other_bad: int
    other_calls: int


class Finding(NamedTuple):
    """What the judge found, for the verdict and its sentence.

    `onset` and `supported_at` (the last tick that spoke for it) are monotonic instants; `rows` are the
    ticks that decided; `load` says why the calls made explain it ("surge", "queue"; "": they don't).
    """

    state: State
    kind: str
    extent: float
    onset: float
    supported_at: float
    rows: tuple[Row, ...]
    waiting: list[int]
    load: str
    split: Split | None = None
