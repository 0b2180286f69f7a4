"""Keys: the same for the same, another for another, and the time can be read from them."""

from __future__ import annotations

import copy
import enum
import pickle
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta, timezone
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brownout._key import Key

AT = 1_790_000_000.125
parts = st.one_of(st.text(min_size=1), st.binary(min_size=1), st.integers(), st.uuids())
times = st.integers(0, (1 << 48) - 1).map(lambda ms: ms / 1000)


@given(st.lists(parts, min_size=1, max_size=4), times)
def test_the_same_thing_has_the_same_key_and_carries_its_time(some: list[Any], at: float) -> None:
    key = Key.of(*some, at=at)
    assert key == Key.of(*some, at=at)
    assert key.created == at
    read = uuid.UUID(key)
    assert (read.version, read.variant, str(read)) == (7, uuid.RFC_4122, key)
    assert Key(key.upper()) == key


@given(st.lists(parts, min_size=1, max_size=3), st.lists(parts, min_size=1, max_size=3), times)
def test_another_thing_has_another_key(one: list[Any], other: list[Any], at: float) -> None:
    def text(part: Any) -> bytes:
        return part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")

    same = [text(part) for part in one] == [text(part) for part in other]
    assert (Key.of(*one, at=at) == Key.of(*other, at=at)) is same


def test_parts_do_not_run_into_each_other() -> None:
    assert Key.of("ab", "c", at=AT) != Key.of("a", "bc", at=AT)
    assert Key.of("a", at=AT) != Key.of("a", at=AT + 0.001)


def test_an_id_is_the_same_as_a_number_and_as_a_text() -> None:
    class Kind(enum.StrEnum):
        ORDER = "order"

    class Number(enum.IntEnum):
        SEVEN = 7

    assert Key.of(7, at=AT) == Key.of("7", at=AT) == Key.of(Number.SEVEN, at=AT)
    assert Key.of(Kind.ORDER, at=AT) == Key.of("order", at=AT)


@given(st.datetimes(datetime(1970, 1, 2), datetime(9000, 1, 1)), st.integers(-14, 14))  # noqa: DTZ001
def test_a_datetime_is_its_instant_wherever_it_is_told(naive: datetime, hours: int) -> None:
    at = naive.replace(tzinfo=UTC)
    there = at.astimezone(timezone(timedelta(hours=hours)))
    assert Key.of("a", at=at) == Key.of("a", at=there)
    assert abs(Key.of("a", at=at).created - at.timestamp()) < 0.0011


def test_new_keys_differ_and_are_of_now() -> None:
    keys = [Key.new() for _ in range(1000)]
    assert len(set(keys)) == 1000
    assert abs(keys[0].created - time.time()) < 5
    assert [key[:13] for key in keys] == sorted(key[:13] for key in keys)


def test_a_key_is_the_same_in_another_process() -> None:
    code = f"from brownout._key import Key; print(Key.of('order', 7, at={AT}))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        told.stdout.strip() == Key.of("order", 7, at=AT) == "01a0c450-6c7d-799f-95ac-6e3aece4ea98"
    )


def test_a_key_stays_a_key() -> None:
    key = Key.of("a", at=AT)
    for same in (copy.deepcopy(key), pickle.loads(pickle.dumps(key)), Key(key)):
        assert (same, type(same)) == (key, Key)
    assert repr(key) == f"Key('{key}')"


@pytest.mark.parametrize(
    "part", [None, "", b"", True, 1.5, pytest.param(object(), id="an object"), ["a"]], ids=repr
)
def test_what_names_no_one_thing_is_refused(part: Any) -> None:
    with pytest.raises(TypeError, match="names no one thing"):
        Key.of("order", part, at=AT)


NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001


@pytest.mark.parametrize("at", [nan, inf, -1.0, 1e15, True, "now", None, NAIVE], ids=repr)
def test_what_is_no_time_is_refused(at: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="seconds since 1970"):
        Key.of("order", at=at)


def test_nothing_names_nothing() -> None:
    with pytest.raises(TypeError, match="needs something that names the work"):
        Key.of(at=AT)


@pytest.mark.parametrize(
    "text",
    ["", "order-1", 7, str(uuid.UUID(int=0)), "x" * 5000,
     "019ebd66-1ffd-4e2a-8a59-000000000000", "019ebd66-1ffd-7e2a-8a59-000000000000\n"],
)  # fmt: skip
def test_what_is_no_key_is_refused_in_one_line(text: Any) -> None:
    with pytest.raises(ValueError, match="is no UUID of version 7") as refused:
        Key(text)
    assert len(str(refused.value)) < 300
