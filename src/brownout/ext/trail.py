"""What the clients of one task or thread have done, or may have done: the join over all their tries.

An exception tells of a client's last try. But the client may have tried before by itself, and so may the
guarded function. So whoever watches a client marks here what was done, and what ended unknown; and what is
certain of the last try stays certain only if nothing was marked since the attempt began.

A mark in a task is also one of the tasks that it was started by (up to eight of them), since the work is
theirs too; never of its siblings.
"""

from __future__ import annotations

import sys
import threading
import time
from contextvars import ContextVar
from math import inf
from typing import TYPE_CHECKING

from brownout import Certainty, OutcomeClass, Shown

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Classifier", "Trail", "certain", "lost", "mark", "same", "since", "tell", "trail"]

ABOVE_MOST = 8
CAUSES_MOST = 20


class Trail:
    """When something was last done, or may have been, in one task or thread; monotonic seconds."""

    __slots__ = ("above", "at", "owner")

    def __init__(self, owner: object, above: tuple[Trail, ...]) -> None:
        self.at = -inf
        self.owner = owner
        self.above = above

    def mark(self) -> None:
        """Something was done, or may have been."""
        self.at = now = time.monotonic()
        for each in self.above:
            each.at = now

    @staticmethod
    def here() -> Trail:
        """That of the running task, or of this thread."""
        owner = _owner()
        found = _TRAIL.get()
        if found is not None and found.owner is owner:
            return found
        above = () if found is None else (found, *found.above)[:ABOVE_MOST]
        new = Trail(owner, above)
        _TRAIL.set(new)
        return new


_TRAIL: ContextVar[Trail | None] = ContextVar("brownout_trail", default=None)
_threads = threading.local()


def _owner() -> object:
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        try:
            task: object = asyncio.current_task()
        except RuntimeError:  # no loop runs in this thread
            task = None
        if task is not None:
            return task
    try:
        return _threads.owner
    except AttributeError:
        _threads.owner = object()
        return _threads.owner


def trail() -> Trail:
    """The trail of the running task, or of this thread."""
    return Trail.here()


def mark() -> None:
    """Something was done, or may have been."""
    Trail.here().mark()


def certain(class_: OutcomeClass, retry_after: float | None = None) -> Shown:
    """It did not happen, and says so much of the target."""
    return Shown(class_, Certainty.ABSENT, retry_after)


def lost(class_: OutcomeClass = OutcomeClass.FAILURE) -> Shown:
    """It may have happened."""
    return Shown(class_, Certainty.UNKNOWN)


def tell(error: BaseException, shown: Shown, *, changes: bool = True) -> None:
    """Say on an exception what it shows; the first word counts, since it was nearest to what happened.

    `changes=False`: what was asked changes nothing, so that it is unknown matters to nothing else.
    """
    if getattr(error, "brownout_shown", None) is None:
        if changes and shown.certainty is Certainty.UNKNOWN:
            mark()

        def say(began: float) -> Shown:
            return since(shown, began)

        error.brownout_shown = say  # type: ignore[attr-defined]


def same(error: BaseException, first: BaseException) -> None:
    """Say on an exception what was said on the one that led to it."""
    say = getattr(first, "brownout_shown", None)
    if say is not None:
        error.brownout_shown = say  # type: ignore[attr-defined]


def since(shown: Shown, began: float) -> Shown:
    """What was certain of the last try is so of the attempt only if nothing else was done in it."""
    if shown.certainty is not Certainty.UNKNOWN and Trail.here().at >= began:
        return shown._replace(certainty=Certainty.UNKNOWN)
    return shown


class Classifier:
    """What `classify=` takes: what an adapter told of an exception, else what the exception itself says."""

    def __init__(self, name: str, meaning: Callable[[BaseException], Shown | None]) -> None:
        self._name = name
        self._meaning = meaning

    def __repr__(self) -> str:
        return f"brownout.ext.{self._name}.classify"

    def __call__(self, error: BaseException) -> Shown | None:
        """What an exception shows; None if it is not the client's."""
        return self.since(error, inf)

    def since(self, error: BaseException, began: float) -> Shown | None:
        """The same for an attempt that began at this monotonic instant, with all that it has done."""
        seen: BaseException | None = error
        for _ in range(CAUSES_MOST):
            if seen is None:
                break
            say: Callable[[float], Shown] | None = getattr(seen, "brownout_shown", None)
            if say is not None:
                return say(began)
            meant = self._meaning(seen)
            if meant is not None:
                return since(meant, began)
            seen = seen.__cause__
        return None
