"""requests: a transport adapter that guards what goes through it.

    session.mount("https://payments", Adapter(guard=payments))
    session.mount("http://", Adapter())                     # without a guard: it only looks

What is sent again, and what an answer shows, is as for httpx: only what was never sent or was turned away, by
method GET, HEAD, OPTIONS, PUT, DELETE and TRACE, and what carries an `Idempotency-Key` header; never a body
that can't be read again. The time that is left is handed to requests as its time-outs. The last answer is
returned as it came. A body that is not streamed is read within the attempt; a streamed one is the caller's.

Before it is sent, an attempt is labelled with its backend (not through a proxy) and its connection.

The exception says, to any guard around it, whether the request was done. An answer that is cut inside its
headers, for requests a 200 with an empty body, is a `requests.ConnectionError` here. `max_retries` that send
PUT or DELETE again are warned of.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter

from brownout import Certainty, DeadlineHeader, OutcomeClass, Phase, Shown
from brownout.ext.reply import IDEMPOTENT, Answered, answer
from brownout.ext.resend import ResendWarning, warn
from brownout.ext.trail import Classifier, certain, lost, tell
from brownout.ext.urllib3 import classify as classify_urllib3
from brownout.ext.urllib3 import resends, watch_manager
from brownout.ext.urllib3.connection import ATTEMPT
from brownout.ext.urllib3.meaning import carry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brownout import Attempt, Guard

__all__ = ["Adapter", "ResendWarning", "classify"]

KEY_CHARACTERS = 255
LEAST_SECONDS = 0.001
_OWN = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidHeader,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)


class Adapter(HTTPAdapter):
    """A requests adapter that guards its requests; `guard` is the Guard of the target it is mounted for.

    `deadline_headers` are written, with the time that is left; give () for none. All else is as for
    requests' own HTTPAdapter. Raises what that raises, and the guard's own refusals (`brownout.Refused`).
    """

    _guard: Guard | None = None  # one that was pickled only looks
    _deadline_headers: tuple[DeadlineHeader, ...] = ()

    def __init__(
        self,
        *args: Any,
        guard: Guard | None = None,
        deadline_headers: Sequence[DeadlineHeader] = (DeadlineHeader.ENVOY,),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._guard = guard
        self._deadline_headers = tuple(deadline_headers)
        methods = resends(self.max_retries)
        if methods:
            warn(
                self,
                f"this adapter of requests sends {methods} again by itself, also what was done already. For"
                " keyed work leave max_retries out; a guard tries again where that does no harm",
            )

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the manager of connections, and watch it."""
        super().init_poolmanager(*args, **kwargs)
        watch_manager(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Make a manager of connections through a proxy, and watch it."""
        manager = super().proxy_manager_for(*args, **kwargs)
        watch_manager(manager)
        return manager

    def send(
        self,
        request: Any,
        stream: bool = False,  # noqa: FBT001, FBT002 - as it is called
        timeout: Any = None,
        verify: Any = True,  # noqa: FBT002
        cert: Any = None,
        proxies: Any = None,
    ) -> Any:
        """Send a request, guarded, in this thread."""
        rest = {"verify": verify, "cert": cert, "proxies": proxies}
        if self._guard is None:
            return self._sent(request, stream, timeout, rest)
        method = str(request.method).upper()
        key = request.headers.get("Idempotency-Key")
        guard, spare = self._guard, list[Any]()
        replayable = request.body is None or isinstance(request.body, (bytes, str))

        def send(attempt: Attempt) -> Any:
            while spare:
                spare.pop().close()
            attempt.waiting()
            request.headers.update(attempt.headers(time.monotonic(), self._deadline_headers))
            token = ATTEMPT.set(attempt)
            try:
                response = self._sent(request, stream, _bounded(timeout, attempt), rest)
            finally:
                ATTEMPT.reset(token)
            shown = answer(response.status_code, response.headers)
            if shown is None:
                return response
            spare.append(response)
            raise Answered(response, _once(shown, replayable=replayable))

        try:
            return guard.call(
                send,
                operation=method[:100],
                idempotent=(guard.policy.idempotent or method in IDEMPOTENT or bool(key))
                and replayable,
                key=key if key and len(key) <= KEY_CHARACTERS else None,
                classify=_told,
                with_attempt=True,
            )
        except Answered as answered:
            spare.clear()
            return answered.response
        finally:
            while spare:
                spare.pop().close()

    def _sent(self, request: Any, stream: Any, timeout: Any, rest: dict[str, Any]) -> Any:
        try:
            response = super().send(request, stream=stream, timeout=timeout, **rest)
            if not stream:
                response.content  # noqa: B018 - what breaks it, breaks it in the target's turn
        except requests.RequestException as error:
            _tell(error)
            raise
        return response


def _bounded(timeout: Any, attempt: Attempt) -> Any:
    left = attempt.deadline - time.monotonic()
    if left == inf:
        return timeout
    spans: Any = (timeout, timeout)
    if isinstance(timeout, tuple):
        spans = timeout  # pyright: ignore[reportUnknownVariableType]
    return tuple(max(LEAST_SECONDS, left if span is None else min(span, left)) for span in spans)


def _once(shown: Shown, *, replayable: bool) -> Shown:
    """A body that is gone can't be sent again, however certain it is that nothing was done."""
    if replayable or shown.certainty is not Certainty.ABSENT:
        return shown
    return shown._replace(certainty=Certainty.ANSWERED)


def _told(error: BaseException) -> Shown | None:
    return error.shown if isinstance(error, Answered) else classify(error)


def _tell(error: requests.RequestException) -> None:
    """Say on the exception of requests what its connection said on urllib3's, which it hides."""
    if carry(error):
        return
    attempt = ATTEMPT.get()
    shown = _meaning(error)
    if shown is not None:
        if attempt is not None and attempt.phase is Phase.NOT_SENT:
            shown = certain(OutcomeClass.LOCAL if attempt.queued else OutcomeClass.CONNECT)
        tell(error, shown)


def _meaning(error: BaseException) -> Shown | None:
    """What an exception says by itself."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        shown = answer(error.response.status_code, error.response.headers)
        return Shown.of(OutcomeClass.SUCCESS) if shown is None else shown
    if isinstance(error, _OWN):
        return certain(OutcomeClass.LOCAL)
    if isinstance(error, requests.RequestException):
        inner: Any = error.args[0] if error.args else None
        meant = classify_urllib3(inner) if isinstance(inner, Exception) else None
        if meant is not None and meant.certainty is not Certainty.UNKNOWN:
            return meant
        silent = isinstance(error, requests.Timeout) or "ReadTimeout" in repr(inner)
        return lost(OutcomeClass.UNKNOWN if silent else OutcomeClass.FAILURE)
    return None


classify = Classifier("requests", _meaning)
