"""A fault in force shows itself: † at its target, and a line beneath the table."""

from __future__ import annotations

from math import inf

from brownout.render.cells import Style
from brownout.render.faults import InForce, faults, plainly, suffering
from brownout.render.text import table
from tests.fleet.sample import NOW
from tests.render.test_text import some

LATE = InForce("a1", "Latency(seconds=0.2)", "127.0.0.1:6380 -> 127.0.0.1:5432", "quotes", 20.2)


def test_a_line_for_each() -> None:
    told = [LATE, LATE._replace(ends_in_seconds=inf), LATE._replace(failed="it is still there")]
    assert faults(told) == [
        " † fault: Latency(seconds=0.2) at 127.0.0.1:6380 -> 127.0.0.1:5432, ends in 20 s",
        " † fault: Latency(seconds=0.2) at 127.0.0.1:6380 -> 127.0.0.1:5432, ends with its maker",
        " † fault: Latency(seconds=0.2) at 127.0.0.1:6380 -> 127.0.0.1:5432, NOT UNDONE: it is still there",
    ]
    assert faults([LATE], style=Style(ascii=True))[0].startswith(" + fault: Latency(")


def test_many_are_counted() -> None:
    lines = faults([LATE] * 300)
    assert len(lines) == 11
    assert lines[-1] == " † 290 more faults: brownout fault list"


def test_the_target_bears_a_mark() -> None:
    told = [LATE, LATE._replace(target="geo"), LATE._replace(target="")]
    assert suffering(told) == {"quotes", "geo"}
    lines = table(some(), at=NOW, columns=90, suffering=suffering(told))
    without = table(some(), at=NOW, columns=90)
    changed = [line for line, before in zip(lines, without, strict=True) if line != before]
    assert changed == [
        "   quotes †                  D ◐ DEGRADED     ▂█▃▁▁▁▁▁▅▁       6ms  200ms    4   44 ok ≠",
        "   · geo †: no evidence: 3 calls in 30 s, 20 are needed",
    ]
    narrow = table(some(), at=NOW, columns=50, suffering={"quotes"}, style=Style(ascii=True))
    assert any("quo~ +" in line or "quotes +" in line for line in narrow), narrow


def test_as_json() -> None:
    assert plainly([LATE._replace(ends_in_seconds=inf, target="")]) == [
        {
            "id": "a1",
            "fault": "Latency(seconds=0.2)",
            "place": "127.0.0.1:6380 -> 127.0.0.1:5432",
            "target": None,
            "ends_in_seconds": None,
            "failed": None,
        }
    ]
