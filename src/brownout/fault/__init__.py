"""Failures made on purpose, each by its real mechanism, with an end and a verified undo.

A kind says what is done (`Latency(seconds=0.2, share=0.3)`), a place makes it happen:

    with proxy.make(Latency(seconds=0.2)):
        ...

Nothing of this is imported by `import brownout`.
"""

from __future__ import annotations

from brownout._core.fault import Amount, Decision, Fault, Log, Schedule

from .kind import (
    AbortConnections,
    Bandwidth,
    Corrupt,
    Cut,
    Drop,
    ExhaustFiles,
    FillBacklog,
    Freeze,
    Hang,
    Kill,
    Latency,
    NeverAccept,
    Pause,
    Refuse,
    Slice,
    SlowClose,
    Starve,
    Timeout,
)
from .process.place import Listener, Process

__all__ = [
    "AbortConnections",
    "Amount",
    "Bandwidth",
    "Corrupt",
    "Cut",
    "Decision",
    "Drop",
    "ExhaustFiles",
    "Fault",
    "FillBacklog",
    "Freeze",
    "Hang",
    "Kill",
    "Latency",
    "Listener",
    "Log",
    "NeverAccept",
    "Pause",
    "Process",
    "Refuse",
    "Schedule",
    "Slice",
    "SlowClose",
    "Starve",
    "Timeout",
]
