"""The questions that a server with `Once` answers: what became of a key, and see that it never happens.

    GET  /.well-known/outcome               how long keys are good, and the class of each route
    GET  /.well-known/outcome/{key}         where a key stands; `Prefer: wait=n` waits for a fact
    POST /.well-known/outcome/{key}/void    the same, and what has not begun never will

`?route=POST%20/pay` names the route. Without it all are looked through: a key that is found at one is that
one's, and one that is voided is voided at each.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from brownout._core.ledger import Answer, Standing

from .principal import scope_of
from .problem import Problem, Sent, seconds
from .routes import UNDECLARED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from brownout.ledger.front import Ledger

    from .routes import Route, Routes

__all__ = ["AT", "OUTCOME_OF", "Question", "about", "answer", "found", "parse"]

AT = "/.well-known/outcome"
LOOKED_THROUGH_MOST = 32
# Seconds between looks for an answer whose commit was seen: it is added in the next moment, or never.
REPLY_WAITS = (0.01, 0.03, 0.06, 0.1)
PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4)  # seconds between two looks; the last one stays
OUTCOME_OF = {
    Standing.DONE: "done",
    Standing.RUNNING: "running",
    Standing.VOID: "voided",
    Standing.DOUBT: "doubt",
    Standing.ABSENT: "absent",
}
_LIVE = {Standing.DONE, Standing.RUNNING, Standing.DOUBT}


class Question:
    """One question: about which key, of which routes, and whether it is to be voided."""

    def __init__(self, key: str, routes: list[Route], *, void: bool, named: bool) -> None:
        self.key = key
        self.routes = routes
        self.void = void
        self.named = named


def parse(method: str, path: str, query: bytes, routes: Routes) -> Question | None:
    """The question that a call asks; None for the one about the server itself. Raises Problem."""
    parts = path.removeprefix(AT).strip("/").split("/")
    key, verb = parts[0], "/".join(parts[1:])
    if verb not in {"", "void"} or (verb and not key):
        raise Problem("no-such-question", f"There are {AT}, {AT}/KEY and {AT}/KEY/void.")
    allowed = "POST" if verb else "GET, HEAD"
    if method not in allowed.split(", "):
        detail = f"Ask this with {allowed}."
        raise Problem("method-not-allowed", detail, headers=(("allow", allowed),))
    if not key:
        return None
    named = parse_qs(query.decode("latin-1")).get("route", [])
    if len(named) > 1:
        raise Problem("route-missing", "Several routes are named. Name one.")
    if named:
        return Question(key, [routes.named(named[0])], void=bool(verb), named=True)
    every = [*routes.all(), UNDECLARED]
    if len(every) > LOOKED_THROUGH_MOST:
        detail = f"There are {len(every)} routes here. Name one: ?route=POST%20/path"
        raise Problem("route-missing", detail)
    return Question(key, every, void=bool(verb), named=False)


async def found(
    ledger: Ledger, who: str, question: Question, wait: float, hold: float
) -> tuple[Answer, Route | None]:
    """Where the key stands, and at which route.

    Waits up to `wait` seconds for a fact; a void up to `hold` for a transaction that has the key.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    end, replies = began + wait, list(REPLY_WAITS)
    scoped = [
        (route, ledger.of(scope_of(ledger.scope, route.template, who))) for route in question.routes
    ]
    turn = 0
    while True:
        told = _joined(
            [
                (route, await one.aask(question.key, void=False, seconds=0.0))
                for route, one in scoped
            ]
        )
        if question.void and told[0].standing is Standing.ABSENT:
            voided: list[tuple[Route, Answer]] = []
            for route, one in scoped:
                left = max(0.0, began + hold - loop.time())
                voided.append((route, await one.aask(question.key, void=True, seconds=left)))
            told = _joined(voided)
        left = end - loop.time()
        if told[0].pending and replies:
            await asyncio.sleep(replies.pop(0))
            continue
        settled = told[0].fact or told[0].standing is Standing.DOUBT
        if settled or left <= 0 or (question.void and told[0].standing is Standing.ABSENT):
            return told
        await asyncio.sleep(min(PAUSES[min(turn, len(PAUSES) - 1)], left))
        turn += 1


def _joined(told: list[tuple[Route, Answer]]) -> tuple[Answer, Route | None]:
    """One answer out of those about each route. Raises Problem if the key was used at several."""
    live = [(answer, route) for route, answer in told if answer.standing in _LIVE]
    if len(live) > 1:
        names = ", ".join(route.template for _, route in live)
        detail = f"It was used at {names}. Name one: ?route=POST%20/path"
        raise Problem("ambiguous-key", detail)
    if live:
        return live[0]
    # Void at one and absent at another proves nothing about the other; nor does too old at any.
    rest = [answer for _, answer in told]
    weakest = [one for one in rest if one.standing is Standing.ABSENT] or rest
    return weakest[0], None


def answer(question: Question, told: Answer, route: Route | None) -> Sent:
    """What is sent."""
    outcome = OUTCOME_OF[told.standing]
    if told.standing is Standing.ABSENT:
        if question.void:
            raise Problem(
                "key-too-old",
                "What became of it was forgotten. It will not be begun any more.",
            )
        raise Problem(
            "unknown-key",
            f"That proves nothing: a call may be on its way. For a fact, POST {AT}/KEY/void.",
        )
    body: dict[str, Any] = {"outcome": outcome, "because": told.because}
    if route is not None:
        body["route"] = route.template
    if told.standing is Standing.DONE:
        body["reply"] = None
        if told.reply is not None:
            body["reply"] = {
                "status": told.reply.status,
                "headers": told.reply.headers,
                "body": base64.b64encode(told.reply.body).decode(),
                "whole": told.reply.whole,
            }
    if route is not None and not question.named:
        outcome += f';route="{route.template}"'
    headers = [("outcome", outcome)]
    if told.standing is Standing.RUNNING:
        headers.append(("retry-after", seconds(told.retry_after or 1.0)))
    return _json(body, headers)


def about(ledger: Ledger, routes: Routes, body_most: int) -> Sent:
    """What the server says of itself."""
    told = {
        "horizon_seconds": ledger.horizon_seconds,
        "margin_seconds": ledger.margin_seconds,
        "lease_seconds": ledger.lease_seconds,
        "body_most_bytes": body_most,
        "kept_most_bytes": ledger.most_kept_bytes,
        "routes": {route.template: route.handler.value for route in routes.all()},
        "undeclared": UNDECLARED.handler.value,
    }
    return _json(told, [])


def _json(told: dict[str, Any], headers: Iterable[tuple[str, str]]) -> Sent:
    body = json.dumps(told).encode()
    usual = [
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
    ]
    return Sent(200, (*usual, *headers), body)
