"""What a call brings: its key, how long its caller would wait, what work it asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brownout.ledger.http.fields import key, length, preferred
from brownout.ledger.http.fingerprint import fingerprint
from brownout.ledger.http.problem import PREFIX, Problem, named, seconds

KEY = "01929b4e-7a2f-7c3d-8e4f-5a6b7c8d9e0f"


def sent(*values: str, name: bytes = b"idempotency-key") -> list[tuple[bytes, bytes]]:
    return [(name, value.encode("latin-1")) for value in values]


@pytest.mark.parametrize(
    "text", [KEY, f'"{KEY}"', f"  {KEY} ", f' "{KEY}" ', f'"{KEY}"; v=1', f'"{KEY}";v']
)
def test_a_key_is_read_bare_and_quoted(text: str) -> None:
    assert key(sent(text)) == KEY


def test_the_header_s_name_is_read_in_any_case() -> None:
    assert key([(b"Idempotency-Key", KEY.encode())]) == KEY


def test_no_key_is_none() -> None:
    assert key([(b"host", b"shop")]) is None


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (["a", "b"], "key-malformed"),
        ([KEY, KEY], "key-malformed"),
        ([""], "key-malformed"),
        (['""'], "key-malformed"),
        ([f'"{KEY}'], "key-malformed"),
        ([f'"{KEY}" x'], "key-malformed"),
        (['"a"b"'], "key-malformed"),
        (["x" * 65], "key-too-long"),
        (["x" * 10_000], "key-too-long"),
    ],
)
def test_what_is_no_key_is_a_problem(values: list[str], name: str) -> None:
    with pytest.raises(Problem) as found:
        key(sent(*values))
    assert found.value.name == name
    assert found.value.status == 400
    assert found.value.outcome == "not-started"


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=20))
def test_quotes_and_backslashes_come_back(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    assert key(sent(f'"{quoted}"')) == text


@given(st.binary(max_size=80))
def test_no_bytes_are_anything_but_a_text_or_a_problem(value: bytes) -> None:
    try:
        found = key([(b"idempotency-key", value)])
    except Problem as problem:
        assert problem.answer().status == 400  # noqa: PT017 - either is right
    else:
        assert found


@pytest.mark.parametrize(
    ("lines", "wait"),
    [
        ([], 0.0),
        (["wait=5"], 5.0),
        (["respond-async, wait=10"], 10.0),
        (["respond-async; x=1, WAIT = 7"], 7.0),
        (['wait="3"'], 3.0),
        (["return=minimal", "wait=2; a"], 2.0),
        (["wait=1, wait=9"], 1.0),  # RFC 7240: the first one counts
        (["wait=-1"], 0.0),
        (["wait=many"], 0.0),
        (["wait"], 0.0),
        (["waits=5"], 0.0),
        (["wait=99999999999999999999"], 86_400.0),
        (["wait=²"], 0.0),
        (["", ",,;="], 0.0),
    ],
)
def test_how_long_a_caller_would_wait(lines: list[str], wait: float) -> None:
    assert preferred(sent(*lines, name=b"prefer")) == wait


@pytest.mark.parametrize(
    ("value", "said"), [("12", 12), ("0", 0), ("-1", None), ("1e3", None), ("²", None), ("", None)]
)
def test_how_long_a_body_is_said_to_be(value: str, said: int | None) -> None:
    assert length(sent(value, name=b"content-length")) == said
    assert length([]) is None


# -------------------------------------------------------------------------------------- fingerprint


def of(body: bytes = b"", **other: Any) -> bytes:
    asked: dict[str, Any] = {"method": "POST", "path": b"/pay", "query": b"", **other}
    return fingerprint(body=body, **asked)


def test_a_fingerprint_tells_every_part_apart_and_has_16_bytes() -> None:
    ways = [
        of(),
        of(b"x"),
        of(method="PUT"),
        of(path=b"/pay/"),
        of(query=b"a=1"),
        of(path=b"/paya=1"),
        of(path=b"/pa", query=b"y"),
    ]
    assert len(set(ways)) == len(ways)
    assert {len(way) for way in ways} == {16}
    assert of(method="post") == of()


def test_json_counts_by_its_text_and_on_demand_by_what_it_says() -> None:
    one, two = b'{"a": 1, "b": [1.0, "x"]}', b'{"b":[1.0,"x"],"a":1}'
    assert of(one) != of(two)
    assert of(one, canonical_json=True) == of(two, canonical_json=True)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (b'{"a": 1}', b'{"a": 2}'),
        (b'{"a": 1}', b'{"a": 1.0}'),
        (b'{"a": 1}', b'{"a": "1"}'),
        (b"[1, 2]", b"[2, 1]"),
        (b'{"a": 1, "a": 2}', b'{"a": 2}'),
        (b'{"a": 1, "a": 2}', b'{"a": 2, "a": 1}'),
        (b"10000000000000000000000001", b"10000000000000000000000002"),
        (b"1e400", b"1e500"),
        (b"\xff", b"\xfe"),
        (b"[" * 100_000, b"[" * 100_001),
        (b"null", b""),
    ],
)
def test_what_says_something_else_stays_something_else(one: bytes, two: bytes) -> None:
    assert of(one, canonical_json=True) != of(two, canonical_json=True)


# ------------------------------------------------------------------------------------------ problem


def test_a_problem_is_an_answer_that_a_program_can_tell() -> None:
    problem = Problem("running", "Ask again.", retry_after=0.2)
    sent = problem.answer()
    told = json.loads(sent.body)
    assert (sent.status, told["status"]) == (409, 409)
    assert told["type"] == PREFIX + "running" == "urn:brownout:problem:running"
    headers = dict(sent.headers)
    assert headers["content-type"] == "application/problem+json"
    assert headers["outcome"] == "running"
    assert headers["retry-after"] == "1"
    assert headers["content-length"] == str(len(sent.body))
    assert named(sent.body) == "running"


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b'"running"', b'{"type": "running"}', b'{"type": 1}', b"[" * 100_000,
     b'{"type": "urn:brownout:problem:nothing-like-it"}'],
)  # fmt: skip
def test_what_is_not_ours_is_not_taken_for_it(body: bytes) -> None:
    assert named(body) == ""


@pytest.mark.parametrize(("span", "text"), [(0.0, "1"), (0.2, "1"), (1.2, "2"), (1e9, "3600")])
def test_a_span_is_whole_seconds(span: float, text: str) -> None:
    assert seconds(span) == text
