"""Faults that are in force, as lines: who suffers on purpose must not be taken for ill."""

from __future__ import annotations

from math import isinf
from typing import TYPE_CHECKING, Any, NamedTuple

from brownout.render.cells import PLAIN, Style, plain, wrap

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MARK", "InForce", "faults", "plainly", "suffering"]

MARK = "†"
MOST = 10  # lines of them; what goes over is counted


class InForce(NamedTuple):
    """A fault in force: as it is written, where, whom it makes suffer, and until when.

    `target` is empty if it is not known; `failed` says why it could not be undone, if it could not.
    """

    id: str
    fault: str
    place: str
    target: str
    ends_in_seconds: float
    failed: str = ""


def suffering(told: Sequence[InForce]) -> frozenset[str]:
    """The targets that the faults name."""
    return frozenset(each.target for each in told if each.target)


def faults(told: Sequence[InForce], *, columns: int = 100, style: Style = PLAIN) -> list[str]:
    """One line for each, such as "† fault: Latency(seconds=0.2) at ..., ends in 20 s"."""
    texts = [f"{MARK} fault: {each.fault} at {each.place}, {_until(each)}" for each in told[:MOST]]
    if len(told) > MOST:
        texts.append(f"{MARK} {len(told) - MOST} more faults: brownout fault list")
    return [plain(f" {line}", style) for text in texts for line in wrap(text, columns - 1)]


def _until(told: InForce) -> str:
    if told.failed:
        return f"NOT UNDONE: {told.failed}"
    if isinf(told.ends_in_seconds):
        return "ends with its maker"
    return f"ends in {max(0.0, told.ends_in_seconds):.0f} s"


def plainly(told: Sequence[InForce]) -> list[dict[str, Any]]:
    """As `--json` prints them."""
    return [
        {
            "id": each.id,
            "fault": each.fault,
            "place": each.place,
            "target": each.target or None,
            "ends_in_seconds": None if isinf(each.ends_in_seconds) else each.ends_in_seconds,
            "failed": each.failed or None,
        }
        for each in told
    ]
