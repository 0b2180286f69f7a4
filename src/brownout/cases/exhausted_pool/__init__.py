"""The case `exhausted-pool`: some calls return at once, others wait out the time-out, and nothing is "down".

A shop answers some pages by itself and asks its downstream for others, through a pool of connections.
When some of the downstream's answers hang, the pool fills; the shop's health check goes on saying ok.
Two chains of real processes get the same calls and the same faults: one with brownout, one without. After
the case the downstream is taken through DEGRADED, OVERLOADED, UNRESPONSIVE and CRASHED, and back.

    load ─┬─ caller ── shop ──┬── proxy ── downstream
          └─ caller ── shop ──┘            (two instances that share nothing)
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import tempfile
import threading
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

from brownout.render.cells import style

from . import card, play, report
from .crew import CrewError
from .schedule import PHASES, Phase
from .score import score
from .show import Screen

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["demo"]

HELD, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
_NEEDED = ("httpx2", "uvicorn")
_ENDINGS = ("SIGTERM", "SIGHUP")


def demo(
    *,
    faults: bool,
    json_path: str | None,
    out: TextIO,
    live: bool,
    phases: tuple[Phase, ...] = PHASES,
) -> int:
    """Play the case and write its scorecard to `out`; the exit code: 0 only if every expectation held.

    Without `faults` nothing is made to fail: then the expectations must not hold. `json_path` is where
    everything is written as JSON. `live`: `out` is a terminal, where a table is redrawn in place. Exit
    code 1: an expectation did not hold, or a process broke down; 2: it can't be played here; 130: Ctrl-C.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        return _fail(f'the demo needs {" and ".join(missing)}: pip install "brownout[demo]"')
    target = Path(json_path) if json_path is not None else None
    if target is not None and (target.is_dir() or not os.access(target.parent, os.W_OK)):
        return _fail(f"{target} can't be written: give --json a file in a folder that can be")
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    look = style(os.environ, terminal=live, encoding=out.encoding or "utf-8")
    screen = Screen(out, look, phases, live=live and not dumb)
    try:
        with tempfile.TemporaryDirectory(prefix="brownout-demo-") as folder, _endings():
            try:
                screen.open()
                run = play.run(Path(folder), phases, faults=faults, watch=screen.watch)
            finally:
                screen.close()
    except KeyboardInterrupt:
        out.write("\n stopped; every process has ended\n")
        return INTERRUPTED
    except CrewError as error:
        sys.stderr.write(f"brownout demo: {error}\n")
        return FAILED
    result = score(run, phases)
    version = _version()
    out.writelines(text + "\n" for text in card.lines(run, result, version=version, style=look))
    if target is not None:
        target.write_text(report.text(run, result, phases, version=version), "utf-8")
        out.write(f" written: {target}\n")
    return HELD if result.held else FAILED


def _version() -> str:
    try:
        return metadata.version("brownout")
    except metadata.PackageNotFoundError:  # run from its source, not installed
        return "from source"


def _fail(message: str) -> int:
    sys.stderr.write(f"brownout demo: {message}\n")
    return USAGE


@contextmanager
def _endings() -> Generator[None]:
    """Let a polite kill end the play in order, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _ENDINGS if hasattr(signal, name)]
    before = {number: signal.signal(number, _end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
