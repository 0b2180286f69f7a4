"""The score, on made-up records: what counts as seen, named, kept, recovered, a false alarm."""

import json
from collections.abc import Callable
from math import inf, isinf

import pytest

from brownout import State
from brownout.cases.exhausted_pool import card, report
from brownout.cases.exhausted_pool.measure import Stretch, detect, false_alarms, quantile, stretches
from brownout.cases.exhausted_pool.records import Busy, Call, Claim, Run, Seen, Spell, spells
from brownout.cases.exhausted_pool.schedule import PHASES, POOL, Phase, steps
from brownout.cases.exhausted_pool.score import Score, score, seconds
from brownout.render.cells import PLAIN, Style

HEALTHY, DEGRADED, CRASHED = State.HEALTHY, State.DEGRADED, State.CRASHED
PHASE = Phase("crash", "it refuses", 4.0, {"downstream": CRASHED}, fault={"kind": "refuse"})
SPELL = Spell("crash", began=100.0, first=100.1, ended=104.0)


def seen(*changes: tuple[float, State | None], target: str = "downstream") -> list[Seen]:
    return [Seen(at, target, state, f"at {at}") for at, state in changes]


def line(*changes: tuple[float, State | None]) -> list[Stretch]:
    return stretches(seen(*changes), "downstream", 90.0, 120.0)


# ------------------------------------------------------------------------------------- what was seen


def test_stretches_cover_the_run_and_begin_without_evidence() -> None:
    assert [(s.began, s.ended, s.state) for s in line((92.0, HEALTHY), (100.0, CRASHED))] == [
        (90.0, 92.0, None),
        (92.0, 100.0, HEALTHY),
        (100.0, 120.0, CRASHED),
    ]


def test_a_state_from_before_the_start_holds_at_the_start() -> None:
    assert line((80.0, HEALTHY))[0] == Stretch(90.0, 120.0, HEALTHY, "at 80.0")


def test_a_phase_is_seen_named_kept_and_over() -> None:
    states = line((91.0, HEALTHY), (100.6, DEGRADED), (101.1, CRASHED), (105.5, HEALTHY))
    found = detect(SPELL, PHASE, "downstream", states, 120.0)
    assert found.seen_seconds == pytest.approx(0.5)
    assert found.named_seconds == pytest.approx(1.0)
    assert found.kept == pytest.approx(1.0)
    assert found.back_seconds == pytest.approx(1.5)
    assert found.because == "at 101.1"


def test_a_name_that_does_not_stay_is_not_kept() -> None:
    states = line((91.0, HEALTHY), (101.0, CRASHED), (102.0, DEGRADED), (105.0, HEALTHY))
    assert detect(SPELL, PHASE, "downstream", states, 120.0).kept == pytest.approx(1 / 3)


def test_what_is_never_named_takes_for_ever() -> None:
    found = detect(SPELL, PHASE, "downstream", line((91.0, HEALTHY), (101.0, DEGRADED)), 120.0)
    assert found.seen_seconds == pytest.approx(0.9)
    assert (found.named_seconds, found.back_seconds, found.kept) == (inf, inf, 0.0)


def test_still_ill_from_before_is_not_seeing_what_begins_now() -> None:
    found = detect(SPELL, PHASE, "downstream", line((95.0, CRASHED), (105.0, HEALTHY)), 120.0)
    assert isinf(found.seen_seconds)
    assert isinf(found.named_seconds)


def test_a_recovery_that_does_not_stay_is_none_yet() -> None:
    states = line((101.0, CRASHED), (104.3, HEALTHY), (104.8, CRASHED), (106.0, HEALTHY))
    assert detect(SPELL, PHASE, "downstream", states, 120.0).back_seconds == pytest.approx(2.0)


def test_a_recovery_after_the_next_phase_began_does_not_count() -> None:
    states = line((91.0, HEALTHY), (101.0, CRASHED), (112.0, HEALTHY))
    assert isinf(detect(SPELL, PHASE, "downstream", states, until=110.0).back_seconds)


# --------------------------------------------------------------------------------------- false alarms


@pytest.mark.parametrize(
    ("changes", "alarms"),
    [
        ([(91.0, HEALTHY)], []),
        ([(91.0, HEALTHY), (101.0, CRASHED), (106.0, HEALTHY)], []),
        ([(91.0, HEALTHY), (95.0, DEGRADED), (97.0, HEALTHY)], [95.0]),
        ([(91.0, HEALTHY), (99.5, DEGRADED), (105.0, HEALTHY)], [99.5]),
        ([(91.0, HEALTHY), (101.0, CRASHED), (115.0, HEALTHY)], [101.0]),  # longer than allowed
        ([(101.0, CRASHED), (104.5, HEALTHY), (105.5, DEGRADED)], [105.5]),  # a relapse
        # calls of the phase that still wait: a target that was well before its end may be ill once more
        ([(101.0, CRASHED), (103.0, HEALTHY), (104.2, DEGRADED), (105.2, HEALTHY)], []),
        ([(91.0, HEALTHY), (105.5, DEGRADED), (106.0, HEALTHY)], [105.5]),
        ([(91.0, None)], []),  # no evidence is no alarm
    ],
    ids=["well", "phase", "before", "early", "late", "relapse", "waiting", "after", "nothing"],
)
def test_false_alarms(changes: list[tuple[float, State | None]], alarms: list[float]) -> None:
    assert [alarm.began for alarm in false_alarms(line(*changes), [SPELL])] == alarms


# -------------------------------------------------------------------------------------------- the truth


def test_the_truth_begins_with_the_first_effect_on_the_chain_with_brownout() -> None:
    proxy = [
        {"kind": "began", "at": 10.0, "fault": "hang", "name": "a"},
        {"kind": "effect", "at": 10.1, "chain": "without", "name": "a"},
        {"kind": "effect", "at": 10.3, "chain": "with", "name": "a"},
        {"kind": "ended", "at": 12.0, "fault": "hang", "name": "a"},
        {"kind": "began", "at": 20.0, "fault": "refuse", "name": "b"},
    ]
    load = [
        {"kind": "rate", "at": 15.0, "name": "c", "quote": 150},
        {"kind": "rate", "at": 17.0, "name": "", "quote": 50},
    ]
    assert spells(load, proxy, stop=25.0) == [
        Spell("a", 10.0, 10.3, 12.0),
        Spell("c", 15.0, 15.0, 17.0),
        Spell("b", 20.0, 20.0, 25.0),
    ]


def test_every_phase_of_the_schedule_says_what_is_true_and_does_one_thing() -> None:
    every, end = steps()
    assert [step.begins for step in every] == [True, False] * len(PHASES)
    assert [step.at for step in every] == sorted(step.at for step in every)
    assert 40 <= end <= 60
    assert {state for phase in PHASES for state in phase.truth.values()} | {HEALTHY} == set(State)
    assert all((phase.fault is None) != (phase.rate is None) for phase in PHASES)


# ------------------------------------------------------------------------------------- the whole score


def perfect(phases: tuple[Phase, ...] = PHASES) -> Run:
    """A run in which all went as it should: named after half a second, well after one."""
    start = 1000.0
    every, end = steps(phases)
    changes = [Seen(start + 1, target, HEALTHY, "well") for target in ("shop", "downstream")]
    truth = []
    for step, after in zip(every[::2], every[1::2], strict=True):
        spell = Spell(step.phase.name, start + step.at, start + step.at, start + after.at)
        truth.append(spell)
        for target, state in step.phase.truth.items():
            changes.append(Seen(spell.first + 0.5, target, state, "two humps"))
            changes.append(Seen(spell.ended + 1.0, target, HEALTHY, "well"))
    bad = [(spell.first, spell.ended) for spell in truth]
    calls = []
    for number in range(int(end * 20)):
        at = start + number / 20
        during = any(began <= at < ended for began, ended in bad)
        path = f"/quote/{number}" if number % 2 else "/catalog"
        calls.append(
            Call(at, "with", path, 0.04, "degraded" if during and number % 4 == 1 else "right")
        )
        late = during and number % 2
        calls.append(Call(at, "without", path, 2.0 if late else 0.04, "late" if late else "right"))
    busy = [
        Busy(start + second, chain, received=10, served=10, shed=0, waiting=1)
        for second in range(int(end))
        for chain in ("with", "without")
    ]
    claims = {"with": Claim(50, 50), "without": Claim(50, 50)}
    return Run(start, start + end, calls, busy, truth, sorted(changes), claims, undone=True)


def failed(result: Score) -> list[str]:
    return [line.what for line in result.expectations if not line.held]


def test_a_perfect_run_holds() -> None:
    result = score(perfect(), PHASES)
    assert failed(result) == []
    assert result.held
    assert result.whole["with"].served == 1.0
    assert result.whole["without"].served < 0.8


def test_without_faults_the_expectations_fail() -> None:
    run = perfect()
    well = [change for change in run.seen if change.at < run.start + 2]
    result = score(run._replace(spells=[], seen=well), PHASES)
    assert not result.held
    assert {"exhausted-pool: shop DEGRADED", "crash: downstream CRASHED"} <= set(failed(result))
    assert "false alarms" not in failed(result)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda run: run._replace(undone=False), "every fault removed, verified"),
        (lambda run: run._replace(seen=run.seen[:-1]), "HEALTHY again, the slowest"),
        (
            lambda run: run._replace(seen=[*run.seen, Seen(run.stop - 0.5, "shop", DEGRADED, "-")]),
            "false alarms",
        ),
        (
            lambda run: run._replace(
                calls=[*run.calls, Call(run.start, "with", "/catalog", 0.1, "wrong")]
            ),
            "wrong answers",
        ),
        (
            lambda run: run._replace(busy=[row._replace(received=12) for row in run.busy]),
            "requests to the downstream a quote",
        ),
        (
            lambda run: run._replace(
                calls=[
                    call._replace(verdict="refused") if call.at < run.start + 4 else call
                    for call in run.calls
                ]
            ),
            "answered within 1 s, whole run",
        ),
    ],
    ids=["undone", "recovered", "quiet", "wrong", "amplified", "survived"],
)
def test_one_thing_wrong_fails_its_expectation(spoil: Callable[[Run], Run], what: str) -> None:
    result = score(spoil(perfect()), PHASES)
    assert failed(result) == [what]


def test_a_slow_name_fails_and_the_others_hold() -> None:
    run = perfect()
    late = [
        change._replace(at=change.at + 3.0) if change.state is CRASHED else change
        for change in run.seen
    ]
    result = score(run._replace(seen=sorted(late)), PHASES)
    assert failed(result) == ["crash: downstream CRASHED"]


# ------------------------------------------------------------------------------- as text, and as JSON


def test_the_card_fits_100_columns_and_has_no_colour_when_plain() -> None:
    run = perfect()
    lines = card.lines(run, score(run, PHASES), version="0.1.0", style=PLAIN)
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in "".join(lines)
    truth = next(text for text in lines if text.startswith("   truth"))
    assert truth.split()[1] == "HHHHHHHHHHDDDDDDDHHHH~~~~~HHHH~~~~~~HHHH~~~~~HHHH~~~~HHHH"
    assert " 17 of 17 expectations hold." in lines


def test_the_card_is_ascii_where_nothing_else_can_be_shown() -> None:
    run = perfect()
    lines = card.lines(run, score(run, PHASES), version="0.1.0", style=Style(ascii=True))
    assert "".join(lines).isascii()
    assert "?" not in "".join(lines)


def test_the_card_tells_what_failed_and_how_it_was_said() -> None:
    run = perfect()
    wrong = Seen(run.start + 5.0, "shop", DEGRADED, "a long story " * 20)
    back = Seen(run.start + 7.0, "shop", HEALTHY, "well")
    result = score(run._replace(seen=sorted([*run.seen, wrong, back])), PHASES)
    text = "\n".join(card.lines(run, result, version="0.1.0", style=PLAIN))
    assert "FAILED       false alarms: wanted = 0, got 1: shop DEGRADED" in text
    assert "FALSE ALARM  shop DEGRADED for 2.0 s: a long story" in text


def test_the_report_is_json_with_nothing_infinite_in_it() -> None:
    run = perfect()
    result = score(run._replace(spells=[], seen=[]), PHASES)
    pytest.importorskip("uvicorn")
    pytest.importorskip("httpx2")
    told = json.loads(report.text(run, result, PHASES, version="0.1.0"), parse_constant=pytest.fail)
    assert told["held"] is False
    assert told["schedule"][0]["truth"] == {"shop": "DEGRADED", "downstream": "DEGRADED"}
    assert told["seen"]["shop"] == [{"began": 0.0, "ended": 57.0, "state": None, "because": ""}]
    assert told["calls"]["whole"]["with"]["served"] == 1.0


def test_small_sums() -> None:
    assert PHASES[0].name == POOL
    assert quantile([], 0.5) == 0.0
    assert quantile([1.0, 2.0, 3.0], 0.99) == 3.0
    assert [seconds(value) for value in (0.0, 0.25, 2.04, inf)] == [
        "at once",
        "0.25 s",
        "2.0 s",
        "never",
    ]
