"""Kinds refuse what can't be made, all at once, when they are written."""

from collections.abc import Callable
from typing import Any

import pytest

from brownout._core.fault import KINDS
from brownout.errors import ConfigurationError
from brownout.fault import (
    Amount,
    Bandwidth,
    Corrupt,
    Cut,
    Fault,
    Latency,
    NeverAccept,
    Refuse,
    Slice,
)

ANY: dict[str, Any] = {"how": "shut", "at": "start"}  # no type checker would let it pass


def test_a_kind_is_known_by_its_name() -> None:
    assert KINDS["latency"] is Latency
    assert KINDS["cut"] is Cut
    assert all(kind.kind == name for name, kind in KINDS.items())


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Latency(seconds=-1), "seconds=-1 is 0 or more"),
        (lambda: Latency(seconds=float("nan")), "seconds=nan is 0 or more"),
        (lambda: Latency(seconds=Amount(-1)), "seconds: an amount and its jitter are 0 or more"),
        (lambda: Bandwidth(bytes_per_second=-1), "bytes_per_second=-1 is 0 or more"),
        (lambda: Slice(bytes=0), "bytes=0 is 1 or more"),
        (lambda: Corrupt(share_of_bytes=2), "share_of_bytes=2 is a part of 1"),
        (lambda: Cut(how=ANY["how"]), 'how=\'shut\' is "reset" or "close"'),
        (lambda: Cut(at=ANY["at"]), "at='start' is"),
        (lambda: Cut(at="accept", after_bytes=3), 'at="accept" no bytes have come'),
        (lambda: Cut(after_bytes=-3), "after_bytes=-3 is 0 or more"),
        (lambda: Refuse(share=0.5), "share: it is done to the listener"),
        (lambda: NeverAccept(nth=2, client="::1"), "nth, client: it is done to the listener"),
    ],
)
def test_what_cannot_be_made_is_refused(make: Callable[[], Fault], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert told in str(caught.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"share=2.*seconds=-1"):
        Latency(seconds=-1, share=2)


def test_it_is_written_as_it_is_made() -> None:
    assert str(Latency(seconds=0.2, share=0.3)) == "Latency(share=0.3, seconds=0.2)"
