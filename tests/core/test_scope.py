"""Who suffers, from what each observer counted."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from brownout._core.scope import CAP_CALLS, SURE, Scope, Tally, decide, log_beta, suffers, weigh

ZONES = ("a", "b", "c")


def fleet(bad: dict[str, tuple[int, int]], *, zones: int = 3, each: int = 4) -> list[Tally]:
    """Observers "a0", "a1", ... with 0 bad of 25 calls, but for those in `bad`."""
    names = [f"{zone}{number}" for zone in ZONES[:zones] for number in range(each)]
    return [Tally(name, name[0], *bad.get(name, (0, 25))) for name in names]


def zone(name: str, bad: tuple[int, int], each: int = 4) -> dict[str, tuple[int, int]]:
    return {f"{name}{number}": bad for number in range(each)}


def test_nobody_suffers() -> None:
    found = decide(fleet({}))
    assert (found.kind, found.observers) == ("healthy", ())
    assert found.posterior > SURE


def test_all_suffer() -> None:
    everyone = {name: (12, 25) for tally in fleet({}) for name in [tally.observer]}
    found = decide(fleet(everyone))
    assert found.kind == "target"
    assert len(found.observers) == 12


@pytest.mark.parametrize("each", [2, 4])
@pytest.mark.parametrize("zones", [2, 3])
def test_a_zone_suffers(zones: int, each: int) -> None:
    found = decide(fleet(zone("b", (24, 25), each), zones=zones, each=each))
    assert (found.kind, found.zones) == ("zone", ("b",))
    assert found.observers == tuple(f"b{number}" for number in range(each))


def test_two_of_three_zones_suffer() -> None:
    found = decide(fleet(zone("b", (24, 25)) | zone("c", (25, 25))))
    assert (found.kind, found.zones) == ("zone", ("b", "c"))


def test_one_observer_alone() -> None:
    found = decide(fleet({"b2": (22, 25)}))
    assert (found.kind, found.observers, found.zones) == ("observer", ("b2",), ())


def test_a_part_without_a_name() -> None:
    some = ("a0", "a2", "b1", "b3", "c0", "c1")
    found = decide(fleet(dict.fromkeys(some, (24, 25))))
    assert (found.kind, found.observers) == ("part", some)


def test_a_zone_of_one_observer_is_that_observer() -> None:
    found = decide(fleet({"b0": (24, 25)}, each=1))
    assert (found.kind, found.observers) == ("observer", ("b0",))


def test_in_a_single_zone_it_is_the_target() -> None:
    """No zone has been seen to do without it."""
    found = decide(fleet(zone("a", (24, 25)), zones=1))
    assert found.kind == "target"


def test_without_names_of_zones_it_is_a_part() -> None:
    tallies = [one._replace(zone="") for one in fleet(zone("b", (24, 25)))]
    assert decide(tallies).kind == "part"


def test_one_observer_says_nothing_of_others() -> None:
    found = decide([Tally("a0", "a", 25, 25, ill=True)])
    assert (found.kind, found.observers) == ("", ())
    assert decide([]) == Scope("", "", (), (), 0.0)


def test_what_is_not_sure_is_not_named() -> None:
    found = decide(fleet({"a0": (1, 2)}))
    assert found.kind in {"", "healthy"}
    found = decide(
        [Tally("a0", "a", 3, 3, ill=True), Tally("b0", "b", 0, 0), Tally("b1", "b", 0, 1)]
    )
    assert found.kind == ""
    assert 0 < found.posterior <= SURE


def test_before_more_than_half_was_heard_nothing_is_said_of_all() -> None:
    heard = {"a0": (2, 2), "b1": (2, 2), "c2": (2, 2)}
    silent = {one.observer: (0, 0) for one in fleet({}) if one.observer not in heard}
    found = decide(fleet(silent | heard))
    assert (found.kind, found.likeliest) == ("", "target")
    assert found.posterior > SURE


def test_who_calls_more_weighs_no_more_than_the_cap() -> None:
    assert weigh(Tally("a", "", 1000, 1000)) == weigh(Tally("a", "", CAP_CALLS, CAP_CALLS))
    assert weigh(Tally("a", "", 10, 1000)) == pytest.approx(weigh(Tally("a", "", 0.25, 25)))


def test_who_calls_more_has_more_failures_and_suffers_no_more() -> None:
    """60, 30 and 10 % of the traffic with the same share of errors: 500 runs, no alarm."""
    chance = random.Random(1)
    for _ in range(500):
        tallies = [
            Tally(zone, zone, sum(chance.random() < 0.01 for _ in range(n)), n)
            for zone, n in zip(ZONES, (600, 300, 100), strict=True)
        ]
        assert decide(tallies).kind in {"", "healthy"}
        assert decide(tallies).likeliest == "healthy"


def test_one_that_is_in_trouble_itself_is_not_heard() -> None:
    tallies = [one._replace(own=one.observer == "b2") for one in fleet({"b2": (25, 25)})]
    assert decide(tallies).kind == "healthy"


def test_a_judge_weighs_more_than_a_few_calls() -> None:
    """5 % of calls fail for all: too few of 25 for a sure word, but their judges have it from hundreds."""
    few = [one._replace(bad=1.2) for one in fleet({})]
    assert decide(few).kind != "target"
    assert decide([one._replace(ill=True) for one in few]).kind == "target"


def test_what_speaks_for_ill_grows_with_the_share() -> None:
    odds = [ill - well for well, ill, _ in (weigh(Tally("a", "", bad, 25)) for bad in range(26))]
    assert all(one < other for one, other in pairwise(odds))
    assert not suffers(Tally("a", "", 0, 25))
    assert suffers(Tally("a", "", 5, 25))


def test_the_beta_function() -> None:
    assert log_beta(1, 1) == pytest.approx(0)
    assert log_beta(2, 3) == pytest.approx(-2.4849066497880004)  # 1/12


def test_a_thousand_observers() -> None:
    names = [f"{zone}{number}" for zone in ZONES for number in range(333)]
    tallies = [Tally(name, name[0], *((25, 25) if name[0] == "b" else (0, 25))) for name in names]
    assert decide(tallies).zones == ("b",)
