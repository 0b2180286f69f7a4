"""The observer itself, or a target further down: what explains what is seen."""

from __future__ import annotations

from brownout import State
from brownout._core.blame import Edge, at_once, explained, strained
from tests.fleet.sample import verdict


def edge(
    observer: str, target: str, state: State | None = State.DEGRADED, since: float = 10.0
) -> Edge:
    return Edge(f"{observer}/1", observer, target, state, since)


def well(observer: str, *targets: str) -> list[Edge]:
    return [edge(observer, target, State.HEALTHY) for target in targets]


MANY = ("db", "cache", "mail", "geo")


def ill(observer: str, *targets: str, apart: float = 0.1) -> list[Edge]:
    return [edge(observer, name, since=10 + apart * number) for number, name in enumerate(targets)]


def test_who_sees_all_ill_that_others_see_well_is_to_blame() -> None:
    found = strained([*ill("web", *MANY), *well("other", *MANY)])
    assert found == {
        "web/1": "4 of the 4 targets of web look ill to it, and 4 of them look well to others"
    }


def test_not_if_others_see_it_too() -> None:
    assert strained([*ill("web", *MANY), *ill("other", *MANY)]) == {}


def test_not_if_most_of_its_targets_are_well() -> None:
    assert strained([*ill("web", "db"), *well("web", *MANY[1:]), *well("other", *MANY)]) == {}
    half = [*ill("web", "a", "b", "c"), *well("web", "d", "e", "f"), *well("other", *"abcdef")]
    assert strained(half) == {}


def test_two_targets_may_have_something_in_common() -> None:
    assert strained([*ill("web", "db", "cache"), *well("other", "db", "cache")]) == {}


def test_parts_of_one_target_are_not_unrelated() -> None:
    hosts = [f"shop/{number}" for number in range(6)]
    assert strained([*ill("web", *hosts), *well("other", *hosts)]) == {}


def test_alone_it_is_suspected_if_they_became_ill_at_once() -> None:
    (reason,) = strained(ill("web", *MANY)).values()
    assert "since one moment" in reason
    assert strained(ill("web", *MANY, apart=5.0)) == {}  # one after the other


def test_one_process_suspects_itself() -> None:
    verdicts = [verdict(State.DEGRADED, target=name) for name in MANY]
    assert at_once(verdicts).startswith("4 of the 4 targets of this process look ill to it")
    assert at_once([verdict(target=name) for name in MANY]) == ""
    assert at_once(verdicts[:2]) == ""
    assert at_once([]) == ""


def test_a_bad_edge_is_explained_by_the_callee_s_own() -> None:
    edges = [edge("web", "shop"), edge("shop", "quotes"), edge("quotes", "db"), *well("db", "disk")]
    assert explained("shop", edges, {}) == ("shop", "quotes", "db")
    assert explained("quotes", edges, {}) == ("quotes", "db")
    assert explained("db", edges, {}) == ()


def test_the_worst_of_its_edges_explains_it_then_the_first() -> None:
    edges = [
        edge("shop", "a"),
        edge("shop", "b", State.CRASHED),
        edge("shop", "c", State.CRASHED, 5),
    ]
    assert explained("shop", edges, {}) == ("shop", "c")


def test_a_circle_has_an_end() -> None:
    edges = [edge("a", "b"), edge("b", "c"), edge("c", "a")]
    assert explained("a", edges, {}) == ("a", "b", "c")


def test_one_that_is_itself_to_blame_ends_the_path() -> None:
    edges = [edge("web", "shop"), *ill("shop", *MANY), *well("other", *MANY)]
    found = strained(edges)
    assert explained("shop", edges, found) == ("shop",)
