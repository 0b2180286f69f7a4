"""The scorecard as lines of text, at most 100 columns wide. Pure."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING

from brownout.render.cells import Style, bars, fit, paint, plain, wrap

from .measure import CHAINS, SERVED, Service, Stretch
from .schedule import TARGETS
from .score import seconds

if TYPE_CHECKING:
    from .records import Run, Spell
    from .score import Score

WIDTH = 98
LABEL = 16
MOST_CELLS = WIDTH - LABEL - 8
_PLAIN = str.maketrans({"✓": "+", "✗": "-", "├": "|", "┤": "|", "─": "-", "│": "|", "≤": "<"})
_LEGEND = (
    "H healthy  D degraded  O overloaded  U unresponsive  C crashed   · too few calls to judge",
    "~ not defined: the shop answers from its price list then; drawn, not graded",
    "truth is what the proxies' log and the load say; no guard is at work in either process",
)


def lines(run: Run, score: Score, *, version: str, style: Style) -> list[str]:
    """The whole scorecard."""
    rule = " " + "─" * WIDTH
    title = " brownout demo   exhausted-pool"
    right = f"{run.stop - run.start:.0f} s · real processes on loopback · brownout {version}"
    text = [
        "",
        f"{title}{right:>{WIDTH + 1 - len(title)}}",
        rule,
        *_strips(run, score, style),
        rule,
        *_services(run, score),
        rule,
        *_expectations(score),
        rule,
        *_said(run, score),
        *_verdict(score),
    ]
    return [_drawn(line, style) for line in text]


def _drawn(line: str, style: Style) -> str:
    return plain(line.translate(_PLAIN), style) if style.ascii else line


class Strip:
    """The one time axis. A cell is a second, more in a long run."""

    def __init__(self, run: Run) -> None:
        self.start = run.start
        self.seconds = max(1.0, (run.stop - run.start) / MOST_CELLS)
        self.cells = max(1, round((run.stop - run.start) / self.seconds))

    def letters(self, stretches: list[Stretch], none: str, style: Style) -> str:
        """One letter a cell: the state that held for the longest part of it."""
        text = ""
        for cell in range(self.cells):
            began = self.start + cell * self.seconds
            parts = [
                (min(began + self.seconds, s.ended) - max(began, s.began), i)
                for i, s in enumerate(stretches)
            ]
            _, longest = max(parts, default=(0.0, -1))
            state = stretches[longest].state if stretches else None
            text += paint(state.letter, state, style) if state else none
        return text

    def axis(self) -> str:
        """The seconds, every ten cells."""
        marks = [f"{cell * self.seconds:.0f}" for cell in range(0, self.cells, 10)]
        return "".join(f"{mark:<10}" for mark in marks).rstrip() + " s"

    def spans(self, spells: list[Spell]) -> str:
        """What was done when."""
        text = [" "] * self.cells
        for spell in spells:
            began, ended = (
                min(self.cells, round((at - self.start) / self.seconds))
                for at in (spell.began, spell.ended)
            )
            width = ended - began
            if width >= 2:
                text[began:ended] = f"├{spell.name[: width - 2]:─^{width - 2}}┤"
        return "".join(text)

    def served(self, run: Run, chain: str, style: Style) -> str:
        """How many of a cell's calls were answered in time."""
        made, good = [0] * (self.cells + 1), [0] * (self.cells + 1)
        for call in run.calls:
            if call.chain == chain:
                cell = min(self.cells, int((call.at - self.start) / self.seconds))
                made[cell] += 1
                good[cell] += call.verdict in SERVED
        pairs = zip(made[: self.cells], good, strict=False)
        # bars() draws the highest at full height: the one more is 100 %, and is cut off.
        return bars([*(g / m if m else nan for m, g in pairs), 1.0], style)[: self.cells]


def _strips(run: Run, score: Score, style: Style) -> list[str]:
    """Truth against seen for every target, and what the callers got, on one time axis."""
    strip = Strip(run)
    text = [_line("seconds", strip.axis()), _line("made to fail", strip.spans(run.spells))]
    for target in TARGETS:
        text.append(_line(target, ""))
        text.append(_line("  truth", strip.letters(score.truth[target], "~", style)))
        text.append(_line("  seen", strip.letters(score.seen[target], "·", style)))
    text.append(_line("answered in time", ""))
    for chain in CHAINS:
        share = f"{100 * score.whole[chain].served:6.1f} %"
        text.append(_line(f"  {chain}", strip.served(run, chain, style)) + share)
    return [*text, *(f" {line}" for line in _LEGEND)]


def _line(label: str, text: str) -> str:
    return f" {label:<{LABEL - 1}} {text}".rstrip()


def _services(run: Run, score: Score) -> list[str]:
    """The same load with brownout and without, side by side."""
    whole = [score.whole[chain] for chain in CHAINS]
    text = [_row("THE SAME CALLS", ["WITH", "WITHOUT"])]
    text += _share("the whole run", whole)
    for name, parts in score.phases.items():
        text += _share(name, [parts[chain] for chain in CHAINS])
    waits = [f"{_short(p.p50_seconds)} / {_short(p.p99_seconds)}" for p in whole]
    text.append(_row("callers wait, half at most / 99 % at most", waits))
    got = [f"{p.received} / {p.received_most}" for p in whole]
    text.append(_row("requests to the downstream, all / in a second", got))
    said = [f"ok {c.ok} of {c.asked} times" for c in (run.claims[chain] for chain in CHAINS)]
    text.append(_row("what the shop's own health check said", said))
    return text


def _share(title: str, parts: list[Service]) -> list[str]:
    cells = [f"{100 * p.share('right'):.1f} %" for p in parts]
    for index, part in enumerate(parts):
        if part.counts["degraded"]:
            cells[index] += f" + {100 * part.share('degraded'):.1f} % degraded"
    return [_row(f"answered in time, {title}", cells)]


def _row(what: str, cells: list[str]) -> str:
    return f" {what:<46}{cells[0]:<28}{cells[1]}"


def _short(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _expectations(score: Score) -> list[str]:
    text = [_expectation("EXPECTATION", "", "WANTED", "GOT", " ", "WITHOUT")]
    previous = ""
    for line in score.expectations:
        word = "" if line.word == previous else line.word
        previous = line.word or previous
        mark = "✓" if line.held else "✗"
        text.append(_expectation(word, line.what, line.wanted, line.got, mark, line.without))
    return text


def _expectation(word: str, what: str, wanted: str, got: str, mark: str, without: str) -> str:
    start = f"{word:<12}" if not what else f"{fit(word, 11)} {what}"
    return f" {start:<51}{wanted:<9}{got:<24} {mark} {without}".rstrip()


def _said(run: Run, score: Score) -> list[str]:
    """The sentence with which each phase was named."""
    text: list[str] = []
    for detection in score.detections:
        if detection.because:
            spell = next(spell for spell in run.spells if spell.name == detection.phase)
            at = spell.first + detection.named_seconds - run.start
            state = detection.truth
            name = f"{state.letter} {state.shape} {state.name}"
            text.append(f" {at:5.1f} s  {detection.target} {name}")
            text += ["          " + line for line in wrap(detection.because, WIDTH - 10)]
    return [" WHAT IT SAID", *text, ""] if text else []


def _verdict(score: Score) -> list[str]:
    """How many held, and what failed."""
    held = [line for line in score.expectations if line.held]
    text = [f" {len(held)} of {len(score.expectations)} expectations hold."]
    text += [
        f"   FAILED       {line.what}: wanted {line.wanted}, got {line.got}"
        for line in score.expectations
        if not line.held
    ]
    for target, alarm in score.false_alarms:
        name = alarm.state.name if alarm.state else "no evidence"
        span = seconds(alarm.ended - alarm.began)
        said = wrap(f"{target} {name} for {span}: {alarm.because}", WIDTH - 16)
        text += [f"   FALSE ALARM  {said[0]}", *(" " * 16 + line for line in said[1:])]
    return text
