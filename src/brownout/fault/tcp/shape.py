"""Which stage makes which kind of fault, and in which direction of a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from brownout.fault.kind import (
    Bandwidth,
    Corrupt,
    Cut,
    Drop,
    Hang,
    Latency,
    NeverAccept,
    Refuse,
    Slice,
    SlowClose,
    Timeout,
)

from .late import Delaying, Dripping, Hanging, LateEnding, Narrow
from .lost import Corrupting, Cutting, Dropping, TimingOut

if TYPE_CHECKING:
    from brownout._core.fault import Fault

    from .active import Active
    from .stage import Stage
    from .stream import Stream

__all__ = ["MAKES", "stage_of"]

_STAGES: dict[type[Fault], type[Stage[Any]]] = {
    Latency: Delaying,
    Bandwidth: Narrow,
    Slice: Dripping,
    Hang: Hanging,
    SlowClose: LateEnding,
    Drop: Dropping,
    Timeout: TimingOut,
    Corrupt: Corrupting,
    Cut: Cutting,
}
MAKES = frozenset({*_STAGES, Refuse, NeverAccept})  # the last two by the listener
_PLACE = {"request": "upstream", "reply": "downstream"}


def stage_of(stream: Stream, active: Active) -> Stage[Any] | None:
    """The stage that a fault needs in a direction of a connection, or None if it needs none there."""
    fault = active.injection.fault
    kind = _STAGES.get(type(fault))
    if isinstance(fault, Cut):
        wanted = _PLACE.get(fault.at) == stream.name
    else:
        wanted = fault.stream in ("both", stream.name)
    return kind(stream, active, fault) if kind is not None and wanted else None
