"""What the processes wrote, read into values: the truth from the proxy and the load, and what was seen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from brownout import State


class Call(NamedTuple):
    """One call of the load, as it was judged from outside."""

    at: float
    chain: str
    path: str
    seconds: float
    verdict: str


class Busy(NamedTuple):
    """A tenth of a second of one instance of the downstream."""

    at: float
    chain: str
    received: int
    served: int
    shed: int
    waiting: int


class Spell(NamedTuple):
    """A phase as it really was: `first` is its first effect on the chain with brownout."""

    name: str
    began: float
    first: float
    ended: float


class Seen(NamedTuple):
    """A target's state changed, as its caller's guard saw it. No state is no evidence."""

    at: float
    target: str
    state: State | None
    because: str


class Claim(NamedTuple):
    """What a shop's own health check said: how often it was asked, how often it said ok."""

    asked: int
    ok: int


class Run(NamedTuple):
    """Everything that one play left behind. `start` and `stop` are those of the load.

    `undone`: after the last fault a quote came right and in time through both proxies.
    """

    start: float
    stop: float
    calls: list[Call]
    busy: list[Busy]
    spells: list[Spell]
    seen: list[Seen]
    claims: dict[str, Claim]
    undone: bool


def read(folder: Path, seen: list[Seen], claims: dict[str, Claim], *, undone: bool) -> Run:
    """Read the records of the load, the proxy and the downstream."""
    load, proxy = _lines(folder / "load.jsonl"), _lines(folder / "proxy.jsonl")
    marks = {line["kind"]: line["at"] for line in load if line["kind"] in {"start", "stop"}}
    return Run(
        start=marks["start"],
        stop=marks["stop"],
        calls=[_row(Call, line) for line in load if line["kind"] == "call"],
        busy=[_row(Busy, line) for line in _lines(folder / "downstream.jsonl")],
        spells=spells(load, proxy, marks["stop"]),
        seen=sorted(seen, key=lambda change: change.at),
        claims=claims,
        undone=undone,
    )


def spells(load: list[dict[str, Any]], proxy: list[dict[str, Any]], stop: float) -> list[Spell]:
    """The truth: each fault of the proxy, and each stretch of a changed rate, with its first effect."""
    found: list[Spell] = []
    for began in (line for line in proxy if line["kind"] == "began"):
        same = [line for line in proxy if line["name"] == began["name"]]
        ended = [line["at"] for line in same if line["kind"] == "ended"]
        effects = [
            line["at"] for line in same if line["kind"] == "effect" and line["chain"] == "with"
        ]
        # A refused connection leaves no trace in the proxy: it is refused as soon as nobody listens.
        first = began["at"] if began["fault"] == "refuse" else min(effects, default=began["at"])
        found.append(Spell(began["name"], began["at"], first, ended[0] if ended else stop))
    rates = [line for line in load if line["kind"] == "rate"]
    for began in (line for line in rates if line["name"]):
        later = [line["at"] for line in rates if line["at"] > began["at"]]
        found.append(Spell(began["name"], began["at"], began["at"], min(later, default=stop)))
    return sorted(found, key=lambda spell: spell.began)


def _row(kind: Any, line: dict[str, Any]) -> Any:
    return kind(**{name: line[name] for name in kind._fields})


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
