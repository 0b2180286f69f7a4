"""gRPC: channels and interceptors that guard their calls, sync and asyncio.

    channel = guarded(target, guard=payments)          # or guarded_aio; `options` and `credentials` as gRPC's
    channel = grpc.intercept_channel(channel, Interceptor(guard=payments))    # of a channel that is there

The time that is left becomes the call's own time-out, so the server sees its deadline. `guard=None` only
looks. A call with the metadata `idempotency-key` may be sent again when its outcome is unknown. Streams pass.

UNAVAILABLE and DEADLINE_EXCEEDED come with the work done or not, and gRPC does not tell which: certain is
only that no connection was made, and what the server itself says in its trailer `outcome` (`not-started`,
`voided`). Where the channel's service config has a retryPolicy gRPC sends again what was done already, and
tells only of its last try: then nothing but success is certain. `guarded` sees that by itself, and warns; an
interceptor is told by `service_config`.

Attempts bear no labels: of the peer that a call went to, gRPC's Python client tells nothing, neither while it
waits nor afterwards. To tell backends apart, give each a channel and a guard of its own (`guard.per`).
"""

from __future__ import annotations

import json
import time
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import grpc.aio

from brownout import Certainty, OutcomeClass, Shown
from brownout.ext.resend import ResendWarning, warn
from brownout.ext.trail import Classifier, certain, lost, mark, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brownout import Attempt, Guard

__all__ = ["AsyncInterceptor", "Interceptor", "ResendWarning", "classify", "guarded", "guarded_aio"]

KEY, OUTCOME = "idempotency-key", "outcome"
KEY_CHARACTERS, NAME_CHARACTERS = 255, 100
_Code = grpc.StatusCode
# The only sign in Python that no connection was made is the core's own text.
_UNCONNECTED = (
    "failed to connect to all addresses",
    "DNS resolution failed",
    "Name resolution failure",
)
_ANSWERS = frozenset({
    _Code.INVALID_ARGUMENT, _Code.NOT_FOUND, _Code.ALREADY_EXISTS, _Code.PERMISSION_DENIED,
    _Code.FAILED_PRECONDITION, _Code.OUT_OF_RANGE, _Code.UNIMPLEMENTED, _Code.UNAUTHENTICATED,
})  # fmt: skip


class _Details(NamedTuple):
    """What a call is made with."""

    method: Any
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any = None


class _Details4(_Details, grpc.ClientCallDetails):
    pass


class _Shared:
    """What both interceptors share."""

    def __init__(self, *, guard: Guard | None = None, service_config: str = "") -> None:
        self._guard = guard
        self._resends = _retries(service_config)
        if self._resends:
            warn(
                self,
                "this channel's service config has a retryPolicy or hedgingPolicy: gRPC sends a call again by"
                " itself, also what was done already. For keyed work leave it out; a guard tries again where"
                " that does no harm",
            )

    def _tell(self, error: BaseException) -> None:
        shown = _meaning(error) or lost(OutcomeClass.UNKNOWN)
        tell(error, lost(shown.class_) if self._resends else shown)

    def _options(self, details: Any) -> dict[str, Any]:
        key = next((value for name, value in details.metadata or () if name.lower() == KEY), None)
        method = details.method.decode() if isinstance(details.method, bytes) else details.method
        return {
            "operation": str(method).rpartition("/")[2][:NAME_CHARACTERS] or "call",
            "key": key if isinstance(key, str) and 0 < len(key) <= KEY_CHARACTERS else None,
            "classify": classify,
            "with_attempt": True,
        }


def _bounded(details: Any, attempt: Attempt) -> Any:
    left = attempt.deadline - time.monotonic()
    if left == inf:
        return details
    given = inf if details.timeout is None else details.timeout
    return _with(details, timeout=max(0.001, min(given, left)))


def _with(details: Any, *, timeout: float) -> Any:
    if isinstance(details, grpc.aio.ClientCallDetails):
        made: Any = details
        return made._replace(timeout=timeout)
    found = {name: getattr(details, name, None) for name in _Details._fields}
    return _Details4(**{**found, "timeout": timeout})


class Interceptor(_Shared, grpc.UnaryUnaryClientInterceptor):
    """Guards the unary calls of a channel of threads; `guard` is the Guard of the target it talks to.

    `service_config` is the channel's, as JSON, if it has one: what in it sends calls again is warned of.
    Raises what gRPC raises, and the guard's own refusals (`brownout.Refused`).
    """

    def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """Make one call, guarded, in this thread."""

        def call(attempt: Attempt | None) -> Any:
            details = client_call_details
            if attempt is not None:
                details = _bounded(details, attempt)
                attempt.sent()
            made = continuation(details, request)
            error = made.exception()
            if error is not None:
                self._tell(error)
                raise error
            mark()
            return made

        if self._guard is None:
            return call(None)
        return self._guard.call(call, **self._options(client_call_details))


class AsyncInterceptor(_Shared, grpc.aio.UnaryUnaryClientInterceptor):
    """Guards the unary calls of a channel of asyncio; as Interceptor."""

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """Make one call, guarded, in this task."""

        async def call(attempt: Attempt | None) -> Any:
            details = client_call_details
            if attempt is not None:
                details = _bounded(details, attempt)
                attempt.sent()
            made = await continuation(details, request)
            try:
                await made
            except BaseException as error:
                self._tell(error)
                raise
            mark()
            return made

        if self._guard is None:
            return await call(None)
        return await self._guard.acall(call, **self._options(client_call_details))


def guarded(
    target: str,
    *,
    guard: Guard | None,
    credentials: Any = None,
    options: Sequence[Any] = (),
    **more: Any,
) -> Any:
    """Make a channel of threads whose unary calls are guarded: `grpc.secure_channel` with credentials.

    `options` are the channel's; `more` is handed on. Warns (ResendWarning) of a retryPolicy in them.
    """
    given: dict[str, Any] = {"options": list(options), **more}
    if credentials is None:
        channel = grpc.insecure_channel(target, **given)
    else:
        channel = grpc.secure_channel(target, credentials, **given)
    interceptor = Interceptor(guard=guard, service_config=_config(options))
    return grpc.intercept_channel(channel, interceptor)


def guarded_aio(
    target: str,
    *,
    guard: Guard | None,
    credentials: Any = None,
    options: Sequence[Any] = (),
    **more: Any,
) -> Any:
    """Make a channel of asyncio whose unary calls are guarded; as `guarded`."""
    own = AsyncInterceptor(guard=guard, service_config=_config(options))
    interceptors: list[Any] = [*more.pop("interceptors", ()), own]
    given: dict[str, Any] = {"options": list(options), "interceptors": interceptors, **more}
    if credentials is None:
        return grpc.aio.insecure_channel(target, **given)
    return grpc.aio.secure_channel(target, credentials, **given)


def _config(options: Sequence[Any]) -> str:
    return next((str(value) for name, value in options if name == "grpc.service_config"), "")


def _said(error: Any) -> str:
    """What the server says of the outcome in its trailer."""
    for name, value in error.trailing_metadata() or ():
        if name == OUTCOME and isinstance(value, str):
            return value.partition(";")[0].strip().lower()
    return ""


def _meaning(error: BaseException) -> Shown | None:
    """What an exception says by itself: gRPC's codes, and the server's word."""
    if not isinstance(error, grpc.RpcError) or not callable(getattr(error, "code", None)):
        return None
    call: Any = error
    code, text, said = call.code(), str(call.details() or ""), _said(call)
    if code is _Code.UNAVAILABLE and text.startswith(_UNCONNECTED):
        return certain(OutcomeClass.CONNECT)
    class_ = _CLASSES.get(code, OutcomeClass.FAILURE)
    if said == "not-started":
        return certain(class_)
    if said in {"done", "voided"}:
        return Shown(class_, Certainty.ANSWERED)
    if said in {"running", "doubt"}:
        return lost(class_)
    if code is _Code.RESOURCE_EXHAUSTED:  # also our own: a message that is too large to be read
        return lost(class_) if "message larger" in text.lower() else certain(class_)
    return Shown.of(class_) if code in _ANSWERS else lost(class_)


_CLASSES = {
    **dict.fromkeys(_ANSWERS, OutcomeClass.SUCCESS),
    _Code.ABORTED: OutcomeClass.SUCCESS,  # a conflict of callers
    _Code.RESOURCE_EXHAUSTED: OutcomeClass.OVERLOAD,
    _Code.DEADLINE_EXCEEDED: OutcomeClass.UNKNOWN,
    _Code.CANCELLED: OutcomeClass.UNKNOWN,
}

classify = Classifier("grpc", _meaning)


def _retries(service_config: str) -> bool:
    """Whether a service config lets gRPC send calls again that may have been done."""
    if not service_config:
        return False
    try:
        config = json.loads(service_config)
        return any(
            "retryPolicy" in each or "hedgingPolicy" in each
            for each in config.get("methodConfig", ())
        )
    except (ValueError, AttributeError, TypeError):
        raise ValueError("service_config: give the channel's, a text of JSON") from None
