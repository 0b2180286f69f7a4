"""One target in full: the verdict, each number beside its limit, and what was not decided and why."""

from __future__ import annotations

import time
from math import isinf
from typing import TYPE_CHECKING

from brownout._core.view import absence, blame_sentence, scope_sentence
from brownout._core.words import seconds
from brownout.render.cells import PLAIN, Style, bars, fit, mark, paint, plain, wrap

if TYPE_CHECKING:
    from brownout._core.because import Verdict
    from brownout._core.view import Observer, Row, Together

__all__ = ["explain", "undecided"]

_INDENT = 3
_COUNTS = {"1": "", "1/s": "/s"}


def explain(row: Row, *, at: float, columns: int = 100, style: Style = PLAIN) -> list[str]:
    """The target as lines of about `columns` cells: sentence, numbers by observer and operation, gaps.

    `at` is the wall instant against which ages are counted.
    """
    columns = max(columns, 50)
    lines = [f" {row.target}   {_state(row, style)}{_since(row, at)}", "─" * columns]
    lines += _indented(row.because + ".", columns)
    lines += _indented(_who(row), columns)
    for label, sentence in _scope(row):
        lines += _indented(f"{label}: {sentence}.", columns)
    together = row.together
    if together is not None and together.observers > 1:
        lines += _indented(_all(together), columns)
    for seen in row.fresh:
        lines += ["", f" {_name(seen.observer)}"]
        for verdict in seen.verdicts:
            lines += _verdict(verdict, columns, style)
    if gaps := undecided(row, at):
        lines += ["", " Not decided"]
        for gap in gaps:
            lines += _indented("- " + gap, columns)
    return [plain(line.rstrip(), style) for line in lines]


def undecided(row: Row, at: float) -> list[str]:
    """What could not be judged of this target, and why, as sentences."""
    gaps = [f"Not counted: {absence(seen.observer, at)}." for seen in row.stale]
    for seen in row.fresh:
        who = seen.observer.name
        for verdict in seen.verdicts:
            what = f"{who}, {verdict.operation}"
            if verdict.state is None:
                gaps.append(f"{what}: {verdict.because}.")
            elif _unlearned(verdict):
                gaps.append(f"{what}: what is usual is not learned yet, so slowness is not judged.")
        if seen.left_out:
            gaps.append(f"{who}: {seen.left_out} more operations were too many to be shared.")
    if row.fresh and row.claim is None:
        gaps.append(
            "Whether it contradicts its own health check: nobody asks that"
            " (Guard(health=...) and brownout.watch() do)."
        )
    if row.ill and row.observers == 1:
        gaps.append("Whether others suffer too: only one observer has evidence.")
    elif row.ill and not row.scope.kind:
        sentence = scope_sentence(row)
        gaps.append(f"{sentence[0].upper()}{sentence[1:]}.")
    if row.ill and row.observers > 1 and not all(seen.observer.zone for seen in row.fresh):
        gaps.append(
            "Whether a zone suffers: some observers have none (brownout.share(path, zone=...),"
            " or BROWNOUT_ZONE)."
        )
    return gaps


def _scope(row: Row) -> list[tuple[str, str]]:
    """Who suffers, what is to blame, and what the target itself says, each with its label."""
    told = [
        ("Scope", scope_sentence(row) if row.scope.kind else ""),
        ("Blame", blame_sentence(row)),
        ("Contradiction", row.contradiction_because),
    ]
    return [(label, sentence) for label, sentence in told if sentence]


def _unlearned(verdict: Verdict) -> bool:
    return any(number.name == "p99_seconds" and number.limit is None for number in verdict.numbers)


def _state(row: Row, style: Style) -> str:
    name = row.state.name if row.state else "no evidence"
    says = "   says ok ≠" if row.contradiction else ""
    return paint(f"{mark(row.state, style)} {name}", row.state, style) + says


def _since(row: Row, at: float) -> str:
    if row.verdict is None or not row.ill:
        return ""
    clock = time.strftime("%H:%M:%S", time.localtime(row.verdict.since))
    return f"   since {clock}, {seconds(max(0.0, at - row.verdict.since))} ago"


def _who(row: Row) -> str:
    if row.observer is None:
        return f"{len(row.fresh)} observers heard of, none with evidence."
    operation = row.verdict.operation if row.verdict else ""
    claim = {None: "not asked", True: "ok", False: "not ok"}[row.claim]
    many = (
        f"Seen by {row.seen_by} of {row.observers} observers; told" if row.observers > 1 else "Told"
    )
    return f"{many} by {_name(row.observer)}, of its operation {operation}. Its own health check: {claim}."


def _all(together: Together) -> str:
    p50, p99 = seconds(together.p50_seconds), seconds(together.p99_seconds)
    return f"Of their {together.calls} calls together: p50 {p50}, p99 {p99}."


def _name(observer: Observer) -> str:
    zone = f", zone {observer.zone}" if observer.zone else ""
    return f"{observer.name} (pid {observer.pid} on {observer.host}{zone})"


def _verdict(verdict: Verdict, columns: int, style: Style) -> list[str]:
    name = verdict.state.name if verdict.state else "no evidence"
    state = paint(f"{mark(verdict.state, style)} {name}", verdict.state, style)
    kind = f"   {verdict.kind}, extent {verdict.extent:.2g}" if verdict.kind else ""
    lines = [f"   {verdict.operation}   {state}{kind}"]
    lines += [" " * 3 + line for line in _indented(verdict.because + ".", columns - 3)]
    if verdict.own:
        lines += [" " * 3 + line for line in _indented(f"Own trouble: {verdict.own}.", columns - 3)]
    if verdict.shape:
        lines.append(f"      {fit('latency, 1 ms to 10 s', 24)} {bars(verdict.shape, style)}")
    return lines + _numbers(verdict)


def _numbers(verdict: Verdict) -> list[str]:
    """Each number beside what it is held against."""
    rows = [("", "measured", "usual, or limit")]
    rows += [
        (
            number.name.removesuffix("_seconds").replace("_", " "),
            _measure(number.value, number.unit),
            "" if number.limit is None else _measure(number.limit, number.unit),
        )
        for number in verdict.numbers
    ]
    return [
        f"      {fit(name, 24)} {fit(value, 10, right=True)} {fit(limit, 16, right=True)}"
        for name, value, limit in rows
    ]


def _measure(value: float, unit: str) -> str:
    if unit == "s":
        return seconds(value)
    text = (
        "never"
        if isinf(value)
        else f"{value:.0f}"
        if value >= 100 or value == int(value)
        else f"{value:.2g}"
    )
    return text + _COUNTS.get(unit, f" {unit}")


def _indented(text: str, columns: int) -> list[str]:
    return [" " * _INDENT + line for line in wrap(text, columns - _INDENT)]
