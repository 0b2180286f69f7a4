"""What `Once` answers in the handler's place: problem+json (RFC 9457), with types that stay.

A client tells them apart by `type`, never by `title` or `detail`. `Outcome` is written only where it is
certain: `not-started` says that this call has done nothing and that nothing of it will follow.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

__all__ = ["MEDIA", "PREFIX", "Problem", "Sent", "named"]

PREFIX = "urn:brownout:problem:"
MEDIA = "application/problem+json"

NOT_STARTED, RUNNING, VOIDED, DOUBT, DONE = "not-started", "running", "voided", "doubt", "done"

# name: (status, title, outcome)
_KNOWN: dict[str, tuple[int, str, str]] = {
    "no-principal": (401, "Who calls is not known", NOT_STARTED),
    "principal-failed": (500, "Who calls could not be found out", NOT_STARTED),
    "key-missing": (400, "This route needs an Idempotency-Key", NOT_STARTED),
    "key-malformed": (400, "The Idempotency-Key can't be read", NOT_STARTED),
    "key-too-long": (400, "The Idempotency-Key is too long", NOT_STARTED),
    "key-from-the-future": (422, "The Idempotency-Key is from the future", NOT_STARTED),
    # Not "not-started": an earlier call with this key may have done the work, and be forgotten.
    "key-too-old": (422, "The Idempotency-Key is too old", ""),
    "other-payload": (422, "The key names other work", ""),
    "body-too-large": (413, "The body is too large", NOT_STARTED),
    "body-too-late": (408, "The body did not come in time", NOT_STARTED),
    "ledger-unavailable": (503, "The ledger can't be asked", NOT_STARTED),
    "no-effect": (503, "Nothing was done", NOT_STARTED),
    "running": (409, "The work is running", RUNNING),
    "voided": (410, "The work was voided", VOIDED),
    "in-doubt": (409, "What became of the work is not known", DOUBT),
    "not-enlisted": (500, "The work is not on record", DOUBT),
    "not-committed": (500, "The work was not committed", ""),
    "not-recorded": (503, "What became of the work could not be recorded", ""),
    "handler-failed": (500, "The handler failed", ""),
    "ambiguous-key": (409, "The key names work of several routes", ""),
    "route-missing": (400, "The question must name its route", ""),
    "unknown-key": (404, "No such key is known here", ""),
    "no-such-question": (404, "There is no such question", ""),
    "method-not-allowed": (405, "This question is asked otherwise", ""),
    "could-not-ask": (503, "The ledger can't be asked", ""),
}


class Sent(NamedTuple):
    """An answer that is complete: it can be sent, or looked at."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def raw(self) -> list[tuple[bytes, bytes]]:
        """The headers as ASGI has them."""
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]


class Problem(Exception):
    """One of the answers above: raised where it is found, sent by whoever serves the call.

    `name` is the end of its type, `detail` the sentence that says what to do. `outcome` is what its
    header says, where that is not the usual. `retry_after` seconds, if asking again then makes sense.
    """

    def __init__(
        self,
        name: str,
        detail: str,
        *,
        outcome: str | None = None,
        retry_after: float | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name
        self.detail = detail
        self.status, self.title, usual = _KNOWN[name]
        self.outcome = usual if outcome is None else outcome
        self.retry_after = retry_after
        self.headers = headers

    def answer(self) -> Sent:
        """What is sent."""
        told = {
            "type": PREFIX + self.name,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        body = json.dumps(told).encode()
        headers = [
            ("content-type", MEDIA),
            ("content-length", str(len(body))),
            ("cache-control", "no-store"),
        ]
        if self.outcome:
            headers.append(("outcome", self.outcome))
        if self.retry_after is not None:
            headers.append(("retry-after", seconds(self.retry_after)))
        return Sent(self.status, (*headers, *self.headers), body)


def seconds(span: float) -> str:
    """A span as Retry-After has it: whole seconds, at least one, at most an hour."""
    return str(max(1, min(3600, -int(-span // 1))))


def named(body: bytes) -> str:
    """The name of the problem that a body tells; "" if it tells none of ours."""
    try:
        told: Any = json.loads(body)
        type_: Any = told.get("type")
    except (ValueError, RecursionError, AttributeError):
        return ""
    name = type_.removeprefix(PREFIX) if isinstance(type_, str) else ""
    return name if name in _KNOWN and type_ != name else ""
