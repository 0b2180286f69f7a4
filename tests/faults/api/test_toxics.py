"""Toxics over the API: every type with its attributes and defaults, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.seen import until

if TYPE_CHECKING:
    from tests.faults.api.speak import Api

ATTRIBUTES = {
    "latency": ["latency", "jitter"],
    "bandwidth": ["rate"],
    "slow_close": ["delay"],
    "timeout": ["timeout"],
    "reset_peer": ["timeout"],
    "slicer": ["average_size", "size_variation", "delay"],
    "limit_data": ["bytes"],
    "noop": [],
}


@pytest.fixture(autouse=True)
def _proxy(api: Api) -> None:
    api.proxy()


@pytest.mark.parametrize("type_", ATTRIBUTES)
def test_the_defaults_of_a_type(api: Api, type_: str) -> None:
    wanted = {
        "attributes": dict.fromkeys(ATTRIBUTES[type_], 0),
        "name": f"{type_}_downstream",
        "type": type_,
        "stream": "downstream",
        "toxicity": 1.0,
    }
    assert api.toxic(type_) == wanted
    assert api.get("/proxies/p/toxics") == [wanted]
    assert api.get(f"/proxies/p/toxics/{type_}_downstream") == wanted
    assert api.get("/proxies/p")["toxics"] == [wanted]


@pytest.mark.parametrize("type_", ATTRIBUTES)
def test_all_that_is_given_is_kept(api: Api, type_: str) -> None:
    given: dict[str, Any] = {
        "name": "mine",
        "stream": "upstream",
        "toxicity": 0.25,
        "attributes": {name: 10 + n for n, name in enumerate(ATTRIBUTES[type_])},
    }
    assert api.toxic(type_, **given) == {"type": type_, **given}


@pytest.mark.parametrize("type_", [one for one, names in ATTRIBUTES.items() if names])
@pytest.mark.parametrize("verb", ["POST", "PATCH"])
def test_an_update_changes_what_it_names_alone(api: Api, type_: str, verb: str) -> None:
    names = ATTRIBUTES[type_]
    before = api.toxic(type_, toxicity=0.5, attributes=dict.fromkeys(names, 7))
    path = f"/proxies/p/toxics/{type_}_downstream"
    told = api.ask(verb, path, {"attributes": {names[0]: 0}, "stream": "upstream", "name": "x"})
    assert told.code == 200
    assert told.body == {**before, "attributes": {**before["attributes"], names[0]: 0}}
    assert api.ask(verb, path, {"toxicity": 0}).body == {**told.body, "toxicity": 0}
    assert api.get("/proxies/p/toxics") == [{**told.body, "toxicity": 0}]


def test_the_same_type_may_be_there_under_other_names_and_streams(api: Api) -> None:
    api.toxic("latency")
    api.toxic("latency", stream="upstream")
    api.toxic("latency", name="third")
    assert [toxic["name"] for toxic in api.get("/proxies/p/toxics")] == [
        "latency_upstream",  # those of the request come first
        "latency_downstream",
        "third",
    ]


@pytest.mark.parametrize("stream", ["UPSTREAM", "Upstream"])
def test_a_stream_ignores_case(api: Api, stream: str) -> None:
    assert api.toxic("latency", stream=stream)["name"] == "latency_upstream"


def test_null_is_absent(api: Api) -> None:
    nothing: dict[str, Any] = dict.fromkeys(("name", "stream", "toxicity", "attributes"))
    assert api.toxic("timeout", **nothing)["toxicity"] == 1.0
    assert api.toxic("latency", attributes={"latency": None, "jitter": 3})["attributes"] == {
        "latency": 0,
        "jitter": 3,
    }


def test_other_attributes_are_ignored(api: Api) -> None:
    assert api.toxic("latency", attributes={"rate": "x"})["attributes"] == {
        "latency": 0,
        "jitter": 0,
    }


def test_the_largest_numbers_are_taken(api: Api) -> None:
    most = (1 << 63) - 1
    for type_, names in ATTRIBUTES.items():
        api.toxic(type_, attributes=dict.fromkeys(names, most))


def test_a_name_is_had_once_in_both_streams(api: Api) -> None:
    api.toxic("latency", name="t")
    for stream in ("upstream", "downstream"):
        given = {"type": "timeout", "name": "t", "stream": stream}
        told = api.ask("POST", "/proxies/p/toxics", given)
        assert told[:2] == (409, {"error": "toxic already exists", "status": 409})


BAD = "bad request body: "
STREAM = "stream was invalid, can be either upstream or downstream"
WRONG: dict[str, tuple[Any, str]] = {
    "no type": ({}, "invalid toxic type"),
    "type": ({"type": "down"}, "invalid toxic type"),
    "type of type": ({"type": 1}, f"{BAD}type is a string, not 1"),
    "stream": ({"type": "latency", "stream": "both"}, STREAM),
    "empty stream": ({"type": "latency", "stream": ""}, STREAM),
    "stream before type": ({"type": "down", "stream": "x"}, STREAM),
    "stream of type": ({"type": "latency", "stream": 1}, f"{BAD}stream is a string, not 1"),
    "name of type": ({"type": "latency", "name": []}, f"{BAD}name is a string, not a list"),
    "toxicity of type": (
        {"type": "latency", "toxicity": "1"},
        f'{BAD}toxicity is a number, not "1"',
    ),
    "toxicity of truth": ({"type": "latency", "toxicity": True}, f"{BAD}toxicity is a number"),
    "toxicity above": ({"type": "latency", "toxicity": 1.5}, f"{BAD}toxicity is a part of 1"),
    "toxicity below": ({"type": "latency", "toxicity": -0.1}, f"{BAD}toxicity is a part of 1"),
    "attributes of type": ({"type": "latency", "attributes": [1]}, f"{BAD}attributes is an object"),
    "empty": ("", f"{BAD}it is empty"),
    "broken": ("{]", f"{BAD}Expecting property name"),
    "list": ([], f"{BAD}the body is an object, not a list"),
}


@pytest.mark.parametrize(("body", "error"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_made_is_told(api: Api, body: Any, error: str) -> None:
    told = api.ask("POST", "/proxies/p/toxics", body)
    assert (told.code, told.body["status"]) == (400, 400)
    assert told.body["error"].startswith(error)
    assert api.get("/proxies/p/toxics") == []


@pytest.mark.parametrize("value", ["5", 1.5, True, [], {}, -1, 1 << 63], ids=repr)
def test_an_attribute_is_a_whole_number(api: Api, value: Any) -> None:
    for type_, names in ATTRIBUTES.items():
        for name in names:
            given = {"type": type_, "attributes": {name: value}}
            told = api.ask("POST", "/proxies/p/toxics", given)
            assert told.code == 400, (given, told)
            assert told.body["error"].startswith(f"{BAD}{name} is ")
    assert api.get("/proxies/p/toxics") == []


@pytest.mark.parametrize(
    "body", [{"toxicity": 2}, {"attributes": {"latency": "x", "jitter": 9}}, "x", []], ids=repr
)
def test_a_wrong_update_changes_nothing(api: Api, body: Any) -> None:
    before = api.toxic("latency", attributes={"latency": 1})
    assert api.ask("PATCH", "/proxies/p/toxics/latency_downstream", body).code == 400
    assert api.get("/proxies/p/toxics") == [before]


@pytest.mark.parametrize("verb", ["GET", "POST", "PATCH", "DELETE"])
def test_of_a_toxic_that_is_not_there(api: Api, verb: str) -> None:
    told = api.ask(verb, "/proxies/p/toxics/latency_downstream", {})
    assert told[:2] == (404, {"error": "toxic not found", "status": 404})


def test_a_deleted_one_is_gone(api: Api) -> None:
    for type_ in ATTRIBUTES:
        api.toxic(type_)
    for type_ in ATTRIBUTES:
        assert api.ask("DELETE", f"/proxies/p/toxics/{type_}_downstream")[:2] == (204, b"")
    assert api.get("/proxies/p/toxics") == []


def test_toxics_can_be_given_while_the_proxy_is_disabled(api: Api) -> None:
    api.ask("POST", "/proxies/p", {"enabled": False})
    api.toxic("latency")
    api.ask("PATCH", "/proxies/p/toxics/latency_downstream", {"attributes": {"latency": 4}})
    api.toxic("timeout")
    api.ask("DELETE", "/proxies/p/toxics/timeout_downstream")
    told = api.ask("POST", "/proxies/p", {"enabled": True})
    assert [(toxic["type"], toxic["attributes"]["latency"]) for toxic in told.body["toxics"]] == [
        ("latency", 4)
    ]


@pytest.mark.parametrize("value", [0, -1, 1.5, "1s", 604_800_001], ids=repr)
def test_an_end_is_from_a_millisecond_to_a_week(api: Api, value: Any) -> None:
    given = {"type": "latency", "attributes": {"for_ms": value}}
    told = api.ask("POST", "/proxies/p/toxics", given)
    assert told.code == 400
    assert told.body["error"].startswith(f"{BAD}for_ms is ")
    assert api.get("/proxies/p/toxics") == []


@pytest.mark.parametrize("type_", ATTRIBUTES)
def test_an_end_is_an_attribute_of_every_type(api: Api, type_: str) -> None:
    """Every client passes attributes on; one that gives none sees none."""
    path = f"/proxies/p/toxics/{type_}_downstream"
    assert api.toxic(type_, attributes={"for_ms": 60_000})["attributes"]["for_ms"] == 60_000
    assert api.ask("PATCH", path, {"toxicity": 0}).body["attributes"]["for_ms"] == 60_000
    assert api.ask("PATCH", path, {"attributes": {"for_ms": 1}}).code == 200
    until(lambda: api.get("/proxies/p/toxics") == [])
    for verb in ("GET", "PATCH", "DELETE"):
        assert api.ask(verb, path, {}).body == {"error": "toxic not found", "status": 404}
    assert "for_ms" not in api.toxic(type_)["attributes"]


def test_toxics_are_bounded(api: Api) -> None:
    for number in range(100):
        api.toxic("noop", name=str(number))
    told = api.ask("POST", "/proxies/p/toxics", {"type": "noop"})
    assert (told.code, told.body["error"]) == (
        400,
        "a proxy has at most 100 toxics: delete some first",
    )
