"""The kinds of fault: what is done. Whom it hits and when is what they all have in common (`Fault`).

A place refuses a kind that it has no mechanism for. `stream` is the direction that bytes flow in:
"upstream" is the request, "downstream" the reply.
"""

from __future__ import annotations

from brownout.fault.disk.kind import Error, Full, Old
from brownout.fault.kind.answer import Duplicate, Stall, Status, Wrong
from brownout.fault.kind.packet import Loss, Partition, SlowHandshake
from brownout.fault.kind.whole import (
    AbortConnections,
    CutStreaming,
    DelayReplay,
    ExhaustFiles,
    FillBacklog,
    Freeze,
    FreezeReceiver,
    HoldConnections,
    Kill,
    NeverAccept,
    Pause,
    PauseReplay,
    Refuse,
    Starve,
)
from brownout.fault.kind.wire import (
    Bandwidth,
    Corrupt,
    Cut,
    Drop,
    Hang,
    Latency,
    Slice,
    SlowClose,
    Timeout,
)

__all__ = [
    "AbortConnections",
    "Bandwidth",
    "Corrupt",
    "Cut",
    "CutStreaming",
    "DelayReplay",
    "Drop",
    "Duplicate",
    "Error",
    "ExhaustFiles",
    "FillBacklog",
    "Freeze",
    "FreezeReceiver",
    "Full",
    "Hang",
    "HoldConnections",
    "Kill",
    "Latency",
    "Loss",
    "NeverAccept",
    "Old",
    "Partition",
    "Pause",
    "PauseReplay",
    "Refuse",
    "Slice",
    "SlowClose",
    "SlowHandshake",
    "Stall",
    "Starve",
    "Status",
    "Timeout",
    "Wrong",
]
