"""What is to blame: the observer itself, or a target further down the call graph.

A service that observes under its own name is also a target of that name: so the edges of the call graph are
known. A bad edge into X is explained when X's own outgoing edges are bad. An observer whose edges are mostly
bad, to targets that others see well, is itself to blame; so is one that says that it was late itself, or,
where nobody else looks, one to which many unrelated targets became ill at once. Suspect yourself first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from brownout._core.state import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from brownout._core.because import Verdict

MANY = 3  # unrelated targets; two may have something in common that nobody has told of
MOST_SHARE = 2 / 3
AT_ONCE_SECONDS = 3.0  # the slowest of them is named so much later than the first
_LONGEST_PATH = 8


class Edge(NamedTuple):
    """What an observer (by id and name) sees of a target: nothing (None), that it is well, or ill since."""

    observer: str
    name: str
    target: str
    state: State | None
    since: float

    @property
    def ill(self) -> bool:
        """There is evidence, and it does not say HEALTHY."""
        return self.state not in {None, State.HEALTHY}


def unrelated(target: str) -> str:
    """The target that a part ("name/part") belongs to: parts of one are not unrelated."""
    return target.partition("/")[0]


def strained(edges: Iterable[Edge]) -> dict[str, str]:
    """The observers (by id) that are themselves to blame for what they see, each with the reason."""
    known = [edge for edge in edges if edge.state is not None]
    by_observer: dict[str, list[Edge]] = {}
    by_target: dict[str, list[Edge]] = {}
    for edge in known:
        by_observer.setdefault(edge.observer, []).append(edge)
        by_target.setdefault(edge.target, []).append(edge)
    found: dict[str, str] = {}
    for observer, mine in by_observer.items():
        reason = _strain(mine, by_target)
        if reason:
            found[observer] = reason
    return found


def _strain(mine: list[Edge], by_target: Mapping[str, list[Edge]]) -> str:
    ill = {unrelated(edge.target): edge for edge in mine if edge.ill}
    every = {unrelated(edge.target): edge for edge in mine}
    if len(ill) < MANY or len(ill) < MOST_SHARE * len(every):
        return ""
    me = mine[0]
    others = {
        root: [one for one in by_target[edge.target] if one.observer != me.observer]
        for root, edge in ill.items()
    }
    seen = {root: edges for root, edges in others.items() if edges}
    well = [root for root, edges in seen.items() if not any(edge.ill for edge in edges)]
    what = f"{len(ill)} of the {len(every)} targets of {me.name} look ill to it"
    if seen:
        most = len(well) >= MANY and len(well) >= MOST_SHARE * len(ill)
        return f"{what}, and {len(well)} of them look well to others" if most else ""
    began = sorted(edge.since for edge in ill.values())
    if began[-1] - began[0] > AT_ONCE_SECONDS:
        return ""
    return f"{what} since one moment, and have nothing else in common that is known"


def ill(verdict: Verdict) -> bool:
    """Whether there is evidence, and it does not say HEALTHY."""
    return verdict.state not in {None, State.HEALTHY}


def at_once(verdicts: Sequence[Verdict]) -> str:
    """Why one process, from its own verdicts alone, should suspect itself first; "" if it should not."""
    if sum(1 for one in verdicts if ill(one)) < MANY:
        return ""
    edges = [Edge("", "this process", one.target, one.state, one.since) for one in verdicts]
    return strained(edges).get("", "")


def explained(target: str, edges: Iterable[Edge], strained: Mapping[str, str]) -> tuple[str, ...]:
    """The path from an ill target to what explains it: ("quotes", "db"); empty if nothing does.

    A path of the target alone says that it is itself to blame, for what it sees of others.
    """
    out: dict[str, list[Edge]] = {}
    for edge in edges:
        if edge.ill:
            out.setdefault(edge.name, []).append(edge)
    path, last = [target], target
    while len(path) < _LONGEST_PATH:
        mine = [edge for edge in out.get(last, ()) if edge.target not in path]
        if any(edge.observer in strained for edge in mine):
            return tuple(path)
        if not mine:
            break
        last = max(mine, key=_weight).target
        path.append(last)
    return tuple(path) if len(path) > 1 else ()


def _weight(edge: Edge) -> tuple[int, float]:
    """The worst of the edges explains it, of two the one that was bad first."""
    return (edge.state.severity if edge.state else -1), -edge.since
