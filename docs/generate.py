"""Writes the parts of the reference that the code itself knows: `python docs/generate.py [--check]`.

api.md from the public names and their docstrings, states.md and ledger.md from the tables, cli.md from
the help of the command line. With --check nothing is written, and what is out of date is named.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import brownout
import brownout.behind
import brownout.ext.asgi
import brownout.ext.behind
import brownout.ext.httpx
import brownout.ledger
import brownout.testing
from brownout import State
from brownout._core.breaker import TRANSITIONS, GatePhase
from brownout._core.ledger import TABLE, Move
from brownout._core.state import MOVES

HERE = Path(__file__).parent / "reference"
NOTE = "<!-- Made by docs/generate.py: change the code, not this file. -->\n"
MADE = {
    "Adapter", "AsyncInterceptor", "Behind", "Breaker", "DeadlineHeader", "Deadlines", "FakeClock", "Find",
    "Guard", "Interceptor", "Ledger", "Once", "Outcomes", "Positions", "Retry", "Transport", "deadline",
}  # by users  # fmt: skip
CLIENTS = ("aiohttp", "asyncpg", "grpc", "psycopg", "redis", "requests", "sqlalchemy", "urllib3")
VERBS = (
    "demo",
    "status",
    "watch",
    "explain",
    "doctor",
    "fault add",
    "fault list",
    "fault clear",
    "fault serve",
    "unknown list",
    "unknown resolve",
    "unknown void",
    "unknown forget",
)


def signature(thing: Any) -> str:
    try:
        text = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)  # annotations are strings
    text = re.sub(r"brownout(\.\w+)*\.(?=[A-Z])", "", text)
    return text.replace("(self, ", "(").replace("(self)", "()")


def members(class_: type) -> list[tuple[str, Any]]:
    found = []
    for name, thing in vars(class_).items():
        if name == "__call__" or not name.startswith("_"):
            if isinstance(thing, staticmethod):
                thing = thing.__func__  # noqa: PLW2901
            inner = thing.fget if isinstance(thing, property) else thing
            if (inspect.isfunction(inner) or isinstance(thing, property)) and inspect.getdoc(thing):
                found.append((name, thing))
    return found


def entry(name: str, thing: Any) -> list[str]:
    lines = [f"## `{name}`", ""]
    if name.rpartition(".")[2] in MADE or inspect.isfunction(thing):
        lines += ["```python", f"{name.rpartition('.')[2]}{signature(thing)}", "```", ""]
    lines += [inspect.getdoc(thing) or "", ""]
    if inspect.isclass(thing) and hasattr(thing, "__members__"):
        lines += [f"`{'` `'.join(thing.__members__)}`", ""]
    if inspect.isclass(thing):
        for member, inner in members(thing):
            call = "" if isinstance(inner, property) else signature(inner)
            lines += [f"### `{name}.{member}{call}`", "", inspect.getdoc(inner) or "", ""]
    return lines


def api() -> str:
    lines = [
        NOTE,
        "# Public names",
        "",
        "All of them are in `brownout` unless a module is named.",
        "",
    ]
    for name in brownout.__all__:
        lines += entry(name, getattr(brownout, name))
    for name in reversed(brownout.ext.asgi.__all__):
        lines += entry(f"brownout.ext.asgi.{name}", getattr(brownout.ext.asgi, name))
    for module in (brownout.behind, brownout.ext.behind):
        for name in module.__all__:
            lines += entry(f"{module.__name__}.{name}", getattr(module, name))
    lines += entry("brownout.ext.httpx.Transport", brownout.ext.httpx.Transport)
    for module in CLIENTS:
        lines += client(module)
    for name in ("Find", "Ledger", "Once", "Outcomes"):
        lines += entry(f"brownout.ledger.{name}", getattr(brownout.ledger, name))
    for name in brownout.testing.__all__:
        lines += entry(f"brownout.testing.{name}", getattr(brownout.testing, name))
    lines += ["## Errors", "", "```text"]
    lines += [inspect.getdoc(brownout.errors) or "", "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def client(name: str) -> list[str]:
    """One module of a client: what it says of itself, and its names."""
    module = import_module(f"brownout.ext.{name}")
    text = (inspect.getdoc(module) or "").replace("\n    ", "\n        ")
    lines = [f"## `brownout.ext.{name}`", "", text, ""]
    for public in module.__all__:
        thing = getattr(module, public)
        if public in {"classify", "resends", "ResendWarning"} or not inspect.getdoc(thing):
            continue
        made = inspect.isfunction(thing) or public in MADE  # the others are made by their library
        call = signature(thing) if made else ""
        lines += [f"### `brownout.ext.{name}.{public}{call}`", "", inspect.getdoc(thing) or "", ""]
    return lines


def states() -> str:
    lines = [
        NOTE,
        "# States",
        "",
        "| state | letter, shape | judged by callers over the window |",
        "|---|---|---|",
    ]
    lines += [f"| {s.name} | {s.letter} {s.shape} | {s.meaning} |" for s in State]
    lines += [
        "",
        "When two hold, the one further down the table is named. No evidence is not a state: it is",
        "None.",
    ]
    lines += ["", "## How they move", "", *moves()]
    lines += ["", "# The breaker's gate", "", "| from | when | to |", "|---|---|---|"]
    lines += [f"| {a.value} | {event} | {b.value} |" for (a, event), b in TRANSITIONS.items()]
    edges = [(a.value, event, b.value) for (a, event), b in TRANSITIONS.items()]
    lines += ["", f"It starts {GatePhase.CLOSED.value}.", "", *diagram(edges), ""]
    return "\n".join(lines)


def ledger() -> str:
    lines = [
        NOTE,
        "# The ledger",
        "",
        "What can happen to a key, from `brownout._core.standing.TABLE`. What is not in it cannot happen.",
        "",
        "| it is | what happens | handler | it is then | who asked is told |",
        "|---|---|---|---|---|",
    ]
    edges: list[tuple[str, str, str]] = []
    for (standing, event), found in TABLE.items():
        classes = {None: found} if isinstance(found, Move) else found
        for handler, move in classes.items():
            who = handler.value if handler else "any"
            cells = [standing.value, event.value, who, move.to.value, move.says.value]
            lines.append(f"| {' | '.join(cells)} |")
            if move.to is not standing:
                of = f" ({handler.value})" if handler else ""
                edges.append((standing.value, event.value + of, move.to.value))
    lines += ["", *diagram(edges), "", "# Names", ""]
    for name in (
        "Ledger",
        "Once",
        "Outcomes",
        "HandlerClass",
        "Standing",
        "Claim",
        "Found",
        "Answer",
        "Reply",
        "Asker",
        "Find",
    ):
        lines += entry(f"brownout.ledger.{name}", getattr(brownout.ledger, name))
    return "\n".join(lines).rstrip() + "\n"


def moves() -> list[str]:
    """The table of a target's states, and its diagram: all that are ill move alike, but to each other."""
    ill = [state.name for state in State if state is not State.HEALTHY]
    lines = ["| at | from | to | on what evidence |", "|---|---|---|---|"]
    edges: list[tuple[str, str, str]] = []
    for move in MOVES:
        before, after = groups(move.before, ill), groups(move.after, ill)
        to = ["another of these"] if before == after else after
        lines += [f"| {move.event} | {told(before)} | {told(to)} | {move.evidence} |"]
        edges += [(a, move.event, b) for a in before for b in after]
    return [
        *lines,
        "",
        f"A target starts with no evidence; *ill* is any of {', '.join(ill)}.",
        "An operation's state moves by a row of this table or not at all; a target's is that of its",
        "worst operation.",
        "",
        *diagram(edges),
    ]


def groups(states: tuple[State | None, ...], ill: list[str]) -> list[str]:
    names = ["no evidence" if state is None else state.name for state in states]
    return [name for name in names if name not in ill] + (["ill"] if set(ill) <= {*names} else [])


def told(names: list[str]) -> str:
    return " or ".join(f"*{name}*" if name == "ill" else name for name in names)


def diagram(edges: list[tuple[str, str, str]]) -> list[str]:
    """As mermaid draws it, from whoever is first."""
    names = {name: name.replace(" ", "_") for a, _, b in edges for name in (a, b)}
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f'    state "{name}" as {id_}' for name, id_ in names.items() if name != id_]
    lines += [f"    [*] --> {names[edges[0][0]]}"]
    lines += [f"    {names[a]} --> {names[b]}: {event}" for a, event, b in edges]
    return [*lines, "```"]


def cli() -> str:
    lines = [NOTE, "# Command line", ""]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    for verb in ("", *VERBS):
        command = [sys.executable, "-m", "brownout", *verb.split(), "--help"]
        out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        lines += [
            f"## `{f'brownout {verb}'.strip()}`",
            "",
            "```text",
            out.stdout.rstrip(),
            "```",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


PAGES = {"api.md": api, "ledger.md": ledger, "states.md": states, "cli.md": cli}


def main() -> int:
    stale = []
    for name, make in PAGES.items():
        path, text = HERE / name, make()
        if "--check" in sys.argv:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"out of date: {', '.join(stale)}; run: python docs/generate.py", file=sys.stderr)
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
