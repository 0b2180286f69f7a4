"""Failures made on purpose, each by its real mechanism, with an end and a verified undo.

A kind says what is done (`Latency(seconds=0.2, share=0.3)`), a place makes it happen:

    with proxy.make(Latency(seconds=0.2)):
        ...

Nothing of this is imported by `import brownout`.
"""

from __future__ import annotations

from brownout._core.fault import Amount, Decision, Fault, Log, Schedule

from .kind import (
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
from .tcp import Exchange, Proxy, running

__all__ = [
    "Amount",
    "Bandwidth",
    "Corrupt",
    "Cut",
    "Decision",
    "Drop",
    "Exchange",
    "Fault",
    "Hang",
    "Latency",
    "Log",
    "NeverAccept",
    "Proxy",
    "Refuse",
    "Schedule",
    "Slice",
    "SlowClose",
    "Timeout",
    "running",
]
