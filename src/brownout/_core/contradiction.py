"""A target that says it is well while its callers suffer: the sentence that sets one beside the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brownout._core.words import share

if TYPE_CHECKING:
    from brownout._core.because import Verdict

_MANY_CALLS = 20  # of which a share is told; of fewer that of the longest span


def contradiction(verdict: Verdict) -> str:
    """What a target says of itself, and what its callers suffer; "" where the two agree."""
    return f"it says ok; {suffered(verdict)}" if verdict.contradiction else ""


def suffered(verdict: Verdict) -> str:
    """What the callers suffer, in a few words: "32 % of its callers wait out the deadline"."""
    last = next((recent for recent in verdict.recent if recent.calls >= _MANY_CALLS), None)
    last = last or next(reversed(verdict.recent), None)
    part = share(last.bad, last.calls) if last and last.bad else share(verdict.extent, 1)
    return f"{part} of its callers {_SUFFERED.get(verdict.kind, 'suffer')}"


_SUFFERED = {
    "silent": "wait out the deadline",
    "errors": "are told of an error",
    "refused": "are refused",
    "overload": "are turned away",
    "shift": "wait longer than usual",
    "tail": "wait much longer than the rest",
    "stale": "read what is old",
}
