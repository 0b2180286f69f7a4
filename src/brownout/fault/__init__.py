"""Failures made on purpose, each by its real mechanism, with an end and a verified undo.

A kind says what is done (`Latency(seconds=0.2, share=0.3)`), a place makes it happen:

    with proxy.make(Latency(seconds=0.2)):
        ...

Nothing of this is imported by `import brownout`, and no place before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from brownout._core.fault import Amount, Decision, Fault, Log, Schedule

from .kind import (
    AbortConnections,
    Bandwidth,
    Corrupt,
    Cut,
    CutStreaming,
    DelayReplay,
    Drop,
    Duplicate,
    Error,
    ExhaustFiles,
    FillBacklog,
    Freeze,
    FreezeReceiver,
    Full,
    Hang,
    HoldConnections,
    Kill,
    Latency,
    Loss,
    NeverAccept,
    Old,
    Partition,
    Pause,
    PauseReplay,
    Refuse,
    Slice,
    SlowClose,
    SlowHandshake,
    Stall,
    Starve,
    Status,
    Timeout,
    Wrong,
)

if TYPE_CHECKING:
    from .aside import making
    from .disk.place import Disk
    from .http import HttpFaults, HttpProxy, HttpTransport
    from .made import Made
    from .pool import Pool
    from .process.place import Listener, Process
    from .replica.lag import Lag
    from .replica.postgres import PostgresPair
    from .replica.redis import RedisPair
    from .replica.sqlite import SqliteCopy
    from .tcp import Exchange, Proxy, running
    from .zone.place import Zones

__all__ = [
    "AbortConnections",
    "Amount",
    "Bandwidth",
    "Corrupt",
    "Cut",
    "CutStreaming",
    "Decision",
    "DelayReplay",
    "Disk",
    "Drop",
    "Duplicate",
    "Error",
    "Exchange",
    "ExhaustFiles",
    "Fault",
    "FillBacklog",
    "Freeze",
    "FreezeReceiver",
    "Full",
    "Hang",
    "HoldConnections",
    "HttpFaults",
    "HttpProxy",
    "HttpTransport",
    "Kill",
    "Lag",
    "Latency",
    "Listener",
    "Log",
    "Loss",
    "Made",
    "NeverAccept",
    "Old",
    "Partition",
    "Pause",
    "PauseReplay",
    "Pool",
    "PostgresPair",
    "Process",
    "Proxy",
    "RedisPair",
    "Refuse",
    "Schedule",
    "Slice",
    "SlowClose",
    "SlowHandshake",
    "SqliteCopy",
    "Stall",
    "Starve",
    "Status",
    "Timeout",
    "Wrong",
    "Zones",
    "making",
    "running",
]

# The watchdog needs records and steps alone: it is to start fast, and to stay small.
_LATE = {
    "Disk": ".disk.place",
    "Exchange": ".tcp",
    "HttpFaults": ".http",
    "HttpProxy": ".http",
    "HttpTransport": ".http",
    "Lag": ".replica.lag",
    "Listener": ".process.place",
    "Made": ".made",
    "Pool": ".pool",
    "PostgresPair": ".replica.postgres",
    "Process": ".process.place",
    "Proxy": ".tcp",
    "Zones": ".zone.place",
    "RedisPair": ".replica.redis",
    "SqliteCopy": ".replica.sqlite",
    "making": ".aside",
    "running": ".tcp",
}


def __getattr__(name: str) -> Any:
    """A place, on its first use. Raises AttributeError for a name that there is not."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name], __name__), name)
