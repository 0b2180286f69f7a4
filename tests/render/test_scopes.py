"""Who suffers, as `status`, `watch`, `explain` and `--json` tell it."""

from __future__ import annotations

import json

from brownout._core.view import rows
from brownout.render import json as as_json
from brownout.render.explain import explain, undecided
from brownout.render.scopes import Scopes, line
from brownout.render.scopes import as_json as told
from brownout.render.text import table
from tests.core.test_view import counted, zones
from tests.fleet.sample import NOW, only

SENTENCE = "artition zone-a | cache: 4 of 4 observers in zone-a suffer, 0 of 4 elsewhere"


def test_a_partition_is_told_everywhere() -> None:
    row = only(rows(zones(24), NOW))
    assert f"       P{SENTENCE}." in table((row,), at=NOW)
    assert f"   Scope: p{SENTENCE}." in explain(row, at=NOW)
    assert not any("suffers" in gap for gap in undecided(row, NOW))
    scope = json.loads(json.dumps(as_json.explain(row, NOW)))["scope"]
    assert scope["because"] == f"p{SENTENCE}"
    assert (scope["kind"], scope["zones"]) == ("zone", ["zone-a"])
    assert scope["partition"] == "zone-a | cache"
    assert scope["observers"] == [f"host/zone-a{number}" for number in range(4)]
    assert scope["posterior"] > 0.99
    assert line(row, NOW).endswith(f" cache            scope             p{SENTENCE}")


def test_blame_is_told_everywhere() -> None:
    group = [counted(f"web{n}", 25, target="quotes") for n in range(3)]
    row = rows([*group, counted("quotes", 25, target="db")], NOW)[1]
    because = "explained by db: the calls of quotes to db suffer too"
    assert row.target == "quotes"
    assert f"       E{because[1:]}." in table((row,), at=NOW)
    assert f"   Blame: {because}." in explain(row, at=NOW)
    assert told(row, NOW)["blame"] == {"path": ["quotes", "db"], "because": because}
    assert because in line(row, NOW)


def test_what_is_not_decided_is_said_with_its_reason() -> None:
    row = only(rows([counted("x", 3, zone=""), counted("y", 0, calls=1)], NOW))
    assert row.scope.kind == ""
    gaps = undecided(row, NOW)
    assert any("ho suffers is not decided" in gap for gap in gaps)
    assert any("brownout.share(path, zone=...)" in gap for gap in gaps)
    assert as_json.explain(row, NOW)["scope"]["kind"] is None


def test_own_trouble_is_told() -> None:
    row = only(rows([*zones(0), counted("x", 25, own="its event loop was late")], NOW))
    lines = explain(row, at=NOW)
    assert any("the observer is to blame: x: its event loop was late" in text for text in lines)
    assert any("Own trouble: its event loop was late." in text for text in lines)


def test_a_scope_is_told_once_and_again_when_it_is_another() -> None:
    scopes = Scopes()
    assert not scopes.open
    assert [row.partition for row in scopes.look(rows(zones(24), NOW))] == ["zone-a | cache"]
    assert scopes.open
    assert scopes.look(rows(zones(25), NOW)) == []
    wider = [*zones(24)[:4], *(counted(f"zone-b{n}", 25, zone="zone-b") for n in range(4))]
    assert [row.scope.kind for row in scopes.look(rows(wider, NOW))] == ["target"]
    assert scopes.look(rows(zones(0), NOW)) == []
    assert not scopes.open
    assert len(scopes.look(rows(zones(24), NOW))) == 1


def test_of_one_observer_nothing_is_told() -> None:
    assert Scopes().look(rows([counted("x", 25)], NOW)) == []
