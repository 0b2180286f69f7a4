"""`brownout unknown`: outcomes that nobody knows yet, as a caller's journal has them. Never a body."""

from __future__ import annotations

import json
import os
import time
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brownout import Certainty, Guard, Key, Outcome, OutcomeUnknown, Phase
from brownout.errors import BrownoutError, ConfigurationError
from brownout.fleet.wire import clean
from brownout.ledger.journal import opened, path_of

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from brownout.ledger import Asker, Entry
    from brownout.ledger.journal import Journal

__all__ = ["add"]

JOURNAL, ASK, HEADER = "BROWNOUT_JOURNAL", "BROWNOUT_ASK", "BROWNOUT_ASK_HEADER"
NOBODY = "unknown"  # the target of a key that no journal names


def add(verbs: Any, duration: Callable[[str], float]) -> None:
    """Hang the verb into the command line's."""
    parser = verbs.add_parser("unknown", help="calls of which nobody knows whether they were done")
    inner = parser.add_subparsers(dest="unknown_verb", required=True, metavar="VERB")
    listing = inner.add_parser("list", help="what a journal holds: keys and targets, never bodies")
    _where(listing)
    listing.set_defaults(run=_list)
    for verb, text, run in (
        ("resolve", "ask what became of them; nothing is changed", _resolve),
        ("void", "ask, and see to it that what has not begun never does", _void),
    ):
        settling = inner.add_parser(verb, help=text)
        which = "KEY: these; none: all of the journal" if verb == "resolve" else "which; see --all"
        settling.add_argument("keys", nargs="*", metavar="KEY", help=which)
        if verb == "void":
            settling.add_argument("--all", action="store_true", help="all of the journal")
        settling.add_argument(
            "--ask",
            metavar="URL",
            help="whom to ask: http://... of the server, or its ledger's sqlite:///, postgresql:// or"
            f" redis:// (default: {ASK}, which `ps` doesn't show)",
        )
        settling.add_argument(
            "--route", default="", help='of an http URL: that of the calls, such as "POST /pay"'
        )
        settling.add_argument(
            "--scope",
            help="of a ledger's URL: the one that the calls have, for in another one every key is absent;"
            ' to void, name it ("" if there is none)',
        )
        settling.add_argument(
            "--header",
            action="append",
            default=[],
            metavar="NAME:VALUE",
            help="who asks, for an http URL: the same as in the calls, for to anybody else every key is"
            f" absent (also {HEADER}, which `ps` doesn't show)",
        )
        settling.add_argument(
            "--within",
            type=duration,
            default=5.0,
            metavar="DURATION",
            help="for each (default: 5s)",
        )
        _where(settling)
        settling.set_defaults(run=run)
    forgetting = inner.add_parser(
        "forget", help="strike them out of the journal: somebody has found out what became of them"
    )
    forgetting.add_argument("keys", nargs="+", metavar="KEY")
    _where(forgetting)
    forgetting.set_defaults(run=_forget)


def _where(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--journal", metavar="URL", help=f"such as sqlite:///unknown.db (default: {JOURNAL})"
    )
    parser.add_argument("--target", help="only what was sent to this target")
    parser.add_argument("--json", action="store_true", help="print JSON")


# ------------------------------------------------------------------------------------------- list


def _list(options: Namespace) -> int:
    entries = _journal(options, needed=True).unsettled(options.target)  # type: ignore[union-attr]
    if options.json:
        print(json.dumps({"unknown": [_plain(entry) for entry in entries]}))
        return 0
    rows = [("KEY", "TARGET", "OPERATION", "CAME AS FAR AS", "SINCE", "NOW")]
    rows += [
        (
            clean(entry.key, 255),
            clean(entry.target),
            clean(entry.operation),
            entry.phase.name.lower().replace("_", " "),
            f"{_age(time.time() - entry.since)} ago",
            "held" if entry.held else "free",
        )
        for entry in entries
    ]
    wide = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows if entries else ():
        print("  ".join(cell.ljust(wide[n]) for n, cell in enumerate(row)).rstrip())
    if not entries:
        print("nothing is unknown")
    return 0


def _plain(entry: Entry) -> dict[str, Any]:
    return {
        "key": clean(entry.key, 255),
        "target": clean(entry.target),
        "operation": clean(entry.operation),
        "phase": entry.phase.name,
        "since": entry.since,
        "held": entry.held,
    }


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def _forget(options: Namespace) -> int:
    journal = _journal(options, needed=True)
    assert journal is not None
    known = {entry.key: entry for entry in journal.unsettled(options.target)}
    found = [_known(known, key, journal) for key in options.keys]
    for entry in found:
        journal.settle(entry.key, entry.target)
    left = {entry.key for entry in journal.unsettled(options.target)} & set(options.keys)
    if left:
        raise BrownoutError(f"{clean(journal.path, 500)} can't be written: {journal.trouble}")
    print(json.dumps({"forgotten": options.keys}) if options.json else f"forgotten: {len(found)}")
    return 0


def _known(known: dict[str, Entry], key: str, journal: Journal) -> Entry:
    if key not in known:
        raise ConfigurationError(
            f"no key {clean(key, 255)!r} in {clean(journal.path, 500)}; see: brownout unknown list"
        )
    return known[key]


# -------------------------------------------------------------------------------------- to settle


def _resolve(options: Namespace) -> int:
    return _settle(options, "keep", everything=not options.keys)


def _void(options: Namespace) -> int:
    if bool(options.keys) == options.all:
        raise ConfigurationError("which? Give each KEY, or --all for all of the journal")
    return _settle(options, "void", everything=options.all)


def _settle(options: Namespace, give_up: str, *, everything: bool) -> int:
    """Settle them one by one; 1 if any is still unknown, 2 if there is none."""
    journal = _journal(options, needed=everything)
    wanted = _wanted(options, journal, everything=everything)
    guards = {
        target: Guard(target, breaker=None, ask=asker, journal=journal)
        for asker in [_asker(options)]
        for target in {target for target, _ in wanted}
    }
    told: list[dict[str, Any]] = []
    for target, outcome in wanted:
        new = guards[target].resolve(outcome, within=options.within, give_up=give_up)
        told.append(_told(target, new))
        if not options.json:
            one = told[-1]
            print(
                f"{one['key']}  {one['target']}  {one['outcome']:<9}  {one['because']}", flush=True
            )
    if options.json:
        print(json.dumps({"settled": told}))
    elif not told:
        print("nothing is unknown")
    return 1 if any(one["outcome"] == "unknown" for one in told) else 0


def _wanted(
    options: Namespace, journal: Journal | None, *, everything: bool
) -> list[tuple[str, Outcome[Any]]]:
    entries = [] if journal is None else journal.unsettled(options.target)
    if everything:
        targets = sorted({clean(entry.target) for entry in entries})
        if len(targets) > 1:
            raise ConfigurationError(
                f"--ask is one place, but the journal has {len(targets)} targets: name one by --target:"
                f" {', '.join(targets[:10])}"
            )
        return [
            (entry.target, _outcome(entry.target, entry)) for entry in entries if not entry.held
        ]
    known = {entry.key: entry for entry in entries}
    found: list[tuple[str, Outcome[Any]]] = []
    for key in options.keys:
        entry = None if journal is None else _known(known, key, journal)
        target = (options.target or NOBODY) if entry is None else entry.target
        found.append((target, _outcome(target, entry, key)))
    return found


def _outcome(target: str, entry: Entry | None, key: str = "") -> Outcome[Any]:
    name = str(Key(key)) if entry is None else entry.key
    phase = Phase.SENDING if entry is None else entry.phase
    error = OutcomeUnknown(f"{target}: {name}", target=target, sent_at=0.0, phase=phase)
    since = inf if entry is None else time.monotonic() - max(0.0, time.time() - entry.since)
    return Outcome(None, error, Certainty.UNKNOWN, 0, 0.0, name, phase, since)


def _told(target: str, outcome: Outcome[Any]) -> dict[str, Any]:
    if outcome.succeeded:
        status = getattr(outcome.value, "status", None)
        answered = "what it answered was not kept" if status is None else f"it answered {status}"
        became, because = "succeeded", f"done; {answered}"
    else:
        became = "failed" if outcome.failed else "unknown"
        because = str(outcome.error).partition(f"{outcome.key} ")[2] or str(outcome.error)
    return {
        "key": clean(str(outcome.key), 255),
        "target": clean(target),
        "outcome": became,
        "because": clean(because.removeprefix("is still unknown: "), 500),
    }


def _journal(options: Namespace, *, needed: bool) -> Journal | None:
    url: str = options.journal or os.environ.get(JOURNAL, "")
    if not url:
        if not needed:
            return None
        raise ConfigurationError(
            f"which journal? Give --journal URL, or set {JOURNAL}=URL, the one that the guards were given"
        )
    path = path_of(url)
    if not Path(path).exists():
        raise ConfigurationError(
            f"no journal {clean(path, 500)}: no guard has written one there; is the URL right?"
            " (three slashes and a name is below this folder, four are an absolute path)"
        )
    return opened(url)


def _asker(options: Namespace) -> Asker:
    url: str = options.ask or os.environ.get(ASK, "")
    if not url:
        raise ConfigurationError(
            f"whom to ask? Give --ask URL, or set {ASK}=URL: the server's http://..., or its ledger's URL"
        )
    if not url.startswith(("http://", "https://")):
        from brownout.ledger import Ledger

        if options.unknown_verb == "void" and options.scope is None:
            raise ConfigurationError(
                "in which scope? In another one than the calls' every key is absent, and would be said never"
                ' to have happened: give --scope ("" if the ledger has none)'
            )
        return Ledger(url, scope=options.scope or "")
    from brownout.ledger import Outcomes

    lines = [*filter(None, [os.environ.get(HEADER)]), *options.header]
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ConfigurationError("a --header is NAME:VALUE, such as Authorization:Bearer-...")
        headers[name.strip()] = value.strip()
    try:
        asker: Asker = Outcomes(url, route=options.route, headers=headers)
        return asker
    except ValueError as error:
        raise BrownoutError(str(error)) from error
