"""What an attempt shows: certainty and class are two answers."""

from __future__ import annotations

import asyncio
import socket
from errno import ECONNREFUSED, ECONNRESET, EHOSTUNREACH, EIO, ENOENT

import pytest

from brownout import Certainty, Outcome, OutcomeClass, Shown
from brownout._core.outcome import classify
from brownout.errors import (
    DeadlinePassed,
    InDoubt,
    LedgerUnavailable,
    OtherPayload,
    StillRunning,
    TimedOut,
    Voided,
)


class NotFound(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "class_", "certainty"),
    [
        (ConnectionRefusedError(ECONNREFUSED, "refused"), OutcomeClass.CONNECT, Certainty.ABSENT),
        (OSError(EHOSTUNREACH, "no route"), OutcomeClass.CONNECT, Certainty.ABSENT),
        (socket.gaierror(-2, "no name"), OutcomeClass.CONNECT, Certainty.ABSENT),
        (FileNotFoundError(ENOENT, "no socket"), OutcomeClass.CONNECT, Certainty.ABSENT),
        (FileNotFoundError(ENOENT, "no file", "/x"), OutcomeClass.FAILURE, Certainty.UNKNOWN),
        (ConnectionResetError(ECONNRESET, "reset"), OutcomeClass.FAILURE, Certainty.UNKNOWN),
        (OSError(EIO, "disk"), OutcomeClass.FAILURE, Certainty.UNKNOWN),
        (TimeoutError(), OutcomeClass.UNKNOWN, Certainty.UNKNOWN),
        (ValueError("who knows"), OutcomeClass.FAILURE, Certainty.UNKNOWN),
        (DeadlinePassed("x", target="t"), OutcomeClass.LOCAL, Certainty.ABSENT),
        (asyncio.CancelledError(), OutcomeClass.CANCELLED, Certainty.UNKNOWN),
        (KeyboardInterrupt(), OutcomeClass.CANCELLED, Certainty.UNKNOWN),
        (NotFound(), OutcomeClass.SUCCESS, Certainty.ANSWERED),
    ],
)
def test_classify(error: BaseException, class_: OutcomeClass, certainty: Certainty) -> None:
    assert classify(error, (NotFound,)) == Shown(class_, certainty)


def test_a_time_out_of_an_inner_guard_is_unknown() -> None:
    from brownout import Phase

    error = TimedOut("x", target="t", sent_at=0.0, phase=Phase.SENT)
    assert classify(error).certainty is Certainty.UNKNOWN


@pytest.mark.parametrize("certainty", list(Certainty))
def test_exactly_one_of_three(certainty: Certainty) -> None:
    for error in (None, ValueError()):
        outcome: Outcome[int] = Outcome(1, error, certainty, 1, 0.1)
        assert [outcome.succeeded, outcome.failed, outcome.unknown].count(True) == 1


@pytest.mark.parametrize(
    ("error", "class_", "certainty"),
    [
        (Voided("never"), OutcomeClass.SUCCESS, Certainty.ANSWERED),
        (OtherPayload("used"), OutcomeClass.SUCCESS, Certainty.ANSWERED),
        (LedgerUnavailable("down"), OutcomeClass.FAILURE, Certainty.ABSENT),
        (LedgerUnavailable("down", not_started=False), OutcomeClass.FAILURE, Certainty.UNKNOWN),
        (StillRunning("at it", retry_after=2.0), OutcomeClass.FAILURE, Certainty.UNKNOWN),
        (InDoubt("who knows"), OutcomeClass.FAILURE, Certainty.UNKNOWN),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.name,
)
def test_what_a_ledger_says_is_certain_or_is_not(
    error: Exception, class_: OutcomeClass, certainty: Certainty
) -> None:
    shown = classify(error)
    assert (shown.class_, shown.certainty) == (class_, certainty)
    assert shown.retry_after == getattr(error, "retry_after", None)
