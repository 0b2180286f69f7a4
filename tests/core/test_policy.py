"""A guard that can't work is refused when it is built: all faults at once, each with its way out."""

from __future__ import annotations

import asyncio
from itertools import combinations
from math import inf, nan
from typing import Any

import pytest

from brownout import Breaker, BreakerOpen, ConfigurationError, Retry, State, TimedOut
from brownout._core.policy import Policy


class NotFound(Exception):
    pass


# What is wrong by itself: the arguments, what is named, and the way out.
FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"target": ""}, "the target's name", "1 to 100 printable characters"),
    ({"target": "x" * 101}, "the target's name", "1 to 100 printable characters"),
    ({"target": "a\x1b[31m"}, "the target's name", "1 to 100 printable characters"),
    ({"target": 3}, "the target's name", "1 to 100 printable characters"),
    ({"target": "http://host"}, "must not be a URL", "give it a short name"),
    ({"timeout": 0}, "timeout=0", "a number of seconds above 0, or left out"),
    ({"timeout": nan}, "timeout=nan", "a number of seconds above 0, or left out"),
    ({"timeout": True}, "timeout=True", "a number of seconds above 0, or left out"),
    ({"timeout": "1s"}, "timeout='1s'", "a number of seconds above 0, or left out"),
    ({"limit": 0}, "limit=0", "a whole number from 1 to 1,000,000, or left out"),
    ({"limit": 1.5}, "limit=1.5", "a whole number from 1 to 1,000,000, or left out"),
    ({"limit": True}, "limit=True", "a whole number from 1 to 1,000,000, or left out"),
    ({"fallback": 5}, "fallback=5", "a function that takes what the call takes"),
    ({"answers": KeyError}, "answers=", "a tuple of exception classes"),
    ({"answers": (1,)}, "answers=", "a tuple of exception classes"),
    ({"answers": (NotFound, Exception)}, "answers: Exception", "such as NotFound"),
    ({"answers": (OSError,)}, "answers: OSError", "such as NotFound"),
    ({"answers": (TimeoutError,)}, "answers: TimeoutError", "such as NotFound"),
    ({"answers": (TimedOut,)}, "answers: TimedOut", "such as NotFound"),
    ({"answers": (BreakerOpen,)}, "answers: BreakerOpen", "such as NotFound"),
    ({"answers": (ConnectionError,)}, "answers: ConnectionError", "such as NotFound"),
    ({"answers": (BaseException,)}, "answers: BaseException", "such as NotFound"),
    ({"answers": (asyncio.CancelledError,)}, "answers: CancelledError", "such as NotFound"),
    ({"retry": 3}, "retry=3", "write retry=Retry("),
    ({"retry": Retry(attempts=1)}, "Retry(attempts=1)", "leave retry out for one attempt"),
    ({"retry": Retry(attempts=11)}, "Retry(attempts=11)", "must be 2 to 10"),
    ({"retry": Retry(budget=0.0)}, "Retry(budget=0.0)", "above 0 and at most 1"),
    ({"retry": Retry(budget=1.5)}, "Retry(budget=1.5)", "above 0 and at most 1"),
    ({"retry": Retry(backoff=-1.0)}, "Retry(backoff=-1.0", "between 0 and the second"),
    ({"retry": Retry(backoff_most=inf)}, "backoff_most=inf)", "between 0 and the second"),
    ({"breaker": True}, "breaker=True", "write breaker=Breaker(), or None"),
    ({"breaker": Breaker(open_at=State.HEALTHY)}, "open_at=State.HEALTHY", "name a worse state"),
    ({"breaker": Breaker(open_at="DEGRADED")}, "open_at='DEGRADED'", "write open_at=State."),  # type: ignore[arg-type]
    ({"breaker": Breaker(probes=0)}, "Breaker(probes=0)", "a whole number from 1 to 100"),
    ({"breaker": Breaker(wait=0)}, "Breaker(wait=0)", "a number of seconds above 0"),
    ({"breaker": Breaker(wait_most=inf)}, "Breaker(wait_most=inf)", "a number of seconds above 0"),
    ({"breaker": Breaker(ramp=-1.0)}, "Breaker(ramp=-1.0)", "a number of seconds above 0"),
    ({"breaker": Breaker(lease=0)}, "Breaker(lease=0)", "a number of seconds above 0"),
    # ... and what can't be together
    (
        {"retry": Retry(backoff=3.0, backoff_most=2.0)},
        "Retry(backoff=3.0, backoff_most=2.0)", "the first must lie between 0 and the second",
    ),
    (
        {"breaker": Breaker(wait=60.0)},
        "Breaker(wait=60.0, wait_most=15.0)", "the first must not be more than the second",
    ),
    (
        {"timeout": 2.0, "breaker": Breaker(lease=0.5)},
        "Breaker(lease=0.5) is shorter than timeout=2.0", "leave lease out",
    ),
]  # fmt: skip


def refusal(**arguments: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Policy(**{"target": "x"} | arguments).check()
    return str(caught.value)


@pytest.mark.parametrize(("arguments", "what", "way_out"), FAULTS)
def test_a_fault_is_named_with_where_and_a_way_out(
    arguments: dict[str, Any], what: str, way_out: str
) -> None:
    first, *faults = refusal(**arguments).splitlines()
    assert first.startswith("Guard(")
    assert first.endswith(") can't work:")
    assert len(faults) == 1
    assert what in faults[0]
    assert way_out in faults[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [(a, b) for a, b in combinations(FAULTS, 2) if not set(a[0]) & set(b[0])],
)
def test_two_faults_are_told_at_once(
    one: tuple[dict[str, Any], str, str], other: tuple[dict[str, Any], str, str]
) -> None:
    text = refusal(**one[0], **other[0])
    assert len(text.splitlines()) == 3
    for _, what, way_out in (one, other):
        assert what in text
        assert way_out in text


def test_all_faults_of_a_policy_are_told_at_once() -> None:
    text = refusal(
        target="http://u:secret@x",
        timeout=0,
        retry=Retry(1, 2.0, -1.0),
        breaker=Breaker(State.HEALTHY, 0, wait=0),
        limit=0,
        fallback=5,
        answers=(1,),
    )
    assert len(text.splitlines()) == 12
    assert "secret" not in text


# What goes together, although it may look odd: each of these means something.
FINE: list[dict[str, Any]] = [
    {},
    {"timeout": 60.0, "breaker": Breaker(wait_most=1.0)},  # the lease goes up to the time-out
    {"timeout": 2.0, "breaker": Breaker(lease=2.0)},
    {"breaker": Breaker(lease=0.5)},  # without a time-out it is what bounds a probe
    {"limit": 1, "breaker": Breaker(probes=3)},  # probes one after the other
    {"limit": 1, "retry": Retry(attempts=10)},  # a permit is given back before the next attempt
    {"timeout": 0.1, "retry": Retry(backoff=1.0)},  # the wait is no part of an attempt
    {"retry": Retry(backoff=0.0)},
    {"breaker": None, "retry": Retry(), "fallback": print, "idempotent": True},
    {"breaker": Breaker(open_at=State.DEGRADED), "retry": Retry()},
    {"idempotent": True},  # says something of the target; for each call's own retry
    {"answers": (NotFound, KeyError, FileNotFoundError)},
]


@pytest.mark.parametrize("arguments", FINE)
def test_what_means_something_is_accepted(arguments: dict[str, Any]) -> None:
    Policy("x", **arguments).check()
