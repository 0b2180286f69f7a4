"""Whom a fault of HTTP hits, and what happens to those that are under way when it ends: in each form."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from brownout.errors import ConfigurationError
from brownout.fault import Cut, Drop, Duplicate, Hang, Latency, Slice, Stall, Status, Wrong
from tests.faults.http.conftest import BODY

if TYPE_CHECKING:
    from tests.faults.http.conftest import Caller


def codes(one: Caller, number: int, **how: Any) -> list[int]:
    return [one.call(**how).status_code for _ in range(number)]


def test_by_route_in_turn_and_at_first(one: Caller) -> None:
    with one.place.make(Status(code=503, match="POST /pay", first=2)):
        assert codes(one, 2) == [200, 200]  # these do not count
        assert codes(one, 3, method="POST", path="/pay?a=b") == [503, 503, 200]
    with one.place.make(Status(code=503, match="GET /a$", nth=2)):
        assert codes(one, 4, path="/a") == [200, 503, 200, 503]
        assert codes(one, 2, path="/ab") == [200, 200]


def test_by_header(one: Caller) -> None:
    with one.place.make(Status(code=418, header=("X-User", "4[0-9]"))) as made:
        assert one.call(headers={"x-user": "42"}).status_code == 418
        assert one.call(headers={"x-user": "52"}).status_code == 200
        assert one.call().status_code == 200
    assert "4[0-9]" not in str(made.fault)  # it may be a secret, and goes on record


def test_by_share_as_the_seed_says(one: Caller) -> None:
    seen = []
    for _ in range(2):
        with one.place.make(Status(code=500, share=0.5), name="half"):
            seen.append(codes(one, 12))
    assert seen[0] == seen[1]
    assert {200, 500} == set(seen[0])


def test_by_client(one: Caller, form: str) -> None:
    if form == "transport":
        with pytest.raises(ConfigurationError, match="inside a client"):
            one.place.make(Status(code=500, client="127.0.0.1"))
        return
    with one.place.make(Status(code=500, client="127.0.0.0/8")):
        assert one.call().status_code == 500
    with one.place.make(Status(code=500, client="10.0.0.0/8")):
        assert one.call().status_code == 200


def test_what_can_not_be_made_is_refused(one: Caller) -> None:
    for fault in (Hang(), Cut(at="accept"), Cut(after_bytes=3)):
        with pytest.raises(ConfigurationError, match="in HTTP"):
            one.place.make(fault)
    with (
        one.place.make(Latency(seconds=0), name="a"),
        pytest.raises(ConfigurationError, match="already"),
    ):
        one.place.make(Latency(seconds=0), name="a")
    with pytest.raises(ConfigurationError, match='no fault called "a"'):
        one.place.undo("a")
    for wrong in (
        {"code": 700},
        {"code": 500, "header": ("a", "(")},
        {"code": 500, "header": "abc"},
    ):
        with pytest.raises(ConfigurationError):
            Status(**wrong)
    with pytest.raises(ConfigurationError, match="1 MiB"):
        Wrong(body=bytes(2 << 20))
    with pytest.raises(ConfigurationError, match="from 2"):
        Duplicate(times=1)


def test_what_is_told(one: Caller) -> None:
    with one.place.make(Status(code=429, retry_after=1.5, body=b"slow down")):
        answer = one.call()
        assert answer.headers["retry-after"] == "2"
        assert answer.content == b"slow down"
    with one.place.make(Wrong(body=b"<html>")):
        answer = one.call()
        assert (answer.content, answer.headers["x-shop"]) == (b"<html>", "yes")
        assert one.call(method="HEAD").headers["content-length"] == "1000"
    with one.place.make(Slice(bytes=7)), one.place.make(Stall(after_bytes=300, seconds=0.01)):
        assert one.call().content == BODY
        assert one.call(path="/chunked").content == BODY


def test_faults_add_up(one: Caller) -> None:
    with one.place.make(Status(code=503)), one.place.make(Latency(seconds=0.1)):
        began = time.monotonic()
        assert one.call().status_code == 503
        assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (Latency(seconds=60), "200"),
        (Latency(seconds=60, stream="upstream"), "200"),
        (Stall(after_bytes=300), "200"),
        (Slice(bytes=10, seconds=60), "200"),
        (Cut(at="reply", after_seconds=60), "200"),
        (Drop(), "RemoteProtocolError"),
        (Drop(stream="downstream"), "RemoteProtocolError"),
    ],
    ids=str,
)
def test_an_undo_wakes_who_waits(one: Caller, fault: Any, seen: str) -> None:
    got: list[str] = []
    before = len(one.place.log)
    calling = threading.Thread(target=lambda: got.append(one.saw(seconds=30.0)))
    with one.place.make(fault) as made:
        calling.start()
        assert one.shop.until(
            lambda: any(each.what not in ("hit", "passed") for each in tuple(made.log)[before:])
        )
    calling.join(10)
    assert not calling.is_alive()
    assert got[0].startswith(seen), got


def test_a_request_that_is_too_long_is_not_executed_twice(one: Caller) -> None:
    long = bytes(1_500_000)
    with one.place.make(Duplicate()) as made:
        assert one.call(method="POST", path="/echo", content=long).content == long
        assert one.shop.executed == [long]
        assert [each.what for each in made.log][-1].startswith("refused: ")
        assert one.call(method="POST", path="/echo", content=b"short").content == b"short"
    assert one.shop.executed[1:] == [b"short", b"short"]


def test_a_lost_answer_was_executed_to_its_end(one: Caller) -> None:
    with one.place.make(Cut(at="reply")):
        assert one.saw().startswith("ReadError")
    assert one.shop.until(lambda: one.shop.ended == 1)


def test_a_body_in_chunks_is_cut(one: Caller) -> None:
    with one.place.make(Cut(at="reply", how="close", after_bytes=300)):
        assert "incomplete chunked read" in one.saw(path="/chunked")
