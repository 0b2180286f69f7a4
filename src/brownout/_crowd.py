"""The parts of targets that have too many to be named one by one: hosts, tenants, shards.

Each part is a target of its own, "name/part". There may be any number of them over time, so that they are
dropped again: the one that has been asked for longest ago, never one with calls in flight, and never one
that also has a guard of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from brownout._core.target import Target

G = TypeVar("G")


class _Part(Generic[G]):
    """A part, and its guard for each guard that was divided."""

    __slots__ = ("guards", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.guards: WeakKeyDictionary[G, G] = WeakKeyDictionary()


class Crowd(Generic[G]):
    """All parts, the one asked for longest ago first. Whoever calls it holds the registry's lock."""

    __slots__ = ("_own", "_parts", "_registry")

    def __init__(self, registry: dict[str, Target]) -> None:
        self._registry = registry
        self._own: dict[str, Target] = {}
        self._parts: OrderedDict[str, _Part[G]] = OrderedDict()

    def find(self, name: str, whole: G) -> G | None:
        """The guard of a part for `whole`, if there is one; it has just been asked for."""
        part = self._parts.get(name)
        if part is None or self._registry.get(name) is not part.target:
            return None
        self._parts.move_to_end(name)
        return part.guards.get(whole)

    def add(self, name: str, target: Target, whole: G, guard: G) -> G:
        """Keep the guard of a part for `whole`, or take that of a thread that came first."""
        part = self._parts.get(name)
        if part is None or part.target is not target:
            part = self._parts[name] = _Part(target)
        self._parts.move_to_end(name)
        return part.guards.setdefault(whole, guard)

    def own(self, name: str, target: Target) -> None:
        """Somebody has made a guard for it: it stays, as every target that has a name of its own."""
        self._own[name] = target

    def drop(self, now: float) -> bool:
        """Drop one part from here and from the registry; False if calls are in flight at all of them."""
        stale: list[str] = []
        found = ""
        for name, part in self._parts.items():
            if self._registry.get(name) is not part.target:
                stale.append(name)
            elif self._own.get(name) is not part.target and not _flying(part.target, now):
                found = name
                break
        for name in stale:
            del self._parts[name]
        if found:
            del self._parts[found], self._registry[found]
        return bool(found)


def _flying(target: Target, now: float) -> bool:
    operations = list(target.operations.values())
    if not any(operation.evidence.in_flight for operation in operations):
        return False
    target.tick(now)  # ends what is held past its deadline
    return any(operation.evidence.in_flight for operation in operations)
