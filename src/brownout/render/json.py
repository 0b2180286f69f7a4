"""What `--json` prints: plain dictionaries with documented keys.

Keys are only ever added. Durations are seconds (`..._seconds`), instants (`at`, `since`, `started`) are
wall seconds since 1970; null is "not known", or for a latency and a limit "never". States are names;
null is no evidence.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from brownout._core.view import blame_sentence, scope_sentence
from brownout.render.explain import undecided
from brownout.render.faults import plainly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brownout._core.because import Verdict
    from brownout._core.state import State
    from brownout._core.view import Observer, Row, Seen, Together
    from brownout.fleet.local import Fleet, ObservedChange
    from brownout.render.faults import InForce
    from brownout.replay import Change

__all__ = ["blame", "change", "explain", "replayed", "scope", "status"]


def status(fleet: Fleet, faults: Sequence[InForce] = ()) -> dict[str, Any]:
    """The fleet: `fleet` (path), `at`, `observers`, `targets` (the worst first), `last_change`, `malformed`.

    `faults` are those made on purpose and in force: each has `id fault place target ends_in_seconds
    failed` (null: no target named, no end but its maker's, not failed to be undone).

    An observer has `id name zone host pid started age_seconds stale ended lost_changes
    left_out_targets`; a target has
    what `explain` gives but for `views` and `undecided`.
    """
    return {
        "fleet": fleet.path,
        "at": fleet.at,
        "observers": [_observer(one, fleet.at) for one in fleet.observers],
        "targets": [_target(row) for row in fleet.rows],
        "last_change": fleet.last_change,
        "malformed": fleet.malformed,
        "faults": plainly(faults),
    }


def explain(row: Row, at: float) -> dict[str, Any]:
    """One target, with all that its observers see.

    `target state because contradiction claim seen_by observers in_flight unanswered` are of the target;
    `observer operation kind extent since p50_seconds p99_seconds shape` are of the verdict that decided
    (null without evidence). `scope` says who suffers: `kind` (healthy, target, zone, observer, part; null:
    not decided), `likeliest`, `zones`, `observers` (ids), `posterior`, `partition` ("zone-a | cache" or null)
    and `because`. `blame` has `path` (from the target to what explains it) and `because`, null if nothing is
    known to be; `contradiction_because` what it says of itself beside what its callers suffer, or null.
    `together` has `observers calls p50_seconds p99_seconds`: the latencies of that
    operation as all counted observers saw them, added up. `views` is a list of `observer` (as in
    `status`), `counted` (false: stale), `state claim left_out operations`; an operation has `operation
    state kind extent because own since at shape`, `numbers`, a list of `name value limit unit`, and `recent`,
    of `seconds bad calls`: how many of the calls of the last seconds were bad.
    `undecided` lists what was not decided, and why, as sentences.
    """
    counted = [(one, True) for one in row.fresh] + [(one, False) for one in row.stale]
    return {
        **_target(row),
        "views": [_view(one, at, counted=yes) for one, yes in counted],
        "undecided": undecided(row, at),
    }


def change(told: ObservedChange) -> dict[str, Any]:
    """One change: `id at monotonic target before after because contradiction observer name`.

    `observer` is the observer's id, `name` its name.
    """
    return {
        "id": told.id,
        "at": told.at,
        "monotonic": told.monotonic,
        "target": told.target,
        "before": _name(told.before),
        "after": _name(told.after),
        "because": told.because,
        "contradiction": told.contradiction,
        "observer": told.observer,
        "name": told.name,
    }


def replayed(change: Change) -> dict[str, Any]:
    """One change of a replay: `t_seconds target operation before state kind extent onset_seconds because`.

    Both instants are in the recording's own time; `onset_seconds` is null unless something is wrong.
    """
    return {
        "t_seconds": change.t_seconds,
        "target": change.target,
        "operation": change.operation,
        "before": _name(change.before),
        "state": _name(change.state),
        "kind": change.kind,
        "extent": change.extent,
        "onset_seconds": change.onset_seconds,
        "because": change.because,
    }


def _target(row: Row) -> dict[str, Any]:
    verdict = row.verdict
    numbers = {number.name: number.value for number in verdict.numbers} if verdict else {}
    return {
        "target": row.target,
        "state": _name(row.state),
        "because": row.because,
        "contradiction": row.contradiction,
        "claim": row.claim,
        "seen_by": row.seen_by,
        "observers": row.observers,
        "in_flight": row.in_flight,
        "unanswered": row.unanswered,
        "observer": row.observer.id if row.observer else None,
        "operation": verdict.operation if verdict else None,
        "kind": verdict.kind if verdict else None,
        "extent": verdict.extent if verdict else None,
        "since": verdict.since if verdict else None,
        "p50_seconds": _finite(numbers.get("p50_seconds")),
        "p99_seconds": _finite(numbers.get("p99_seconds")),
        "shape": list(verdict.shape) if verdict else None,
        "together": _together(row.together),
        "scope": scope(row),
        "blame": blame(row),
        "contradiction_because": row.contradiction_because or None,
    }


def scope(row: Row) -> dict[str, Any]:
    """Who suffers from a target; the keys are those of `scope` in `explain`."""
    return {
        "kind": row.scope.kind or None,
        "likeliest": row.scope.likeliest or None,
        "zones": list(row.scope.zones),
        "observers": list(row.scope.observers),
        "posterior": round(row.scope.posterior, 6),
        "partition": row.partition or None,
        "because": scope_sentence(row) or None,
    }


def blame(row: Row) -> dict[str, Any] | None:
    """What is to blame beside the target; the keys are those of `blame` in `explain`."""
    because = blame_sentence(row)
    return {"path": list(row.blame), "because": because} if because else None


def _together(together: Together | None) -> dict[str, Any] | None:
    if together is None:
        return None
    return {
        "observers": together.observers,
        "calls": together.calls,
        "p50_seconds": _finite(together.p50_seconds),
        "p99_seconds": _finite(together.p99_seconds),
    }


def _view(seen: Seen, at: float, *, counted: bool) -> dict[str, Any]:
    return {
        "observer": _observer(seen.observer, at),
        "counted": counted,
        "state": _name(seen.state),
        "claim": seen.claim,
        "left_out": seen.left_out,
        "operations": [_operation(verdict) for verdict in seen.verdicts],
    }


def _operation(verdict: Verdict) -> dict[str, Any]:
    return {
        "operation": verdict.operation,
        "state": _name(verdict.state),
        "kind": verdict.kind,
        "extent": verdict.extent,
        "because": verdict.because,
        "own": verdict.own or None,
        "since": verdict.since,
        "at": verdict.at,
        "recent": [recent._asdict() for recent in verdict.recent],
        "shape": list(verdict.shape),
        "numbers": [
            {"name": n.name, "value": _finite(n.value), "limit": _finite(n.limit), "unit": n.unit}
            for n in verdict.numbers
        ],
    }


def _observer(observer: Observer, at: float) -> dict[str, Any]:
    return {
        "id": observer.id,
        "name": observer.name,
        "zone": observer.zone,
        "host": observer.host,
        "pid": observer.pid,
        "started": observer.started,
        "age_seconds": round(observer.age(at), 3),
        "stale": observer.stale(at),
        "ended": observer.ended,
        "lost_changes": observer.lost,
        "left_out_targets": observer.left_out,
    }


def _name(state: State | None) -> str | None:
    return state.name if state else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None
