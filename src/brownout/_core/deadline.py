"""Deadlines: an instant for a whole call, and how the time that is left travels to the next hop.

On the wire it is relative, because clocks differ: whole milliseconds, rounded down (never promise
more than there is), stamped anew for each attempt.
"""

from __future__ import annotations

from math import inf

HEADER = "x-envoy-expected-rq-timeout-ms"


def header_value(left_seconds: float) -> str | None:
    """The remaining time for a header, in milliseconds; None when there is no deadline.

    Less than a millisecond is 1, not 0, which many servers read as "no limit".
    """
    if left_seconds == inf:
        return None
    return str(max(1, int(left_seconds * 1000)))
