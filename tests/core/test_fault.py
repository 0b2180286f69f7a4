from dataclasses import dataclass

import pytest

from brownout import ConfigurationError
from brownout._core.fault import Amount, Chance, Fault, Injection, Log, Schedule, drawn


@dataclass(frozen=True, kw_only=True)
class Delay(Fault):
    seconds: float | Amount = 0.0


def injection(fault: Fault, seed: int = 1) -> Injection:
    return Injection("delay", fault, seed=seed, since=100.0, log=Log())


def test_the_same_seed_hits_the_same_connections_in_whatever_order() -> None:
    fault = Delay(share=0.3)
    forth = [injection(fault).hits(100, n) for n in range(1, 1001)]
    once = injection(fault)
    back = [once.hits(100, n) for n in range(1000, 0, -1)][::-1]
    assert forth == back
    assert 250 < sum(forth) < 350
    assert forth != [injection(fault, seed=2).hits(100, n) for n in range(1, 1001)]


def test_the_stream_of_chance_is_fixed_for_ever() -> None:
    assert Chance(7, "latency", 1).random() == pytest.approx(
        Chance(7, "latency", 1).random(), abs=0
    )
    draws = [Chance(7, n).random() for n in range(10_000)]
    assert sum(draws) / len(draws) == pytest.approx(0.5, abs=0.02)
    assert all(0 <= draw < 1 for draw in draws)


def test_whom_it_hits() -> None:
    nth = injection(Delay(nth=3))
    assert [n for n in range(1, 10) if nth.hits(100, n)] == [3, 6, 9]
    first = injection(Delay(first=2, per="request"))
    assert [first.hits(100, 1, n) for n in (1, 2, 3)] == [True, True, False]
    client = injection(Delay(client="10.0.0.0/8"))
    assert client.hits(100, 1, client="10.2.3.4")
    assert not client.hits(100, 1, client="127.0.0.1")
    assert not client.hits(100, 1, client="")
    match = injection(Delay(match="[A-Z]+ /quote"))
    assert match.hits(100, 1, head=b"GET /quote?a HTTP/1.1")
    assert not match.hits(100, 1, head=b"GET /catalog HTTP/1.1")


def test_a_schedule_starts_flaps_and_ends() -> None:
    schedule = Schedule(start=1, on=2, off=1, end=9)
    assert [schedule.strength(t) for t in (0.5, 1, 2.9, 3.5, 4, 8.9, 9)] == [0, 1, 1, 0, 1, 1, 0]
    assert [schedule.next_change(t) for t in (0, 1, 3, 8.5, 9)] == [1, 3, 4, 9, float("inf")]


def test_a_ramp_only_adds_to_those_that_are_hit() -> None:
    ramp = injection(Delay(schedule=Schedule(ramp=10)))
    hit = [{n for n in range(1, 501) if ramp.hits(100 + t, n)} for t in (2, 5, 10)]
    assert hit[0] < hit[1] < hit[2]
    assert 0 < len(hit[0]) < 150
    assert len(hit[2]) == 500


def test_amounts_have_the_mean_that_is_asked_for() -> None:
    shapes = {"uniform": 5.0, "normal": 5.0, "exponential": 6.0}
    for shape, mean in shapes.items():
        amount = Amount(5.0, jitter=1.0, shape=shape)  # type: ignore[arg-type]
        draws = [drawn(amount, Chance(3, n)) for n in range(5000)]
        assert sum(draws) / len(draws) == pytest.approx(mean, abs=0.1)
        assert min(draws) >= 0


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as error:
        Delay(
            share=2,
            stream="up",  # type: ignore[arg-type]
            nth=0,
            client="here",
            match="(",
            seconds=Amount(-1),
        )
    for part in ("share=2", "stream='up'", "nth=0", "client='here'", "match='('", "seconds:"):
        assert part in str(error.value)


def test_the_log_keeps_the_last_and_counts_the_rest() -> None:
    kept = Log(kept=3)
    once = Injection("delay", Delay(), seed=1, since=0, log=kept)
    for n in range(5):
        once.note(n, n, 0, "hit")
    assert [decision.connection for decision in kept] == [2, 3, 4]
    assert kept.lost == 2
