"""`Outcomes`: asks a server that has `Once` what became of a key. Only the standard library is needed."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from math import isfinite
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urlsplit

from brownout._core.ledger import Answer, Reply, Standing
from brownout.errors import (
    ConfigurationError,
    KeyFromTheFuture,
    KeyMalformed,
    KeyTooOld,
    LedgerError,
    LedgerUnavailable,
)

from .http.problem import named
from .http.questions import AT, OUTCOME_OF
from .http.routes import OTHER, Routes

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

__all__ = ["Outcomes"]

MOST_BYTES = 1_048_576  # a kept body has 64 KiB, and some more in base64
POOL = 8  # questions at the same time, from asyncio
SLACK_SECONDS = 0.5  # of the time for a question: for the way there and back
LEAST_SECONDS = 0.05
LATE_SECONDS = 0.2  # for a thread to tell
_STANDING = {outcome: standing for standing, outcome in OUTCOME_OF.items()}

# They say something of the key, so that asking again is of no use.
_REFUSED: dict[str, type[LedgerError]] = {
    "key-malformed": KeyMalformed,
    "key-too-long": KeyMalformed,
    "key-too-old": KeyTooOld,
    "key-from-the-future": KeyFromTheFuture,
}


class Outcomes:
    """Asks the server at `url` what became of a key: `Guard("payments", ask=Outcomes("http://payments"))`.

    The server has `Once`, below the path of `url` if there is one. `route` names the route of the calls,
    by its template ("POST /orders/{id}/pay") or by a path that fits it: needed where a key may be used at
    several. `timeout` bounds one question in seconds; a question that may wait for the work to end is
    bounded by the time that its asker has. `headers` say who asks, the same as in the calls: a mapping,
    or a function that gives one, for tokens that change. `context` is for https.

    Answers are facts only where the server has said so; whatever kept it from asking is raised as
    LedgerUnavailable. Redirects are not followed, and proxies not used. Raises ConfigurationError.
    """

    def __init__(
        self,
        url: str,
        *,
        route: str = "",
        timeout: float = 5.0,
        headers: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._secure, self._host, self._port, self._at = _parsed(url)
        self._route = route
        if isinstance(timeout, bool) or not isinstance(timeout, int | float):
            raise ConfigurationError(f"Outcomes: timeout={timeout!r}: give a number of seconds")
        if not 0 < timeout < float("inf"):
            raise ConfigurationError(f"Outcomes: timeout={timeout!r}: give seconds above 0")
        self._timeout = float(timeout)
        self._headers = headers
        self._context = context
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Outcomes({self._where!r})"

    @property
    def _where(self) -> str:
        return f"http{'s' if self._secure else ''}://{self._host}:{self._port}{self._at}"

    def ask(self, key: str, *, void: bool, seconds: float) -> Answer:
        """Ask, for at most `seconds`; with `void` see to it that what has not begun never does.

        ABSENT proves nothing. Raises KeyMalformed, KeyTooOld and KeyFromTheFuture, and LedgerUnavailable
        if nothing was learnt.
        """
        budget = max(LEAST_SECONDS, seconds if isfinite(seconds) else self._timeout)
        wait = max(0, int(min(budget, 30.0) - SLACK_SECONDS))
        budget = min(budget, wait + self._timeout)
        end = time.monotonic() + budget
        path = f"{self._at}{AT}/{quote(str(key), safe='')}{'/void' if void else ''}"
        if self._route:
            path += f"?route={quote(self._route, safe='')}"
        try:
            status, body = self._exchange("POST" if void else "GET", path, wait, end)
        except (OSError, http.client.HTTPException) as error:
            raise LedgerUnavailable(
                f"{self._where} could not be asked: {_said(error)}; that says nothing of the work",
                key=str(key)[:100],
                not_started=False,
            ) from error
        return self._answer(str(key), status, body)

    async def aask(self, key: str, *, void: bool, seconds: float) -> Answer:
        """As `ask`, in one of at most eight threads."""
        loop = asyncio.get_running_loop()
        end = time.monotonic() + max(LEAST_SECONDS, seconds)
        asked = loop.run_in_executor(self._threads(), self._bounded, str(key), void, end)
        try:
            async with asyncio.timeout(max(LEAST_SECONDS, seconds) + LATE_SECONDS):
                return await asked
        except TimeoutError:
            self._in_vain(key, "no thread was free in time, or its name takes too long to be found")

    def _bounded(self, key: str, void: bool, end: float) -> Answer:  # noqa: FBT001 - of an executor
        """In a thread, perhaps after a while in the queue."""
        if time.monotonic() >= end:
            self._in_vain(key, "no thread was free in time")
        return self.ask(key, void=void, seconds=end - time.monotonic())

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(POOL, thread_name_prefix="brownout-ask")
            return self._pool

    def close(self) -> None:
        """Let go of the threads; the next question makes new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    # ---------------------------------------------------------------------------------- one question

    def _exchange(self, method: str, path: str, wait: int, end: float) -> tuple[int, bytes]:
        """One connection, one question; every wait in it ends by `end`."""
        connection = self._connection(_left(end))
        try:
            connection.connect()
            sock = connection.sock
            sock.settimeout(_left(end))
            connection.request(method, path, headers=self._sent(wait))
            sock.settimeout(_left(end))
            answer = connection.getresponse()
            if answer.length is not None and answer.length > MOST_BYTES:
                raise http.client.HTTPException("its answer is far too long")
            body = bytearray()
            while True:
                sock.settimeout(_left(end))
                piece = answer.read1(65_536)
                if not piece:
                    break
                body += piece
                if len(body) > MOST_BYTES:
                    raise http.client.HTTPException("its answer is far too long")
            if answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
            return answer.status, bytes(body)
        finally:
            connection.close()

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if not self._secure:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=timeout, context=self._context
        )

    def _sent(self, wait: int) -> dict[str, str]:
        given = self._headers() if callable(self._headers) else self._headers
        headers = {"accept": "application/json", "connection": "close", **dict(given or {})}
        if wait:
            headers["prefer"] = f"wait={wait}"
        return headers

    def _answer(self, key: str, status: int, body: bytes) -> Answer:
        """What an answer says; only one that is `Once`'s own says anything."""
        problem = named(body)
        if problem == "unknown-key":
            because = "no such key is known there; a call may be on its way"
            return Answer(Standing.ABSENT, None, None, because)
        if problem in _REFUSED:
            raise _REFUSED[problem](
                f"{self._where} says {problem} of key {key[:50]}", key=key[:100]
            )
        if problem or status != 200:
            self._in_vain(key, f"it says {status} {problem}".rstrip() + _advice(status, problem))
        try:
            told = json.loads(body)
            standing = _STANDING[told["outcome"]]
            reply = _reply(told.get("reply")) if standing is Standing.DONE else None
            because = str(told.get("because", ""))
            route = str(told.get("route") or "")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._in_vain(key, "what answers there has no Once, or is something else")
        if self._route and route and not _fits(route, self._route):
            self._in_vain(key, f"it tells of another route, {route[:200]}")
        return Answer(standing, reply, None, because)

    def _in_vain(self, key: str, why: str) -> NoReturn:
        raise LedgerUnavailable(
            f"{self._where} could not be asked: {why}", key=key[:100], not_started=False
        )


def _reply(told: Any) -> Reply | None:
    if told is None:
        return None
    status, whole = told["status"], told["whole"]
    if not isinstance(status, int) or not isinstance(whole, bool):
        raise TypeError("a reply has a status")
    headers = tuple((str(name), str(value)) for name, value in told["headers"])
    return Reply(status, headers, base64.b64decode(told["body"], validate=True), whole)


def _fits(template: str, route: str) -> bool:
    """Whether what a server calls its route is the one that was asked about."""
    if template == OTHER:
        return True
    try:
        return Routes({template: "opaque"}).named(route).template == template
    except ConfigurationError:
        return False


def _advice(status: int, problem: str) -> str:
    if problem in {"ambiguous-key", "route-missing"}:
        return '; name the route: Outcomes(url, route="POST /path")'
    if status in {401, 403}:
        return "; say who asks: Outcomes(url, headers=...)"
    return ""


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("its time was over")
    return left


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _parsed(url: str) -> tuple[bool, str, int, str]:
    """Whether it is https, host, port, and the path without a slash at its end."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except (ValueError, AttributeError, TypeError):
        raise ConfigurationError(f"Outcomes: {_shown(url)} is no URL") from None
    wrong = ""
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        wrong = "give http://host:port or https://host"
    elif parts.username is not None or parts.password is not None:
        wrong = "a URL with a password ends up in logs; give headers="
    elif parts.query or parts.fragment:
        wrong = "give it without ?query and #fragment"
    if wrong:
        raise ConfigurationError(f"Outcomes: {_shown(url)}: {wrong}")
    secure = parts.scheme == "https"
    return secure, parts.hostname or "", port or (443 if secure else 80), parts.path.rstrip("/")


def _shown(url: object) -> str:
    text = str(url)
    return repr(text.rpartition("@")[2] if "@" in text else text[:100])
