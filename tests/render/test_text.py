import re
import time
from math import inf

import pytest

from brownout import State
from brownout._core.view import Row, rows
from brownout.fleet.local import Fleet, ObservedChange
from brownout.render.cells import width
from brownout.render.text import Style, line, notes, table
from tests.fleet.sample import NOW, observer, seen, told

SENTENCE = "two humps: 68 % of calls answer in 6 ms, 32 % take or wait 2 s or longer (usual 1 %)"
HISTORY: dict[str, list[float | None]] = {"quotes": [0.1, None, 0.2, inf], "mail": [0.1] * 40}


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def some() -> tuple[Row, ...]:
    return rows(
        [
            seen(State.DEGRADED, because=SENTENCE, claim=True, unanswered=41),
            seen(State.HEALTHY, by=observer("shop")),
            seen(State.HEALTHY, target="mail", p99=0.0004),
            seen(State.UNRESPONSIVE, target="cache", p99=inf, because="no answer", claim=False),
            seen(None, target="geo", because="no evidence: 3 calls in 30 s, 20 are needed"),
        ],
        NOW,
    )


def test_the_table() -> None:
    assert table(some(), at=NOW, observers=2, columns=90) == [
        " brownout status                           1 of 4 targets HEALTHY   window 30 s   08:00:00",
        " 2 observers   ≠ 1 target says ok while callers suffer",
        "─" * 90,
        "   TARGET                    STATE            SHAPE 1ms-10s    p50    p99  FLY  UNK SAYS",
        "   cache                     U ◇ UNRESPONSIVE ▂█▃▁▁▁▁▁▅▁       6ms  never    2    3 not ok",
        "       read: no answer.",
        "   quotes                    D ◐ DEGRADED     ▂█▃▁▁▁▁▁▅▁       6ms  200ms    4   44 ok ≠",
        "       read: two humps: 68 % of calls answer in 6 ms, 32 % take or wait 2 s or longer",
        "       (usual 1 %). Seen by 1 of 2 observers, told by load.",
        "       It says ok; 25 % of its callers wait out the deadline.",
        "   mail                      H ● HEALTHY      ▂█▃▁▁▁▁▁▅▁       6ms   <1ms    2    3 none",
        "   · geo: no evidence: 3 calls in 30 s, 20 are needed",
        "─" * 90,
    ]


def test_with_a_history_it_has_a_column_more() -> None:
    lines = table(some(), at=NOW, history=HISTORY)
    assert "p99 history" in "\n".join(lines[:4])
    quotes = next(line for line in lines if "quotes" in line)
    assert " D ◐ DEGRADED             ▃ ▅█ " in quotes
    assert "████████████" in next(line for line in lines if "mail" in line)


def test_a_narrow_terminal_folds_the_shape_and_the_history() -> None:
    lines = table(some(), at=NOW, columns=79, history=HISTORY)
    text = "\n".join(lines)
    assert "SHAPE" not in text
    assert "history" not in text
    assert "SAYS" in text
    assert "U ◇ UNRESPONSIVE" in text


@pytest.mark.parametrize("columns", [50, 63, 64, 79, 80, 100, 120])
@pytest.mark.parametrize("history", [None, HISTORY])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_no_line_is_too_long(
    columns: int, history: dict[str, list[float | None]] | None, ascii_only: bool
) -> None:
    every = some() + rows(
        [seen(State.CRASHED, target="數" * 99, because="x" * 499, claim=True)], NOW
    )
    lines = table(
        every,
        at=NOW,
        observers=10_000,
        columns=columns,
        history=history,
        style=Style(ascii=ascii_only),
    )
    assert max(width(line) for line in lines) <= columns + ascii_only  # "≠" is "!=" there
    assert all(line == line.rstrip() for line in lines)


def test_colour_adds_nothing_but_colour() -> None:
    bare = table(some(), at=NOW, columns=80)
    coloured = table(some(), at=NOW, columns=80, style=Style(colour=True))
    assert [re.sub("\x1b\\[[0-9;]*m", "", line) for line in coloured] == bare
    assert "\x1b[38;5;98mU ◇ UNRESPONSIVE\x1b[0m" in "\n".join(coloured)


def test_in_ascii_the_letters_stay() -> None:
    text = "\n".join(table(some(), at=NOW, style=Style(ascii=True)))
    assert text.isascii()
    assert "U UNRESPONSIVE" in text
    assert "ok !=" in text


def test_many_healthy_rows_fold_and_no_ill_one_does() -> None:
    every = rows(
        [seen(State.HEALTHY, target=f"h{n:02}") for n in range(20)]
        + [seen(State.CRASHED, target=f"c{n:02}") for n in range(20)],
        NOW,
    )
    text = "\n".join(table(every, at=NOW, healthy_most=3))
    assert text.count("H ● HEALTHY") == 2
    assert "+ 18 more HEALTHY" in text
    assert text.count("C ✕ CRASHED") == 20
    assert "20 of 40 targets HEALTHY" in text


def test_many_without_evidence_are_one_line() -> None:
    every = rows([seen(None, target=f"geo-{n}") for n in range(5)], NOW)
    assert "   · 5 without evidence: geo-0, geo-1, geo-2, geo-3, geo-4" in table(every, at=NOW)


def test_nothing_at_all_is_said() -> None:
    assert "   nobody has called a guarded target yet" in table((), at=NOW)


def test_a_stale_observer_stands_beneath_with_its_age() -> None:
    group = [seen(State.DEGRADED), seen(State.CRASHED, by=observer("shop", written=NOW - 12))]
    text = "\n".join(table(rows(group, NOW), at=NOW))
    assert "Not counted: shop (pid 7) has not been heard of for 12 s." in text
    assert "CRASHED" not in text


def change(**changed: object) -> ObservedChange:
    one = told()
    first = ObservedChange(
        3,
        "id",
        "load",
        one.target,
        NOW,
        5.0,
        State.HEALTHY,
        State.DEGRADED,
        one.because,
        contradiction=True,
    )
    return first._replace(**changed)  # type: ignore[arg-type]


def test_a_change_is_one_line() -> None:
    assert line(change()) == "08:00:00 quotes           H → D ◐ DEGRADED ≠  two humps  (load)"
    assert line(change(before=None, contradiction=False), style=Style(ascii=True)) == (
        "08:00:00 quotes           . -> D DEGRADED  two humps  (load)"
    )
    assert line(change(after=None, contradiction=False)) == (
        "08:00:00 quotes           H → · no evidence  two humps  (load)"
    )


def test_notes_say_what_is_missing() -> None:
    fleet = Fleet("f", NOW, (observer(),), (), (), 0, 0)
    assert notes(fleet) == []
    stale = observer("shop", written=NOW - 60)._replace(lost=2, left_out=3)
    assert notes(fleet._replace(observers=(stale,), malformed=7)) == [
        " not counted: shop (pid 7) has not been heard of for 60 s",
        " 7 rows of the fleet file were skipped: nobody of ours can have written them",
        " 2 changes are missing: their observers could not write them",
        " 3 targets are missing: their observers have too many to share",
    ]
    assert len(notes(fleet._replace(observers=(stale._replace(lost=0, left_out=0),) * 30))) == 5
