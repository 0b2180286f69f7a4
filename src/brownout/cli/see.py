"""The verbs that look: status, watch, explain."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING

from brownout.errors import ConfigurationError, FaultRefused
from brownout.fleet import local
from brownout.fleet.wire import clean
from brownout.render import json as as_json
from brownout.render import scopes as as_scopes
from brownout.render.explain import explain as explain_lines
from brownout.render.faults import InForce, faults, suffering
from brownout.render.text import Style, line, notes, style, table

if TYPE_CHECKING:
    from argparse import Namespace

POLL_SECONDS = 0.2
WIDEST = 120  # columns: a sentence in longer lines is hard to read


def status(options: Namespace) -> int:
    """The table; 1 with --strict if a target is ill, 2 if there is no target at all."""
    fleet, told = local.read(_fleet(options)), _in_force()
    if options.json:
        print(json.dumps(as_json.status(fleet, told), allow_nan=False))
    else:
        how = _style(options)
        lines = table(
            fleet.rows,
            at=fleet.at,
            observers=len(fleet.observers),
            columns=_columns(),
            style=how,
            suffering=suffering(told),
        )
        lines += faults(told, columns=_columns(), style=how)
        print("\n".join([*lines, *notes(fleet, columns=_columns(), style=how)]))
    if not fleet.rows:
        return 2
    return 1 if options.strict and any(row.ill for row in fleet.rows) else 0


def watch(options: Namespace) -> int:
    """Each change as a line, from now on, until Ctrl-C or the end of --for."""
    try:
        return _watch(options)
    except KeyboardInterrupt:  # the regular end, wherever it is met
        return 0


def _watch(options: Namespace) -> int:
    path, how = _fleet(options), _style(options)
    end = time.monotonic() + options.seconds
    _, last = local.changes(path)
    scopes = as_scopes.Scopes()
    while True:
        found, last = local.changes(path, last)
        for change in found:
            text = (
                json.dumps(as_json.change(change), allow_nan=False)
                if options.json
                else line(change, style=how)
            )
            print(text, flush=True)
        if found or scopes.open:
            fleet = local.read(path)
            for row in scopes.look(fleet.rows):
                told = as_scopes.as_json(row, fleet.at) if options.json else None
                print(
                    json.dumps(told) if told else as_scopes.line(row, fleet.at, style=how),
                    flush=True,
                )
        left = end - time.monotonic()
        if left <= 0:
            return 0
        time.sleep(min(POLL_SECONDS, left))


def explain(options: Namespace) -> int:
    """One target in full. Raises ConfigurationError if nobody calls one of that name."""
    path, wanted = _fleet(options), str(options.target)
    fleet = local.read(path)
    for row in fleet.rows:
        if row.target == wanted:
            if options.json:
                print(json.dumps(as_json.explain(row, fleet.at), allow_nan=False))
            else:
                lines = explain_lines(row, at=fleet.at, columns=_columns(), style=_style(options))
                print("\n".join(lines))
            return 0
    hint = _hint(wanted, [row.target for row in fleet.rows])
    raise ConfigurationError(f"no target {clean(wanted)!r} in {clean(path, 500)}; {hint}")


def _in_force() -> list[InForce]:
    """What is on record; a state folder that can't be read must not hide the targets: it is one line."""
    if not hasattr(os, "pidfd_open"):  # faults are of Linux
        return []
    from brownout.fault import record

    try:
        found = record.read(record.folder())
    except FaultRefused as error:
        print(f"brownout: {clean(str(error), 500)}", file=sys.stderr)
        return []
    return [
        InForce(
            each.id,
            clean(each.fault, 200),
            clean(each.place, 200),
            clean(each.target),
            each.seconds_left(),
            clean(each.failed, 200),
        )
        for each in found.records
        if each.kind  # else servers of ours, that faults are made at
    ]


def _hint(wanted: str, names: list[str]) -> str:
    near = difflib.get_close_matches(wanted, names, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"there are: {', '.join(names[:10])}" if names else "there is none yet"


def _fleet(options: Namespace) -> str:
    path: str = options.fleet or os.environ.get("BROWNOUT_FLEET", "")
    if not path:
        raise ConfigurationError(
            "which fleet? Give --fleet PATH, or set BROWNOUT_FLEET=PATH, the same for the processes that"
            " share into it and for this one"
        )
    return path


def _columns() -> int:
    return min(WIDEST, shutil.get_terminal_size((100, 24)).columns)


def _style(options: Namespace) -> Style:
    return style(
        os.environ,
        terminal=sys.stdout.isatty(),
        ascii_only=options.ascii,
        encoding=sys.stdout.encoding or "ascii",
    )
