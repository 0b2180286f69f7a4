"""See, survive and rehearse partial failure.

call -> Outcome -> Evidence -> State -> Reaction -> call

A `Guard` makes the call and tells what its `Outcome` was: succeeded, failed for certain, or unknown. The
outcomes of all callers are the evidence from which a target's `State` is judged, always with its reason;
the state sets what the guard does with the next call.
"""

from __future__ import annotations

from brownout._core.attempt import Attempt
from brownout._core.because import Number, Verdict
from brownout._core.deadline import DeadlineHeader
from brownout._core.held import Hold
from brownout._core.outcome import Certainty, Outcome, OutcomeClass, Phase, Shown
from brownout._core.policy import Breaker, Retry
from brownout._core.state import State
from brownout._drive.context import deadline, remaining
from brownout._guard import Guard
from brownout._key import Key
from brownout._watch import Change, on_change, states, watch
from brownout.errors import (
    BreakerOpen,
    BrownoutError,
    ConfigurationError,
    DeadlinePassed,
    LimitReached,
    OutcomeUnknown,
    Refused,
    TimedOut,
)
from brownout.fleet import share

# Imported for what it hangs into the guard; its names (Ledger, Once, Outcomes) are its own.
from brownout import ledger as ledger  # isort: skip

__all__ = [
    "Attempt",
    "Breaker",
    "BreakerOpen",
    "BrownoutError",
    "Certainty",
    "Change",
    "ConfigurationError",
    "DeadlineHeader",
    "DeadlinePassed",
    "Guard",
    "Hold",
    "Key",
    "LimitReached",
    "Number",
    "Outcome",
    "OutcomeClass",
    "OutcomeUnknown",
    "Phase",
    "Refused",
    "Retry",
    "Shown",
    "State",
    "TimedOut",
    "Verdict",
    "deadline",
    "on_change",
    "remaining",
    "share",
    "states",
    "watch",
]
