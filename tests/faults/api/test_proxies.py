"""Proxies over the API: made, shown, changed, populated, reset, deleted; every code and error body."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import Any

import pytest

from tests.faults.api.speak import TARGET, Api, dial, ending, round_trip


def free() -> str:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return "127.0.0.1:{}".format(*listener.getsockname()[1:])


def refused(listen: str) -> bool:
    try:
        dial(listen).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it listened, and nobody is at its upstream
        return False
    return False


# ------------------------------------------------------------------------------------------- make


def test_none_are_there_at_first(api: Api) -> None:
    assert api.get("/proxies") == {}


def test_a_new_one_is_told_in_full(api: Api, upstream: str) -> None:
    told = api.ask("POST", "/proxies", {"name": "p", "upstream": upstream, "listen": "127.0.0.1:0"})
    assert told.code == 201
    assert told.headers["content-type"] == "application/json"
    listen = told.body.pop("listen")
    assert told.body == {"name": "p", "upstream": upstream, "enabled": True, "toxics": []}
    assert not listen.endswith(":0")
    with closing(dial(listen)) as connection:
        round_trip(connection)


def test_it_is_shown_alone_and_among_all(api: Api) -> None:
    api.proxy(name="a")
    api.proxy(name="b")
    all_ = api.get("/proxies")
    assert list(all_) == ["a", "b"]
    assert api.get("/proxies/a") == all_["a"]


@pytest.mark.parametrize(
    ("listen", "begins"),
    [
        (None, "127.0.0.1:"),
        ("", "127.0.0.1:"),
        (":0", "127.0.0.1:"),
        ("localhost:0", "127.0.0.1:"),
        ("127.0.0.1:0", "127.0.0.1:"),
        ("127.8.9.10:0", "127.8.9.10:"),
        ("[::1]:0", "[::1]:"),
    ],
)
def test_it_listens_on_this_machine(
    api: Api, upstream: str, listen: str | None, begins: str
) -> None:
    real = api.proxy(upstream, listen=listen)
    assert real.startswith(begins)
    with closing(dial(real)) as connection:
        round_trip(connection)


def test_a_disabled_one_does_not_listen_until_it_is_enabled(api: Api) -> None:
    listen = free()
    assert api.proxy(listen=listen, enabled=False) == listen
    assert api.get("/proxies/p")["enabled"] is False
    assert refused(listen)
    assert api.ask("PATCH", "/proxies/p", {"enabled": True}).code == 200
    assert not refused(listen)


def test_null_is_absent(api: Api) -> None:
    api.proxy(enabled=None, listen=None)
    assert api.get("/proxies/p")["enabled"] is True
    assert api.ask("POST", "/proxies", {"name": None, "upstream": TARGET}).code == 400


def test_names_of_fields_ignore_case_and_more_fields_are_ignored(api: Api) -> None:
    told = api.ask("POST", "/proxies", {"Name": "p", "UPSTREAM": TARGET, "colour": "red"})
    assert told.code == 201


def test_a_name_may_hold_anything_printable(api: Api) -> None:
    api.proxy(name="a/b ö?")
    assert api.get("/proxies/a%2Fb%20%C3%B6%3F")["name"] == "a/b ö?"
    assert api.ask("DELETE", "/proxies/a%2Fb%20%C3%B6%3F").code == 204


BAD = "bad request body: "
MISSING = "missing required field: "
WRONG: dict[str, tuple[Any, str]] = {
    "no name": ({"upstream": TARGET}, f"{MISSING}name"),
    "empty name": ({"name": "", "upstream": TARGET}, f"{MISSING}name"),
    "no upstream": ({"name": "p"}, f"{MISSING}upstream"),
    "empty upstream": ({"name": "p", "upstream": ""}, f"{MISSING}upstream"),
    "name of type": ({"name": 5, "upstream": TARGET}, f"{BAD}name is a string, not 5"),
    "two lines": ({"name": "p\n", "upstream": TARGET}, f"{BAD}name is one line"),
    "long name": ({"name": "p" * 256, "upstream": TARGET}, f"{BAD}name is one line"),
    "upstream of type": (
        {"name": "p", "upstream": ["x"]},
        f"{BAD}upstream is a string, not a list",
    ),
    "no port": ({"name": "p", "upstream": "x"}, f"{BAD}upstream: 'x' is no address"),
    "unix": ({"name": "p", "upstream": "unix:/run/x"}, f"{BAD}upstream: 'unix:/run/x' is no"),
    "enabled of type": (
        {"name": "p", "upstream": TARGET, "enabled": "yes"},
        f"{BAD}enabled is true",
    ),
    "listen of type": ({"name": "p", "upstream": TARGET, "listen": 1}, f"{BAD}listen is a string"),
    "listen": ({"name": "p", "upstream": TARGET, "listen": "x"}, f"{BAD}listen: 'x' is no"),
    "high port": ({"name": "p", "upstream": TARGET, "listen": ":65536"}, f"{BAD}listen: "),
    "no object": ([], f"{BAD}the body is an object, not a list"),
    "empty": ("", f"{BAD}it is empty"),
    "broken": ("{", f"{BAD}Expecting property name"),
    "nan": ('{"name": NaN}', f"{BAD}JSON has no NaN"),
    "deep": ("[" * 100_000, BAD),
    "no utf-8": (b"\xff\xfe", BAD),
}


@pytest.mark.parametrize(("body", "error"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_made_is_told(api: Api, body: Any, error: str) -> None:
    told = api.ask("POST", "/proxies", body)
    assert (told.code, told.body["status"]) == (400, 400)
    assert told.body["error"].startswith(error)
    assert list(told.body) == ["error", "status"]
    assert api.get("/proxies") == {}


def test_a_name_is_had_once(api: Api) -> None:
    api.proxy()
    told = api.ask("POST", "/proxies", {"name": "p", "upstream": TARGET})
    assert told[:2] == (409, {"error": "proxy already exists", "status": 409})


def test_an_address_in_use_is_told_and_no_proxy_made(api: Api) -> None:
    listen = api.proxy()
    told = api.ask("POST", "/proxies", {"name": "q", "upstream": TARGET, "listen": listen})
    assert (told.code, told.body["status"]) == (500, 500)
    assert listen in told.body["error"]
    assert list(api.get("/proxies")) == ["p"]


# ----------------------------------------------------------------------------------------- change


@pytest.mark.parametrize("verb", ["POST", "PATCH"])
def test_an_upstream_is_changed_and_toxics_stay(api: Api, upstream: str, verb: str) -> None:
    listen = api.proxy()
    api.toxic("latency", attributes={"latency": 1})
    told = api.ask(verb, "/proxies/p", {"upstream": upstream})
    assert told.code == 200
    assert (told.body["upstream"], told.body["listen"]) == (upstream, listen)
    assert [toxic["name"] for toxic in told.body["toxics"]] == ["latency_downstream"]
    with closing(dial(listen)) as connection:
        round_trip(connection)


def test_a_proxy_moves_and_leaves_its_old_address(api: Api, upstream: str) -> None:
    old, new = api.proxy(upstream), free()
    with closing(dial(old)) as before:
        round_trip(before)
        assert api.ask("PATCH", "/proxies/p", {"listen": new}).body["listen"] == new
        assert ending(before) in ("closed", "reset")
    assert refused(old)
    with closing(dial(new)) as connection:
        round_trip(connection)


@pytest.mark.parametrize(
    "same", [{}, {"enabled": True}, {"enabled": None, "listen": None}, {"name": "q"}]
)
def test_an_update_that_changes_nothing_ends_no_connection(
    api: Api, upstream: str, same: dict[str, Any]
) -> None:
    listen = api.proxy(upstream)
    with closing(dial(listen)) as connection:
        round_trip(connection)
        for body in (same, {"listen": listen.replace("127.0.0.1", "localhost")}):
            told = api.ask("POST", "/proxies/p", body)
            assert (told.code, told.body["name"], told.body["listen"]) == (200, "p", listen)
        round_trip(connection)


def test_disabling_refuses_and_ends_connections_and_keeps_the_address(
    api: Api, upstream: str
) -> None:
    listen = api.proxy(upstream)
    with closing(dial(listen)) as connection:
        round_trip(connection)
        told = api.ask("POST", "/proxies/p", {"enabled": False})
        assert (told.code, told.body["enabled"], told.body["listen"]) == (200, False, listen)
        assert ending(connection) in ("closed", "reset")
    assert refused(listen)
    assert api.ask("POST", "/proxies/p", {"enabled": True}).body["listen"] == listen
    with closing(dial(listen)) as connection:
        round_trip(connection)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"enabled": 1}, "bad request body: enabled is true or false, not 1"),
        ({"listen": 7}, "bad request body: listen is a string, not 7"),
        ({"upstream": "here"}, "bad request body: upstream: 'here' is no address"),
        ("nonsense", "bad request body: Expecting value"),
    ],
)
def test_a_wrong_update_changes_nothing(api: Api, body: Any, error: str) -> None:
    api.proxy()
    before = api.get("/proxies/p")
    told = api.ask("PATCH", "/proxies/p", body)
    assert told.code == 400
    assert told.body["error"].startswith(error)
    assert api.get("/proxies/p") == before


def test_a_move_to_an_address_in_use_is_told(api: Api) -> None:
    taken = api.proxy(name="q")
    api.proxy()
    told = api.ask("PATCH", "/proxies/p", {"listen": taken})
    assert told.code == 500
    assert taken in told.body["error"]
    assert api.get("/proxies/p")["enabled"] is False


def test_a_deleted_one_is_gone_with_its_connections(api: Api, upstream: str) -> None:
    listen = api.proxy(upstream)
    with closing(dial(listen)) as connection:
        round_trip(connection)
        told = api.ask("DELETE", "/proxies/p")
        assert (told.code, told.body) == (204, b"")
        assert ending(connection) in ("closed", "reset")
    assert refused(listen)
    assert api.get("/proxies") == {}


@pytest.mark.parametrize(
    "ask",
    [
        "GET /proxies/q",
        "POST /proxies/q",
        "PATCH /proxies/q",
        "DELETE /proxies/q",
        "GET /proxies/q/toxics",
        "POST /proxies/q/toxics",
        "GET /proxies/q/toxics/t",
        "POST /proxies/q/toxics/t",
        "PATCH /proxies/q/toxics/t",
        "DELETE /proxies/q/toxics/t",
    ],
)
def test_of_a_proxy_that_is_not_there(api: Api, ask: str) -> None:
    verb, path = ask.split()
    told = api.ask(verb, path, {})
    assert told[:2] == (404, {"error": "proxy not found", "status": 404})


# --------------------------------------------------------------------------------------- populate


def test_populate_makes_all(api: Api) -> None:
    told = api.ask(
        "POST", "/populate", [{"name": n, "upstream": TARGET, "enabled": n == "a"} for n in "ab"]
    )
    assert told.code == 201
    assert [(each["name"], each["enabled"]) for each in told.body["proxies"]] == [
        ("a", True),
        ("b", False),
    ]
    assert list(api.get("/proxies")) == ["a", "b"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_populate_leaves_an_equal_one_alone(api: Api, upstream: str, host: str) -> None:
    listen = api.proxy(upstream)
    api.toxic("latency", attributes={"latency": 1})
    with closing(dial(listen)) as connection:
        round_trip(connection)
        again = {"name": "p", "upstream": upstream, "listen": listen.replace("127.0.0.1", host)}
        told = api.ask("POST", "/populate", [again])
        assert (told.code, told.body["proxies"][0]["listen"]) == (201, listen)
        assert len(told.body["proxies"][0]["toxics"]) == 1
        round_trip(connection)


def test_populate_replaces_one_that_differs(api: Api, upstream: str) -> None:
    listen = api.proxy()
    api.toxic("latency")
    told = api.ask("POST", "/populate", [{"name": "p", "upstream": upstream, "listen": listen}])
    assert told.code == 201
    assert told.body["proxies"][0]["upstream"] == upstream
    assert told.body["proxies"][0]["toxics"] == []
    with closing(dial(listen)) as connection:
        round_trip(connection)


@pytest.mark.parametrize("body", [[], "null"])
def test_populate_with_nothing(api: Api, body: Any) -> None:
    assert api.ask("POST", "/populate", body)[:2] == (201, {"proxies": []})


GOOD = {"name": "good", "upstream": TARGET}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ([GOOD, {"upstream": TARGET}], "missing required field: name at proxy 2"),
        ([GOOD, {"name": "q"}], "missing required field: upstream at proxy 2"),
        ([GOOD, {**GOOD, "enabled": 1}], "bad request body: enabled is true or false, not 1"),
        ([GOOD, 3], "bad request body: proxy 2 is an object, not 3"),
        (GOOD, "bad request body: the body is a list of proxies, not an object"),
        ("[", "bad request body: Expecting value"),
        ([{**GOOD, "name": str(n)} for n in range(1001)], "there are at most 1000 proxies"),
    ],
)
def test_populate_checks_all_before_it_makes_any(api: Api, body: Any, error: str) -> None:
    told = api.ask("POST", "/populate", body)
    assert (told.code, told.body["status"], told.body["proxies"]) == (400, 400, [])
    assert told.body["error"].startswith(error)
    assert api.get("/proxies") == {}


def test_populate_tells_what_it_made_before_it_failed(api: Api) -> None:
    taken = api.proxy()
    told = api.ask("POST", "/populate", [GOOD, {**GOOD, "name": "bad", "listen": taken}])
    assert (told.code, told.body["status"]) == (500, 500)
    assert [each["name"] for each in told.body["proxies"]] == ["good"]
    assert list(api.get("/proxies")) == ["p", "good"]


def test_what_populate_cannot_replace_keeps_its_toxics(api: Api, upstream: str) -> None:
    taken, listen = api.proxy(name="q"), api.proxy(upstream)
    api.toxic("latency", attributes={"latency": 1})
    told = api.ask("POST", "/populate", [{"name": "p", "upstream": upstream, "listen": taken}])
    assert told.code == 500
    update = {"attributes": {"latency": 150}}
    assert api.ask("PATCH", "/proxies/p/toxics/latency_downstream", update).code == 200
    assert api.ask("PATCH", "/proxies/p", {"enabled": True}).body["listen"] == listen
    with closing(dial(listen)) as connection:
        assert round_trip(connection) >= 0.145


# ------------------------------------------------------------------------------------------- reset


def test_reset_enables_all_and_ends_all_toxics(api: Api, upstream: str) -> None:
    listens = [api.proxy(upstream, name=name) for name in "ab"]
    api.toxic("timeout", "a")
    api.ask("POST", "/proxies/b", {"enabled": False})
    assert api.ask("POST", "/reset")[:2] == (204, b"")
    for listen in listens:
        with closing(dial(listen)) as connection:
            round_trip(connection)
    assert all(each["enabled"] and not each["toxics"] for each in api.get("/proxies").values())


def test_reset_goes_on_past_one_that_cannot_start(api: Api, upstream: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        api.proxy(name="a", listen="127.0.0.1:{}".format(*taken.getsockname()[1:]), enabled=False)
        api.proxy(upstream, name="b", enabled=False)
        told = api.ask("POST", "/reset")
    assert told.code == 500
    assert [each["enabled"] for each in api.get("/proxies").values()] == [False, True]


# ----------------------------------------------------------------------------------------- the rest


def test_the_version_is_the_toxiproxy_that_it_stands_in_for(api: Api) -> None:
    assert api.get("/version") == {"version": "2.12.0"}


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/proxies/", "/proxies//toxics", "/proxies/p/toxics/t/x", "/Version"]
)
def test_no_such_path(api: Api, path: str) -> None:
    assert api.ask("GET", path)[:2] == (404, {"error": "404 page not found", "status": 404})


@pytest.mark.parametrize(
    ("verb", "path", "allow"),
    [
        ("PUT", "/proxies", "GET, HEAD, OPTIONS, POST"),
        ("GET", "/reset", "OPTIONS, POST"),
        ("GET", "/populate", "OPTIONS, POST"),
        ("POST", "/version", "GET, HEAD, OPTIONS"),
        ("PUT", "/proxies/p", "DELETE, GET, HEAD, OPTIONS, PATCH, POST"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(api: Api, verb: str, path: str, allow: str) -> None:
    told = api.ask(verb, path, {})
    assert (told.code, told.headers["allow"]) == (405, allow)
    options = api.ask("OPTIONS", path)
    assert (options.code, options.headers["allow"]) == (204, allow)


def test_every_answer_has_a_number_of_its_own(api: Api) -> None:
    ids = [api.ask("GET", "/version").headers["x-toxiproxy-request-id"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert {len(one) for one in ids} == {20}


def test_proxies_are_bounded(api: Api) -> None:
    some = [{"name": str(n), "upstream": TARGET, "enabled": False} for n in range(1000)]
    assert api.ask("POST", "/populate", some).code == 201
    told = api.ask("POST", "/proxies", {"name": "one more", "upstream": TARGET})
    assert (told.code, told.body["error"]) == (
        400,
        "there are at most 1000 proxies: delete some first",
    )
