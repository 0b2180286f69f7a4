"""One run's figures, and how they are written: for the eye, for a page, for a program."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version

from bench.cost import ABARE, BARE, GUARDED, TIMEOUT, Case

COLOURS = {True: "async", False: "sync"}


@dataclass
class Row:
    """A case's cost: microseconds a call, and what it adds to the bare call, in asyncio.timeout's."""

    name: str
    colour: str
    us: float
    of_timeout: float
    lacks: str = ""


@dataclass
class Figures:
    """All that a run measured, and on what."""

    python: str
    machine: str
    rounds: int
    rows: list[Row]
    bytes: dict[str, float]
    bytes_of_peers: dict[str, float]
    import_of_asyncio: float
    versions: dict[str, str]
    missing: dict[str, str]

    def find(self, name: str, colour: str) -> Row:
        """The row of a case."""
        return next(row for row in self.rows if (row.name, row.colour) == (name, colour))

    def json(self) -> str:
        """All of it."""
        return json.dumps(asdict(self), indent=2)


def rows(cases: list[Case], us: dict[tuple[str, bool], float]) -> list[Row]:
    """The costs as rows."""
    unit = us[TIMEOUT, True] - us[ABARE, True]
    bare = {True: us[ABARE, True], False: us[BARE, False]}
    return [
        Row(
            case.name,
            COLOURS[case.is_async],
            us[case.key],
            (us[case.key] - bare[case.is_async]) / unit,
            case.lacks,
        )
        for case in cases
    ]


def here() -> tuple[str, str]:
    """The Python, and the machine."""
    return (
        f"{platform.python_implementation()} {platform.python_version()}",
        f"{platform.system()} {platform.machine()}",
    )


def _table(head: list[str], body: list[list[str]], *, page: bool) -> str:
    if page:
        rule = ["---", *["---:" for _ in head[1:]]]
        return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *body])
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *body]
    )


def _costs(figures: Figures, colour: str) -> list[list[str]]:
    guarded = figures.find(GUARDED, colour)
    body: list[list[str]] = []
    for row in sorted(
        (row for row in figures.rows if row.colour == colour), key=lambda row: row.us
    ):
        name = f"{row.name} ({row.lacks})" if row.lacks else row.name
        over = "" if row.name in {BARE, ABARE} else f"{row.of_timeout:.2f}"
        times = "" if guarded.of_timeout <= 0 or not over else row.of_timeout / guarded.of_timeout
        body.append([name, f"{row.us:.2f}", over, times if times == "" else f"{times:.1f}"])
    return body


def text(figures: Figures, *, page: bool = False) -> str:
    """For the eye, or as a part of a Markdown page."""
    libraries = ", ".join(f"{name} {number}" for name, number in figures.versions.items())
    parts = [
        f"{figures.python}, {figures.machine}; brownout {version('brownout')};"
        f" the least of {figures.rounds} interleaved rounds."
        + (f" Peers: {libraries}." if libraries else "")
    ]
    for colour in ("async", "sync"):
        head = [f"{colour}", "us a call", "above bare, x asyncio.timeout", "x brownout"]
        parts.append(_table(head, _costs(figures, colour), page=page))
    kept = [[name, f"{size:,.0f}"] for name, size in figures.bytes.items()]
    kept += [[f"{name}, a function", f"{n:,.0f}"] for name, n in figures.bytes_of_peers.items()]
    parts.append(_table(["kept", "bytes"], kept, page=page))
    parts.append(f"`import brownout` takes {figures.import_of_asyncio:.2f} x `import asyncio`.")
    if figures.missing:
        lines = [[name, reason] for name, reason in figures.missing.items()]
        parts.append(_table(["NOT MEASURED", "why"], lines, page=page))
    return "\n\n".join(parts)


def with_figures(document: str, figures: Figures, begin: str, end: str) -> str:
    """A page with the figures between its two marks renewed. Raises ValueError if it has not both."""
    before, found, rest = document.partition(begin)
    _, found_too, after = rest.partition(end)
    if not found or not found_too:
        raise ValueError(f"the page needs a line {begin!r}, and below it a line {end!r}")
    return f"{before}{begin}\n\n{text(figures, page=True)}\n\n{end}{after}"
