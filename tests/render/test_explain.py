import json
from math import inf

from brownout import State
from brownout._core.sketch import Latencies
from brownout._core.view import Row, Seen, rows
from brownout.fleet.local import Fleet, ObservedChange
from brownout.render import json as as_json
from brownout.render.explain import explain, undecided
from tests.fleet.sample import NOW, observer, only, seen, told, verdict

WHOLE = "Whether it contradicts its own health check: nobody asks that (Guard(health=...) and"


def mixed() -> Row:
    """Seen by three: one is ill with a gap in it, one has no evidence, one is stale."""
    gap = verdict(None, operation="write", because="no evidence: 3 calls in 30 s, 20 are needed")
    ill = Seen(observer(), "quotes", None, 4, (verdict(State.DEGRADED, p99=inf), gap), left_out=2)
    return only(
        rows(
            [ill, seen(None, by=observer("shop")), seen(by=observer("old", written=NOW - 60))], NOW
        )
    )


def test_every_number_stands_beside_its_limit() -> None:
    lines = explain(mixed(), at=NOW)
    assert lines[0].startswith(" quotes   D ◐ DEGRADED   since ")
    assert lines[0].endswith(", 36 s ago")
    columns = [line.split("  ")[0:1] + line.split() for line in lines]
    assert any(words[-3:] == ["unanswered", "3", "1.5"] for words in columns)
    assert any(
        words[-4:] == ["p50", "6", "ms", "5"] or "6 ms" in " ".join(words) for words in columns
    )
    assert any(words[-2:] == ["p99", "never"] for words in columns)
    assert "   read   D ◐ DEGRADED   silent, extent 0.25" in lines
    assert all(len(line) <= 100 for line in lines)


def test_what_several_observers_saw_is_added_up() -> None:
    told = Latencies(3, ((-56, 50, 0), (0, 2, 0)))  # 8 ms and 1 s
    group = [seen(by=observer(name)) for name in ("load", "shop")]
    both = [one._replace(verdicts=(one.verdicts[0].__replace__(latencies=told),)) for one in group]
    lines = explain(only(rows(both, NOW)), at=NOW)
    assert "   Of their 104 calls together: p50 8.2 ms, p99 1 s." in lines
    assert not any("together" in line for line in explain(only(rows(both[:1], NOW)), at=NOW))
    told_ = as_json.explain(only(rows(both, NOW)), NOW)["together"]
    assert (told_["observers"], told_["calls"]) == (2, 104)


def test_what_was_not_decided_is_said_with_its_reason() -> None:
    assert undecided(mixed(), NOW) == [
        "Not counted: old (pid 7) has not been heard of for 60 s.",
        "load, read: what is usual is not learned yet, so slowness is not judged.",
        "load, write: no evidence: 3 calls in 30 s, 20 are needed.",
        "load: 2 more operations were too many to be shared.",
        "shop, read: all is well.",
        f"{WHOLE} brownout.watch() do).",
        "Whether others suffer too: only one observer has evidence.",
    ]


def test_a_target_without_evidence_is_explained() -> None:
    row = only(rows([seen(None, because="no evidence: 3 calls in 30 s, 20 are needed")], NOW))
    text = "\n".join(explain(row, at=NOW))
    assert "· no evidence" in text
    assert "3 calls in 30 s, 20 are needed" in text
    assert "Not decided" in text
    stale = only(rows([seen(by=observer(written=NOW - 60))], NOW))
    assert "has not been heard of for 60 s" in "\n".join(explain(stale, at=NOW))


STATUS_KEYS = {"fleet", "at", "observers", "targets", "last_change", "faults", "malformed"}
TARGET_KEYS = {
    "target",
    "state",
    "because",
    "contradiction",
    "claim",
    "seen_by",
    "observers",
    "in_flight",
    "unanswered",
    "observer",
    "operation",
    "kind",
    "extent",
    "since",
    "p50_seconds",
    "together",
    "p99_seconds",
    "shape",
    "scope",
    "blame",
    "contradiction_because",
}
OBSERVER_KEYS = {
    "id",
    "name",
    "zone",
    "host",
    "pid",
    "started",
    "age_seconds",
    "stale",
    "ended",
    "lost_changes",
    "left_out_targets",
}


def test_the_keys_of_the_json_stay() -> None:
    fleet = Fleet("f.db", NOW, (observer(written=NOW - 2),), (mixed(),), (), 9, 1)
    told_ = json.loads(json.dumps(as_json.status(fleet), allow_nan=False))
    assert set(told_) == STATUS_KEYS
    (target,), (one,) = told_["targets"], told_["observers"]
    assert set(target) == TARGET_KEYS
    assert set(one) == OBSERVER_KEYS
    assert (target["state"], target["observer"], one["age_seconds"]) == (
        "DEGRADED",
        "host/load",
        2.0,
    )
    assert target["p99_seconds"] is None  # never


def test_explain_as_json_has_every_view() -> None:
    told_ = json.loads(json.dumps(as_json.explain(mixed(), NOW), allow_nan=False))
    assert set(told_) == TARGET_KEYS | {"views", "undecided"}
    assert [view["counted"] for view in told_["views"]] == [True, True, False]
    operation = told_["views"][0]["operations"][0]
    assert set(operation) == {
        "operation",
        "state",
        "kind",
        "extent",
        "because",
        "since",
        "at",
        "shape",
        "numbers",
        "own",
        "recent",
    }
    assert operation["numbers"][1] == {"name": "unanswered", "value": 3, "limit": 1.5, "unit": "1"}
    assert len(told_["undecided"]) == 7


def test_a_gap_is_null_in_json() -> None:
    row = only(rows([seen(by=observer(written=NOW - 60))], NOW))
    told_ = as_json.explain(row, NOW)
    assert (told_["state"], told_["observer"], told_["p50_seconds"], told_["shape"]) == (None,) * 4


def test_a_change_as_json() -> None:
    one = told()
    change = ObservedChange(
        3, "id", "load", one.target, NOW, 5.0, None, State.DEGRADED, one.because, contradiction=True
    )
    assert as_json.change(change) == {
        "id": 3,
        "at": NOW,
        "monotonic": 5.0,
        "target": "quotes",
        "before": None,
        "after": "DEGRADED",
        "because": "two humps",
        "contradiction": True,
        "observer": "id",
        "name": "load",
    }
