"""Writes the parts of the reference that the code itself knows: `python docs/generate.py [--check]`.

api.md from the public names and their docstrings, states.md from the tables, cli.md from the help of the
command line. With --check nothing is written, and what is out of date is named.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import brownout
import brownout.behind
import brownout.ext.asgi
import brownout.ext.behind
import brownout.ext.httpx
import brownout.testing
from brownout import State
from brownout._core.breaker import TRANSITIONS, GatePhase

HERE = Path(__file__).parent / "reference"
NOTE = "<!-- Made by docs/generate.py: change the code, not this file. -->\n"
MADE = {
    "Behind", "Breaker", "DeadlineHeader", "Deadlines", "FakeClock", "Guard", "Positions", "Retry",
    "Transport", "deadline",
}  # by users  # fmt: skip
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
    for name in brownout.testing.__all__:
        lines += entry(f"brownout.testing.{name}", getattr(brownout.testing, name))
    lines += ["## Errors", "", "```text"]
    lines += [inspect.getdoc(brownout.errors) or "", "```", ""]
    return "\n".join(lines).rstrip() + "\n"


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
    lines += ["", "# The breaker's gate", "", "| from | when | to |", "|---|---|---|"]
    lines += [f"| {a.value} | {event} | {b.value} |" for (a, event), b in TRANSITIONS.items()]
    lines += ["", f"It starts {GatePhase.CLOSED.value}.", ""]
    return "\n".join(lines)


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


PAGES = {"api.md": api, "states.md": states, "cli.md": cli}


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
