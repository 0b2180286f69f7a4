"""The scorecard's content: every expectation with its limit, and whether it held. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isinf
from typing import TYPE_CHECKING

from .measure import (
    CHAINS,
    HEALTHY_SECONDS,
    SERVED_SHARE,
    Detection,
    Service,
    Stretch,
    detect,
    false_alarms,
    served_again,
    service,
    stretches,
    true_stretches,
    until,
)
from .schedule import POOL, TARGETS, Phase

if TYPE_CHECKING:
    from .records import Run

NAMED_SECONDS = 3.0
KEPT_SHARE = 0.8
WAIT_SECONDS = 0.9
ATTEMPTS_PER_CALL = 1.1  # the retry budget is one in ten


@dataclass(frozen=True)
class Expectation:
    """One line of the scorecard: `word` is SEEN, NAMED, SURVIVED, RECOVERED, QUIET or UNDONE."""

    word: str
    what: str
    wanted: str
    got: str
    held: bool
    without: str


@dataclass(frozen=True)
class Score:
    """All that the scorecard shows."""

    detections: list[Detection]
    false_alarms: list[tuple[str, Stretch]]
    truth: dict[str, list[Stretch]]
    seen: dict[str, list[Stretch]]
    whole: dict[str, Service]
    phases: dict[str, dict[str, Service]]
    expectations: list[Expectation]

    @property
    def held(self) -> bool:
        """Every expectation held."""
        return all(expectation.held for expectation in self.expectations)


def score(run: Run, phases: tuple[Phase, ...]) -> Score:
    """Score a run that was to play these phases."""
    table = {phase.name: phase for phase in phases}
    seen = {target: stretches(run.seen, target, run.start, run.stop) for target in TARGETS}
    detections = [
        detect(spell, table[spell.name], target, seen[target], until(run, spell))
        for spell in run.spells
        for target in table[spell.name].truth
    ]
    alarms = [
        (target, alarm) for target in TARGETS for alarm in false_alarms(seen[target], run.spells)
    ]
    whole = {chain: service(run, chain, run.start, run.stop) for chain in CHAINS}
    parts = {
        spell.name: {chain: service(run, chain, spell.first, spell.ended) for chain in CHAINS}
        for spell in run.spells
    }
    return Score(
        detections,
        alarms,
        {target: true_stretches(run, table, target) for target in TARGETS},
        seen,
        whole,
        parts,
        [
            *_seen(run, phases, detections),
            *_survived(whole, parts),
            *_recovered(run, phases, detections),
            _quiet(alarms),
            _undone(run, phases),
        ],
    )


def _seen(run: Run, phases: tuple[Phase, ...], detections: list[Detection]) -> list[Expectation]:
    """A line for every phase and target of the schedule. What was not played was never seen."""
    found = {(detection.phase, detection.target): detection for detection in detections}
    pool = found.get((POOL, "shop"))
    took = pool.seen_seconds if pool else inf
    limit = f"<= {NAMED_SECONDS:.0f} s"
    what = f"{POOL}: something is wrong"
    lines = [Expectation("SEEN", what, limit, seconds(took), took <= NAMED_SECONDS, _said_ok(run))]
    for phase in phases:
        for target, state in phase.truth.items():
            detection = found.get((phase.name, target))
            took = detection.named_seconds if detection else inf
            what = f"{phase.name}: {target} {state.name}"
            held = took <= NAMED_SECONDS
            lines.append(Expectation("NAMED", what, limit, seconds(took), held, ""))
    kept = min((detection.kept for detection in detections), default=0.0)
    what, limit = "the name stays till the end, at least", f">= {KEPT_SHARE:.0%}"
    lines.append(Expectation("", what, limit, f"{kept:.0%}", kept >= KEPT_SHARE, ""))
    return lines


def _said_ok(run: Run) -> str:
    """What the health check of the shop without brownout said all the time."""
    asked, ok = run.claims["without"]
    return "never" if asked and asked == ok else "by its health check"


def _survived(whole: dict[str, Service], parts: dict[str, dict[str, Service]]) -> list[Expectation]:
    ours, theirs = (whole[chain] for chain in CHAINS)
    pool = parts.get(POOL)
    lines = [_served("SURVIVED", "answered within 1 s, whole run", ours, theirs)]
    if pool is None:
        what, limit = f"answered within 1 s, {POOL}", f">= {SERVED_SHARE:.0%}"
        lines.append(Expectation("", what, limit, "not played", held=False, without=""))
    else:
        what = f"answered within 1 s, {POOL}"
        lines.append(_served("", what, *(pool[chain] for chain in CHAINS)))
    what = "99 % of callers wait at most"
    wait, held = ours.p99_seconds, ours.p99_seconds <= WAIT_SECONDS
    limit, without = f"<= {WAIT_SECONDS} s", seconds(theirs.p99_seconds)
    lines.append(Expectation("", what, limit, seconds(wait), held, without))
    wrong, without = ours.counts["wrong"], str(theirs.counts["wrong"])
    lines.append(Expectation("", "wrong answers", "= 0", str(wrong), not wrong, without))
    more, without = ours.attempts_per_call, f"{theirs.attempts_per_call:.2f}"
    limit, held = f"<= {ATTEMPTS_PER_CALL}", more <= ATTEMPTS_PER_CALL
    what = "requests to the downstream a quote"
    lines.append(Expectation("", what, limit, f"{more:.2f}", held, without))
    return lines


def _served(word: str, what: str, ours: Service, theirs: Service) -> Expectation:
    got = f"{100 * ours.served:.1f} %"
    if ours.counts["degraded"]:
        got += f" ({100 * ours.share('degraded'):.0f} % degraded)"
    held = ours.calls > 0 and ours.served >= SERVED_SHARE
    without = f"{100 * theirs.served:.1f} %"
    return Expectation(word, what, f">= {SERVED_SHARE:.0%}", got, held, without)


def _recovered(
    run: Run, phases: tuple[Phase, ...], detections: list[Detection]
) -> list[Expectation]:
    limit = f"<= {HEALTHY_SECONDS:.0f} s"
    due = sum(len(phase.truth) for phase in phases)
    took = max((d.back_seconds for d in detections), default=inf)
    took = took if len(detections) == due else inf
    what, held = "HEALTHY again, the slowest", took <= HEALTHY_SECONDS
    lines = [Expectation("RECOVERED", what, limit, seconds(took), held, "")]
    ours, theirs = (
        max(
            (served_again(run.calls, chain, s.ended, until(run, s)) for s in run.spells),
            default=inf,
        )
        for chain in CHAINS
    )
    what, held = "callers are served again, the slowest", ours <= HEALTHY_SECONDS
    lines.append(Expectation("", what, limit, seconds(ours), held, seconds(theirs)))
    return lines


def _quiet(alarms: list[tuple[str, Stretch]]) -> Expectation:
    names = sorted({f"{target} {alarm.state.name}" for target, alarm in alarms if alarm.state})
    got = f"{len(alarms)}: {', '.join(names)}" if alarms else "0"
    return Expectation("QUIET", "false alarms", "= 0", got, not alarms, "")


def _undone(run: Run, phases: tuple[Phase, ...]) -> Expectation:
    played = len(run.spells) == len(phases)
    got = ("yes" if run.undone else "no") if played else "nothing was done"
    held = played and run.undone
    return Expectation("UNDONE", "every fault removed, verified", "yes", got, held, "")


def seconds(value: float) -> str:
    """A span as the scorecard writes it."""
    if value < 0.005:
        return "at once"
    return "never" if isinf(value) else f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
