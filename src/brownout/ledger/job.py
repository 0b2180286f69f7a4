"""`@ledger.once("atomic")`: a job, or the consumer of a queue, that does its work once for each key."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, cast

from brownout._core.ledger import Claim, Found, HandlerClass, Reply, Standing
from brownout.errors import (
    AlreadyTaken,
    ConfigurationError,
    InDoubt,
    LedgerError,
    NoEffect,
    ReplyLost,
    StillRunning,
    Voided,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from brownout.ledger.front import Ledger

P = ParamSpec("P")
T = TypeVar("T")


class Job(NamedTuple):
    """What `once` was told: whose key it is, and what tells one payload from another."""

    ledger: Ledger
    handler: HandlerClass
    key: Callable[..., str]
    payload: Callable[..., Any] | None

    def named(self, args: Any, named: Any) -> tuple[str, bytes]:
        """The key of a call, and the fingerprint of its payload."""
        payload = b"" if self.payload is None else self.payload(*args, **named)
        if not isinstance(payload, bytes):
            payload = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()
        return self.key(*args, **named), hashlib.sha256(payload).digest()[:16]


def once(
    ledger: Ledger,
    handler: HandlerClass | str,
    *,
    key: str | Callable[..., str],
    payload: Callable[..., Any] | None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """What `Ledger.once` hands out."""
    kind = handler if isinstance(handler, HandlerClass) else _kind(handler)

    if kind is HandlerClass.ATOMIC and not ledger.store.atomic:
        raise ConfigurationError(
            f"no transaction can take in a row of a {type(ledger.store).__name__}: keep the ledger in the"
            " business's own database, or declare the handler resumable or opaque"
        )

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        find = _argument(function, key) if isinstance(key, str) else key
        job = Job(ledger, kind, find, payload)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError("once() can't keep what a generator yields; return a value")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def acall(*args: P.args, **named: P.kwargs) -> Any:
                return await _acall(job, function, args, named)

            return cast("Callable[P, T]", acall)

        @functools.wraps(function)
        def call(*args: P.args, **named: P.kwargs) -> T:
            return cast("T", _call(job, function, args, named))

        return call

    return decorate


def _kind(handler: str) -> HandlerClass:
    try:
        return HandlerClass(handler)
    except ValueError:
        raise ConfigurationError(
            f"{handler!r} is no class of handlers; give 'atomic', 'resumable' or 'opaque'"
        ) from None


def _argument(function: Callable[..., Any], name: str) -> Callable[..., str]:
    signature = inspect.signature(function)
    if name not in signature.parameters:
        raise ConfigurationError(
            f"{function.__qualname__}() has no argument {name!r} to take the key from;"
            " name another, or give a function: once(..., key=lambda message: message.key)"
        )

    def find(*args: Any, **named: Any) -> str:
        bound = signature.bind(*args, **named)
        bound.apply_defaults()
        return cast("str", bound.arguments[name])

    return find


def _call(job: Job, function: Callable[..., Any], args: Any, named: Any) -> Any:
    key, fingerprint = job.named(args, named)
    claim = job.ledger.claim(key, fingerprint, job.handler)
    if isinstance(claim, Found):
        return _replayed(job, key, claim)
    try:
        with job.ledger.running(claim):
            value = function(*args, **named)
    except AlreadyTaken:
        return _replayed(job, key, job.ledger.claim(key, fingerprint, job.handler))
    except BaseException as error:
        with _noting(error):
            if isinstance(error, NoEffect):
                job.ledger.release(claim)
            elif job.handler is not HandlerClass.ATOMIC:
                job.ledger.doubt(claim)
        raise
    reply = _reply(value)
    return _value(reply, job.ledger.complete(claim, reply), value)


async def _acall(job: Job, function: Callable[..., Any], args: Any, named: Any) -> Any:
    key, fingerprint = job.named(args, named)
    claim = await job.ledger.aclaim(key, fingerprint, job.handler)
    if isinstance(claim, Found):
        return _replayed(job, key, claim)
    try:
        with job.ledger.running(claim):
            value = await function(*args, **named)
    except AlreadyTaken:
        return _replayed(job, key, await job.ledger.aclaim(key, fingerprint, job.handler))
    except BaseException as error:
        with _noting(error):
            if isinstance(error, NoEffect):
                await job.ledger.arelease(claim)
            elif job.handler is not HandlerClass.ATOMIC:
                await job.ledger.adoubt(claim)
        raise
    reply = _reply(value)
    return _value(reply, await job.ledger.acomplete(claim, reply), value)


@contextmanager
def _noting(error: BaseException) -> Generator[None]:
    """The user's exception arrives as the user's, whatever the ledger has to say."""
    try:
        yield
    except LedgerError as trouble:
        error.add_note(f"brownout: the ledger could not be told: {trouble}")


def _reply(value: Any) -> Reply:
    try:
        return Reply(200, (), json.dumps(value, separators=(",", ":")).encode())
    except (TypeError, ValueError):
        return Reply(200, (("kept", "no"),))  # no JSON: it is done, and that is what is kept


def _value(mine: Reply, told: Reply, value: Any) -> Any:
    if told is mine or told == mine or told.headers or not told.whole:
        return value
    return json.loads(told.body)  # a successor's, as every other caller gets it


def _replayed(job: Job, key: str, found: Claim | Found) -> Any:
    """The value that was kept. Raises what became of the key, if it is something else."""
    about: Any = {"key": key, "scope": job.ledger.scope}
    if isinstance(found, Claim):
        raise StillRunning(f"key {key} has just become free again; try again", **about)
    if found.standing is Standing.VOID:
        raise Voided(f"key {key}: {found.because}", **about)
    if found.standing is Standing.DOUBT:
        raise InDoubt(f"key {key}: {found.because}; it is not run again", **about)
    if found.standing is Standing.RUNNING:
        raise StillRunning(f"key {key}: {found.because}", **about, retry_after=found.retry_after)
    if found.reply is None or not found.reply.whole or found.reply.headers:
        raise ReplyLost(
            f"key {key} is done, and its value was not kept: it is no JSON, or too large, or the process"
            " ended before it was written",
            **about,
        )
    return json.loads(found.reply.body)
