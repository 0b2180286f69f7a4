"""Headers that carry the time that is left: read, written, rounded, bounded."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brownout import ConfigurationError, DeadlineHeader
from brownout._core.deadline import Asked

ENVOY, GRPC = DeadlineHeader.ENVOY, DeadlineHeader.GRPC
SECONDS = DeadlineHeader("Request-Timeout", "s")
MILLIS = DeadlineHeader("X-Request-Timeout", "ms")


@pytest.mark.parametrize(
    ("header", "value", "seconds"),
    [
        (GRPC, "2H", 7200.0),
        (GRPC, "3M", 180.0),
        (GRPC, "4S", 4.0),
        (GRPC, "250m", 0.25),
        (GRPC, "1500u", 0.0015),
        (GRPC, "99999999n", 0.099999999),
        (GRPC, "0n", 0.0),  # as gRPC for Go writes a time that is over
        (GRPC, "00000001S", 1.0),
        (ENVOY, "1500", 1.5),
        (ENVOY, " 20\t", 0.02),
        (ENVOY, "9999999999", 9_999_999.999),
        (MILLIS, "7", 0.007),
        (SECONDS, "2", 2.0),
        (SECONDS, "0.25", 0.25),
    ],
)
def test_a_header_is_read(header: DeadlineHeader, value: str, seconds: float) -> None:
    assert header.read(value) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        *((GRPC, value) for value in ("", "5", "S", "5s", "5 S", "-5S", "+5S", "1.5S", "123456789m")),
        *((GRPC, value) for value in ("5Sx", "\u0665S", "5S\n", "1e3m")),
        *((ENVOY, value) for value in ("", "0", "-1", "1.5", "+5", "1e3", "0x10", "1_000", "\u0665")),
        *((ENVOY, value) for value in ("12345678901", "100, 200", "inf", "nan", "5ms", "5\n")),
        *((SECONDS, value) for value in ("", "0", "0.0", "-1", "1.", ".5", "1,5", "1e9", "inf", "2s")),
        *((SECONDS, value) for value in ("12345678901", "0.1234567890", "nan", "2\n")),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_no_time(header: DeadlineHeader, value: str) -> None:
    assert header.read(value) is None


@pytest.mark.parametrize(
    ("header", "left", "value"),
    [
        (GRPC, 0.25, "250000u"),
        (GRPC, 1e-9, "1n"),
        (GRPC, 1.5e-9, "2n"),  # up
        (GRPC, 0.1, "100000u"),  # nine digits of nanoseconds are too many
        (GRPC, 99.9999991, "100000m"),  # up, into the next unit
        (GRPC, 100_000.0001, "100001S"),
        (GRPC, 1e8, "1666667M"),
        (GRPC, 1e300, "99999999H"),
        (ENVOY, 1e308, "9999999999"),
        (GRPC, 0.0, "1n"),
        (GRPC, -3.0, "1n"),
        (ENVOY, 0.2509, "250"),  # down
        (ENVOY, 0.0001, "1"),  # not 0: that is "no limit" to many
        (ENVOY, -1.0, "1"),
        (ENVOY, 1e12, "9999999999"),
        (MILLIS, 2.0, "2000"),
        (SECONDS, 2.0, "2"),
        (SECONDS, 0.25, "0.250"),
        (SECONDS, 1.0009, "1"),
        (SECONDS, 0.0, "0.001"),
    ],
)
def test_a_header_is_written(header: DeadlineHeader, left: float, value: str) -> None:
    assert header.write(left) == value


@pytest.mark.parametrize("header", [GRPC, ENVOY, SECONDS, MILLIS])
def test_without_a_deadline_nothing_is_written(header: DeadlineHeader) -> None:
    assert header.write(inf) is None


@given(st.floats(min_value=1e-9, max_value=1e9))
def test_grpc_rounds_up_by_little(left: float) -> None:
    value = GRPC.write(left)
    assert value is not None
    assert len(value) <= 9
    read = GRPC.read(value)
    assert read is not None
    assert left * (1 - 1e-12) <= read <= left * 1.0001 + 1e-9


@given(st.floats(min_value=0.001, max_value=9e6), st.sampled_from([ENVOY, SECONDS, MILLIS]))
def test_the_others_round_down_by_less_than_a_millisecond(
    left: float, header: DeadlineHeader
) -> None:
    value = header.write(left)
    assert value is not None
    read = header.read(value)
    assert read is not None
    assert left - 0.001 - 1e-6 <= read <= left


@given(st.text(max_size=15), st.sampled_from([ENVOY, SECONDS, MILLIS, GRPC]))
def test_no_value_raises_or_says_nonsense(value: str, header: DeadlineHeader) -> None:
    read = header.read(value)
    assert read is None or 0 <= read < inf


def test_the_shortest_wins_and_nonsense_is_named() -> None:
    pairs = [
        ("Grpc-Timeout", "900m"),
        ("x-envoy-expected-rq-timeout-ms", "soon"),
        ("X-Envoy-Expected-Rq-Timeout-Ms", "800"),
        ("x-envoy-expected-rq-timeout-ms", "850"),
        ("request-timeout", "0.1"),  # nobody said that it means seconds
        ("host", "localhost"),
    ]
    asked = DeadlineHeader.shortest((ENVOY, GRPC), pairs)
    assert asked.seconds == pytest.approx(0.8)
    assert asked.ignored == (ENVOY.name,)
    assert DeadlineHeader.shortest((ENVOY, GRPC, SECONDS), pairs).seconds == pytest.approx(0.1)
    assert DeadlineHeader.shortest((GRPC,), pairs) == Asked(0.9, ())


def test_a_time_that_is_over_is_shorter_than_any() -> None:
    pairs = [(ENVOY.name, "800"), (GRPC.name, "0m")]
    assert DeadlineHeader.shortest((ENVOY, GRPC), pairs) == Asked(0.0, ())


def test_no_header_no_deadline() -> None:
    assert DeadlineHeader.shortest((ENVOY, GRPC), [("host", "localhost")]) == Asked(None, ())
    assert DeadlineHeader.shortest((), [(ENVOY.name, "800")]) == Asked(None, ())


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("", "s"),
        ("a b", "s"),
        ("a:", "ms"),
        ("ä", "s"),
        (3, "s"),
        ("a\n", "s"),
        ("a", "us"),
        ("a", 1),
    ],
)
def test_a_header_has_a_name_and_a_unit(name: Any, unit: Any) -> None:
    with pytest.raises(ConfigurationError, match="DeadlineHeader"):
        DeadlineHeader(name, unit)


def test_the_case_of_a_name_does_not_matter() -> None:
    assert DeadlineHeader("Grpc-Timeout", "grpc") == GRPC
