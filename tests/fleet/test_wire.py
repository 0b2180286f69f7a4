import json
from math import inf
from typing import Any

import pytest

from brownout import State
from brownout._core.recent import Recent
from brownout._core.sketch import Latencies
from brownout.fleet import wire
from tests.fleet.sample import NOW, observer, verdict


def body(**changed: Any) -> str:
    told = json.loads(wire.write([verdict(State.DEGRADED)], lambda instant: instant))
    return json.dumps(told | changed)


def operation(**changed: Any) -> str:
    told = json.loads(body())
    told["operations"][0] |= changed
    return json.dumps(told)


def test_what_is_written_is_read() -> None:
    told = [verdict(State.DEGRADED, claim=True, p99=inf), verdict(operation="write", claim=True)]
    seen = wire.read(observer(), "quotes", wire.write(told, lambda instant: instant))
    assert seen.verdicts == tuple(told)
    assert (seen.claim, seen.in_flight, seen.left_out) == (True, 4, 0)
    assert seen.contradiction


def test_instants_become_wall_seconds() -> None:
    seen = wire.read(observer(), "quotes", wire.write([verdict()], lambda instant: instant + 5))
    assert (seen.verdicts[0].since, seen.verdicts[0].at) == (NOW - 31, NOW + 5)


def test_a_target_without_calls_has_an_empty_body() -> None:
    seen = wire.read(observer(), "quotes", wire.write([], lambda instant: instant))
    assert (seen.state, seen.verdicts, seen.claim) == (None, (), None)


def test_a_body_is_bounded_and_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [verdict(operation=f"op {n}" + "x" * 10_000, because="y" * 10_000) for n in range(33)]
    text = wire.write(many, lambda instant: instant)
    assert len(text) <= wire.MOST_BODY_BYTES
    monkeypatch.setattr(wire, "MOST_BODY_BYTES", 5000)
    seen = wire.read(observer(), "quotes", wire.write(many, lambda instant: instant))
    assert seen.left_out + len(seen.verdicts) == 33
    assert 0 < len(seen.verdicts) < 33


@pytest.mark.parametrize(
    ("told", "read"),
    [
        (Latencies(3, ((-56, 100, 3), (0, 2, 0))), Latencies(3, ((-56, 100, 3), (0, 2, 0)))),
        (
            Latencies(2, ((0, 7, 1), (40, 10**12, 0))),
            Latencies(2, ((0, 7, 1), (40, 10**12, 0))),
        ),
        (Latencies(5, ((0, 7, 0), (3, 1, 1), (4, 1, 0))), Latencies(3, ((0, 8, 1), (1, 1, 0)))),
        (Latencies(3, ((-900, 1, 0), (100, 1, 0))), Latencies(2, ((-56, 1, 0), (50, 1, 0)))),
    ],
)
def test_latencies_keep_their_scale_and_become_coarser_where_they_must(
    told: Latencies, read: Latencies
) -> None:
    body = wire.write([verdict().__replace__(latencies=told)], lambda instant: instant)
    assert wire.read(observer(), "quotes", body).verdicts[0].latencies == read


def test_a_body_without_latencies_is_read() -> None:
    told = json.loads(body())
    del told["operations"][0]["latencies"]
    seen = wire.read(observer(), "quotes", json.dumps(told))
    assert seen.verdicts[0].latencies.rows == ()


def test_a_body_of_an_older_writer_is_read() -> None:
    told = json.loads(body())
    for name in ("recent", "own"):
        del told["operations"][0][name]
    seen = wire.read(observer(), "quotes", json.dumps(told))
    assert (seen.verdicts[0].recent, seen.own) == ((), "")


def test_the_latest_calls_and_own_trouble_are_told() -> None:
    one = verdict().__replace__(recent=(Recent(0.5, 1, 7), Recent(30.0, 2, 900)), own="late\x1b[2J")
    seen = wire.read(observer(), "quotes", wire.write([one], lambda instant: instant))
    assert seen.verdicts[0].recent == one.recent
    assert seen.own == "late"


def test_latencies_are_left_out_before_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = Latencies(3, tuple((index, 1000, 1000) for index in range(-100, 60)))
    many = [verdict(operation=f"op {n}").__replace__(latencies=fine) for n in range(33)]
    monkeypatch.setattr(wire, "MOST_BODY_BYTES", 30_000)
    text = wire.write(many, lambda instant: instant)
    assert len(text) <= 30_000
    seen = wire.read(observer(), "quotes", text)
    assert (len(seen.verdicts), seen.left_out) == (33, 0)
    assert seen.verdicts[0].latencies.rows == ()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("quotes", "quotes"),
        ("café 数", "café 数"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jx\x1bcy\x1b(Bz", "xyz"),
        ("a\nb\tc\r\x00d\x7f", "a b c d"),
        ("\u202egnp\u2066.exe\u200b\ufeff", "gnp.exe"),
        ("a\u2028b\u3000c", "a b c"),
        ("\ud800x", "x"),
        ("x" * 101, "x" * 99 + "…"),
    ],
)
def test_a_text_can_do_nothing_to_a_terminal(text: str, plain: str) -> None:
    assert wire.clean(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        "[" * 60_000,
        '{"claim": ' + "[" * 30_000,
        body(claim="yes"),
        body(claim=1),
        body(operations={}),
        body(operations=[[]]),
        body(operations=[None] * 34),
        body(left_out=None),
        body(left_out="1"),
        operation(state="GREEN"),
        operation(state=1),
        operation(because=None),
        operation(operation=["x"]),
        operation(operation="x" * 401),
        operation(extent=True),
        operation(extent=1e300),
        operation(extent=10**400),
        operation(since="soon"),
        operation(numbers=[["calls", 1, None]]),
        operation(numbers=[["calls", "many", None, "1"]]),
        operation(numbers=[["calls", 1, None, "1"]] * 65),
        operation(shape=[1] * 65),
        operation(shape=[-1]),
        operation(shape=["█"]),
        operation(recent={}),
        operation(recent=[[1, 2]]),
        operation(recent=[[1, -2, 3]]),
        operation(recent=[[1, 2, 3]] * 17),
        operation(own=None),
        operation(latencies=[]),
        operation(latencies={}),
        operation(latencies={"scale": 3}),
        operation(latencies={"scale": 21, "rows": []}),
        operation(latencies={"scale": 3.0, "rows": []}),
        operation(latencies={"scale": -1, "rows": []}),
        operation(latencies={"scale": 3, "rows": [[1, 2]]}),
        operation(latencies={"scale": 3, "rows": [[1, -2, 0]]}),
        operation(latencies={"scale": 3, "rows": [[1, True, 0]]}),
        operation(latencies={"scale": 3, "rows": [[1, 10**15, 0]]}),
        operation(latencies={"scale": 3, "rows": [[10**6, 1, 0]]}),
        operation(latencies={"scale": 3, "rows": [[1.5, 1, 0]]}),
        operation(latencies={"scale": 3, "rows": [[1, 1, 0]] * 513}),
        operation(extent=float("nan")),
        operation(extent=float("inf")),
        body().replace("0.25", "1e999"),
        "x" * 70_000,
        7,
        None,
        b"{}",
    ],
)
def test_what_nobody_of_ours_has_written_is_a_value_error(text: object) -> None:
    with pytest.raises(ValueError):
        wire.read(observer(), "quotes", text)


def test_sentences_and_names_are_cleaned() -> None:
    text = operation(because="\x1b[2Jall\nis well" + "!" * 1000, operation="\u202eread")
    seen = wire.read(observer(), "\x1b[31mquotes", text)
    assert seen.target == "quotes"
    assert seen.verdicts[0].operation == "read"
    assert seen.verdicts[0].because.startswith("all is well!")
    assert len(seen.verdicts[0].because) == wire.SENTENCE_CHARACTERS


ROW = ("id", "load", "zone", "host", 7, 1.0, 2.0, None, 0, 0)


@pytest.mark.parametrize(
    "row",
    [
        (None, *ROW[1:]),
        (*ROW[:1], b"load", *ROW[2:]),
        (*ROW[:4], "7", *ROW[5:]),
        (*ROW[:6], None, *ROW[7:]),
        (*ROW[:7], "then", *ROW[8:]),
        ROW[:-1],
    ],
)
def test_an_observer_of_wrong_types_is_a_value_error(row: tuple[object, ...]) -> None:
    with pytest.raises(ValueError):
        wire.observer(row)


def test_an_observer_is_cleaned() -> None:
    assert wire.observer(("id", "\x1b[1m", *ROW[2:])).name == "?"
    assert wire.observer(ROW)[:5] == ("id", "load", "zone", "host", 7)
