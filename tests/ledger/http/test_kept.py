"""What of an answer is kept, and what is sent when it is told again."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import pytest

from brownout._core.ledger import HandlerClass, Reply
from brownout.errors import ConfigurationError
from brownout.ledger.http.kept import Capture, keepable, replay
from brownout.ledger.http.routes import UNDECLARED, Routes, path_of

JSON = (("content-type", "application/json"),)


def captured(*parts: bytes, status: int = 201, headers: Any = ()) -> Capture:
    capture = Capture()
    capture.begin(status, headers)
    for at, part in enumerate(parts):
        capture.add(part, more=at < len(parts) - 1)
    return capture


def test_a_small_body_is_kept_whole_however_it_comes() -> None:
    capture = captured(b"a", b"", b"\x00\xff", headers=[(b"Content-Type", b"x/y")])
    assert capture.ended
    assert capture.reply() == Reply(201, (("content-type", "x/y"),), b"a\x00\xff")


def test_64_kib_is_kept_and_one_more_byte_only_as_its_digest() -> None:
    body = os.urandom(65_536)
    assert captured(body).reply() == Reply(201, (), body)
    large = captured(body, b"!")
    assert large.large
    assert large.reply() == Reply(201, (), hashlib.sha256(body + b"!").digest(), whole=False)


def test_of_a_body_that_has_not_ended_nothing_is_said() -> None:
    capture = Capture()
    capture.begin(200, ())
    capture.add(b"some", more=True)
    assert capture.reply() == Reply(200, (), b"", whole=False)


def test_what_belongs_to_a_connection_a_moment_or_a_caller_is_never_kept() -> None:
    kept = keepable(
        [
            (b"Set-Cookie", b"session=1"),
            (b"DATE", b"now"),
            (b"Connection", b"close, X-Hop"),
            (b"X-Hop", b"1"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Content-Length", b"5"),
            (b"Keep-Alive", b"1"),
            (b"Server", b"x"),
            (b"Outcome", b"done"),
            (b"Location", b"/payments/1"),
            (b"X-Two", b"a"),
            (b"X-Two", b"b"),
        ]
    )
    assert kept == (("location", "/payments/1"), ("x-two", "a"), ("x-two", "b"))


def test_headers_have_a_limit() -> None:
    kept = keepable([(b"x-%d" % n, b"v" * 1_000) for n in range(20)] + [(b"location", b"/1")])
    assert sum(len(n) + len(v) for n, v in kept) <= 8_192
    assert ("location", "/1") in kept


# ------------------------------------------------------------------------------------------- replay


def test_a_whole_reply_is_told_as_it_was() -> None:
    sent = replay(Reply(201, JSON, b"{}"))
    assert (sent.status, sent.body) == (201, b"{}")
    assert dict(sent.headers) == {
        "content-type": "application/json",
        "content-length": "2",
        "outcome": "done",
        "idempotent-replayed": "true",
    }


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_gets_no_length(status: int) -> None:
    assert "content-length" not in dict(replay(Reply(status)).headers)


def test_a_reply_that_was_not_kept_is_still_a_success_and_says_where() -> None:
    digest = hashlib.sha256(b"large").digest()
    sent = replay(Reply(201, (*JSON, ("location", "/1")), digest, whole=False))
    headers = dict(sent.headers)
    assert (sent.status, sent.body) == (200, b"")
    assert headers["outcome"] == "done;body=dropped"
    assert headers["location"] == "/1"
    assert headers["content-length"] == "0"
    assert "content-type" not in headers
    assert replay(Reply(404, (), digest, whole=False)).status == 404


def test_a_fact_without_a_reply_is_a_success() -> None:
    sent = replay(None)
    assert sent.status == 200
    assert dict(sent.headers)["outcome"] == "done;body=dropped"


# ------------------------------------------------------------------------------------------- routes


def test_a_route_is_found_by_its_template() -> None:
    routes = Routes(
        {
            "POST /orders/{id}/pay": "atomic",
            "POST /orders/all/pay": HandlerClass.RESUMABLE,
            "put /files/{path:path}": "opaque",
            "POST /a.b": "opaque",
        }
    )
    found = [
        ("POST", "/orders/7/pay", "POST /orders/{id}/pay"),
        ("POST", "/orders/all/pay", "POST /orders/all/pay"),
        ("PUT", "/files/a/b\nc", "PUT /files/{path:path}"),
        ("POST", "/a.b", "POST /a.b"),
        ("POST", "/axb", None),
        ("POST", "/orders//pay", None),
        ("POST", "/orders/7/8/pay", None),
        ("POST", "/orders/7/pay/", None),
        ("GET", "/orders/7/pay", None),
    ]
    for method, path, template in found:
        route = routes.of(method, path)
        assert (route and route.template) == template, path
    assert len(routes.all()) == 4


def test_a_keyed_call_of_no_declared_route_is_opaque_unless_it_only_asks() -> None:
    routes = Routes({"GET /report": "opaque"})
    assert routes.keyed("POST", "/x") == UNDECLARED == ("*", HandlerClass.OPAQUE)
    assert routes.keyed("GET", "/x") is None
    assert routes.keyed("GET", "/report") is not None


def test_a_question_names_a_route_by_its_template_or_by_a_path() -> None:
    routes = Routes({"POST /orders/{id}/pay": "atomic"})
    pay = routes.all()[0]
    assert routes.named("POST /orders/{id}/pay") == pay
    assert routes.named("post /orders/7/pay") == pay
    assert routes.named("POST /mail") == UNDECLARED
    assert routes.named("nonsense") == UNDECLARED


def test_every_fault_of_the_routes_is_told_at_once() -> None:
    wrong: Any = {
        "/pay": "atomic",
        "POST pay": "atomic",
        "POST /a": "exactly-once",
        "POST /{a": "atomic",
        "POST /a?b=1": "atomic",
        "POST /a b": "opaque",
        "POST /" + "a" * 200: "opaque",
        3: "atomic",
    }
    with pytest.raises(ConfigurationError) as found:
        Routes(wrong)
    assert str(found.value).count("\n  - ") == len(wrong)
    assert "atomic, resumable, opaque" in str(found.value)


@pytest.mark.parametrize(
    ("path", "root", "routed"),
    [("/pay", "", "/pay"), ("/v1/pay", "/v1", "/pay"), ("/pay", "/v1", "/pay"),
     ("/v1", "/v1/", "/"), ("/v10/pay", "/v1", "/v10/pay")],
)  # fmt: skip
def test_what_an_app_is_mounted_under_is_no_part_of_the_route(
    path: str, root: str, routed: str
) -> None:
    assert path_of({"path": path, "root_path": root}) == routed
