"""One request on its way: what the client's trace tells of it, and what its answer shows."""

from __future__ import annotations

import os
import time
from math import inf
from typing import TYPE_CHECKING, Any

from brownout import Attempt, Certainty, OutcomeClass, Phase, Shown
from brownout.ext.httpx.body import SWITCHED, follow
from brownout.ext.httpx.connection import Found, abort, found, stream_of
from brownout.ext.httpx.meaning import known
from brownout.ext.httpx.shared import Shared, Stream
from brownout.ext.reply import SAFE, Answered, answer, changed
from brownout.ext.trail import certain, lost, mark, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from brownout import DeadlineHeader


class Exchange:
    """The attempt under way, and the answer that waits for the decision."""

    def __init__(
        self,
        request: Any,
        transport: Any,
        *,
        traced: bool,
        deadline_headers: Sequence[DeadlineHeader],
    ) -> None:
        self.request = request
        self.transport = transport
        self.traced = traced
        self.deadline_headers = deadline_headers
        self.attempt: Attempt | None = None
        self.process = os.getpid()
        self.spare: Any = None
        self.replayable = replayable(request)
        self.changes = request.method not in SAFE
        self.users = request.extensions
        self.users_trace = request.extensions.get("trace")
        self.timeout: dict[str, Any] | None = None
        self.stream: Any = None  # of the network, known when the answer has begun
        self.whole = False  # the answer has come to its end
        self.tunnelling = False  # a proxy is asked for a way to the target
        self.at: Found | None = None  # known when it is sent
        self.shared: Stream | None = None  # of HTTP/2, beside others on one connection

    def begin(self, attempt: Attempt, trace: Callable[..., Any], *, bounded: bool) -> None:
        """Set the request up for an attempt; `bounded`: its time is pushed into the client."""
        self.attempt = attempt
        self.stream, self.whole, self.tunnelling = None, False, False
        self.at = self.shared = None
        if self.traced:
            attempt.waiting()
        self.request.headers.update(attempt.headers(time.monotonic(), self.deadline_headers))
        self.request.extensions = {**self.users, "trace": trace}
        if bounded and attempt.deadline < inf:
            self.timeout = self.request.extensions["timeout"] = {}
            self._push(attempt)

    def _push(self, attempt: Attempt) -> None:
        # The client looks a span up when it begins to wait for it: each gets what is left by then.
        if self.timeout is not None:
            users: dict[str, Any] = self.users.get("timeout") or {}
            left = attempt.deadline - time.monotonic()
            for span in ("connect", "read", "write", "pool"):
                self.timeout[span] = _shorter(users.get(span), left)

    def event(self, name: str, info: dict[str, Any], *, is_async: bool) -> Callable[[], Any] | None:
        """Take in an event of the client's trace; what is to be done (or awaited) before it goes on."""
        attempt = self.attempt
        if attempt is None or self.process != os.getpid():  # after a fork it is the parent's
            return None
        self._push(attempt)
        if (
            attempt.queued
        ):  # its first event: the pool has given it a connection, or leave to make one
            attempt.waited(time.monotonic() - attempt.began)
        self._tunnel(name, info)
        if self.tunnelling:
            pass  # the target has not been told anything
        elif name.endswith("send_request_headers.started"):
            _stamp(info, attempt, self.deadline_headers)
            self.at = found(self.transport, self.request.extensions)
            if self.at is not None:
                self.at.tell(attempt)
            attempt.sent()
        elif name.endswith("receive_response_headers.complete"):
            attempt.receiving()
        elif name.endswith("receive_response_body.complete"):
            self.whole = True
        if name.startswith("http2."):
            return self._share(name.removeprefix("http2."), info, is_async=is_async)
        if name == "http11.response_closed.started" and not self.whole:
            abort(self.stream or stream_of(self.transport, self.request.extensions))
        return None

    def _tunnel(self, name: str, info: dict[str, Any]) -> None:
        if name == "http11.send_request_headers.started":
            asked: Any = getattr(info.get("request"), "method", None)
            self.tunnelling = asked == b"CONNECT" and self.request.method != "CONNECT"
        elif name == "proxy.start_tls.started":
            self.tunnelling = False

    def _share(
        self, name: str, info: dict[str, Any], *, is_async: bool
    ) -> Callable[[], Any] | None:
        now = time.monotonic()
        if name == "send_connection_init.started":
            at = found(self.transport, self.request.extensions)
            if at is not None:
                Shared.begin(at.connection, is_async=is_async)
        elif name == "send_request_headers.started":
            if self.at is not None:
                self.shared = Stream(self.at.connection, info["request"], info["stream_id"], now)
        elif self.shared is not None and name == "response_closed.started" and not self.whole:
            return self.shared.give_up(now)
        elif self.shared is not None and name == "response_closed.complete":
            self.shared.left()
        return None

    def decide(self, response: Any, attempt: Attempt, kind: str) -> Any:
        """Pass on an answer that is a success, its body still to be read; raise Answered with any other."""
        shown = answer(response.status_code, response.headers)
        if self.changes and changed(response.status_code, shown):
            mark()
        if response.status_code != SWITCHED:
            self.stream = response.extensions.get("network_stream")
        if shown is None:
            follow(response, attempt, kind)
            return response
        self.spare = response
        raise Answered(response, shown)

    def classify(self, error: BaseException) -> Shown | None:
        """What an exception shows, as the guard asks; None if it is not the client's."""
        shown = error.shown if isinstance(error, Answered) else known(error)
        if shown is None:
            return None
        not_sent = self.attempt is None or self.attempt.phase is Phase.NOT_SENT
        if not_sent and shown.class_ is OutcomeClass.FAILURE:
            return Shown.of(OutcomeClass.CONNECT)  # the connection broke before anything was sent
        if not self.replayable and not not_sent and shown.certainty is Certainty.ABSENT:
            return shown._replace(certainty=Certainty.ANSWERED)  # its body is gone: never again
        return shown

    def tell(self, error: BaseException) -> None:
        """Say on an exception that ends an attempt what it shows, to any guard that it passes through."""
        attempt = self.attempt
        if isinstance(error, Answered) or attempt is None:
            return
        shown = known(error) if isinstance(error, Exception) else None
        if attempt.phase is Phase.NOT_SENT:
            queued = attempt.queued or (shown is not None and shown.class_ is OutcomeClass.LOCAL)
            silent = OutcomeClass.UNKNOWN if shown is None else shown.class_
            broken = OutcomeClass.CONNECT if silent is OutcomeClass.FAILURE else silent
            shown = certain(OutcomeClass.LOCAL if queued else broken)
        elif shown is None:
            shown = lost(OutcomeClass.UNKNOWN)
        tell(error, shown, changes=self.changes)


def _stamp(
    info: dict[str, Any], attempt: Attempt, deadline_headers: Sequence[DeadlineHeader]
) -> None:
    """Tell the time that is left now, at the first byte: the wait for a connection is over."""
    headers: Any = getattr(info.get("request"), "headers", None)
    if headers.__class__ is list:
        for name, value in attempt.headers(time.monotonic(), deadline_headers).items():
            key = name.encode()
            headers[:] = [(k, value.encode() if k.lower() == key else v) for k, v in headers]


def replayable(request: Any) -> bool:
    """Whether the request's body can be read, and so be sent, again."""
    try:
        request.content  # noqa: B018 - raises when the body is a stream that can be read once
    except Exception:
        return False
    return True


def _shorter(span: float | None, left: float) -> float:
    return max(0.001, left if span is None else min(span, left))
