"""The stalls of the whole process, as the judge's thread notices them: it is late, so all are."""

from __future__ import annotations

from brownout._core.late import Lateness

TOLERANCE_SECONDS = 0.05  # a thread that wakes up later than that got no processor, or no turn

process = Lateness(TOLERANCE_SECONDS)
