"""The driver for threads: an attempt runs inline, in the caller's thread, and is not interrupted.

What is left of the time is pushed down instead, by `remaining()` and the adapters; a value that comes
late is returned, and counted late.
"""

from __future__ import annotations

from math import inf, log2
from threading import get_ident
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

from brownout._core.attempt import Attempt
from brownout._core.flow import FALLBACK, Ask, Call, Command, Done, Options, Start, recover
from brownout._core.outcome import Outcome, OutcomeClass
from brownout._core.sketch import BUCKETS, OFFSET, PER_OCTAVE, TINY
from brownout._drive.clock import clock
from brownout._drive.context import DEADLINE, ambient
from brownout._drive.stall import process
from brownout.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from brownout._core.guard import Core

R = TypeVar("R")
_new: Callable[[type[Attempt]], Attempt] = object.__new__  # without a frame for its `__init__`


def guarded(core: Core, options: Options, fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` under its guard. What an ordinary call costs is all here, in one frame."""
    if options.keep is not None:
        return _handing(core, options, fn)
    operation, timeout, shards = options.operation, core.timeout, options.operation.evidence.shards
    free = None if core.limit is None else core.limit.free

    def call(*args: Any, **kwargs: Any) -> Any:
        read = clock.now
        now, thread = read(), get_ident()
        if now >= operation.due or DEADLINE.get() != inf:
            return _looked(core, options, fn, args, kwargs, now)
        try:
            shard = shards[thread]
            attempt = (None if free is None else free.pop()) or _new(Attempt)
        except LookupError:
            return _looked(core, options, fn, args, kwargs, now)
        attempt.shard, attempt.began = shard, now
        attempt.deadline = ends = now + timeout
        pending = shard.pending
        pending[attempt] = None
        token = DEADLINE.set(ends)
        try:
            value = fn(*args, **kwargs) if kwargs else fn(*args)
        except BaseException as error:
            DEADLINE.reset(token)
            flow = recover(Call(core, options, thread, now, inf), attempt, error, read())
            done = drive(flow, options, fn, args, kwargs)
            if done.error is error:
                raise
            return _raised(done)
        DEADLINE.reset(token)
        ended = read()
        if value.__class__ is CoroutineType:
            core.settle(operation, attempt, OutcomeClass.LOCAL, ended)  # it has not even begun
            _unprotected(value)
        # As Core.succeed has it, since a call within a call costs; what is due is for the next to see.
        try:
            del pending[attempt]
        except KeyError:  # forked meanwhile: it is the parent's
            return value
        seconds = ended - now
        if process.until > now or ended > process.due:  # nobody got a turn meanwhile
            seconds -= process.lost(now, ended)
        index = int(log2(seconds) * PER_OCTAVE + OFFSET) if seconds > TINY else 0
        shard.answered[index if index < BUCKETS else BUCKETS - 1] += 1
        if free is not None:
            free.append(attempt)
        return value

    return call


def _handing(core: Core, options: Options, fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` under its guard, where it is handed its attempt."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return _looked(core, options, fn, args, kwargs, clock.now())

    return call


def _looked(
    core: Core, options: Options, fn: Callable[..., Any], args: Any, kwargs: Any, now: float
) -> Any:
    """A call that is not ordinary: it inherits a deadline, or finds something due at its operation."""
    whole = Call(core, options, get_ident(), now, ambient())
    attempt = whole.admit(now)
    if isinstance(attempt, Refused):
        return _raised(drive(recover(whole, None, attempt, now), options, fn, args, kwargs))
    attempt.shard.late = attempt.shard.late or process
    try:
        value = perform(attempt, options, fn, args, kwargs)
    except BaseException as error:
        done = drive(recover(whole, attempt, error, clock.now()), options, fn, args, kwargs)
        if done.error is error:
            raise
        return _raised(done)
    if attempt.shown is None:
        core.succeed(options.operation, attempt, clock.now())
    else:
        core.settle(options.operation, attempt, attempt.shown.class_, clock.now())
    return value if value.__class__ is not CoroutineType else _unprotected(value)


def outcome(
    core: Core, options: Options, fn: Callable[..., Any], args: Any, kwargs: Any
) -> Outcome[Any]:
    """Carry out one guarded call and tell how it ended; raises only what is no Exception."""
    now = clock.now()
    call = Call(core, options, get_ident(), now, ambient())
    attempt = call.admit(now)
    if isinstance(attempt, Refused):
        return call.outcome(
            drive(recover(call, None, attempt, now), options, fn, args, kwargs), clock.now()
        )
    done = _ended(attempt, options, fn, args, kwargs)
    if done.error is None:
        call.settle(attempt, None, clock.now())
    else:
        done = drive(recover(call, attempt, done.error, clock.now()), options, fn, args, kwargs)
    if done.value.__class__ is CoroutineType:
        _unprotected(done.value)
    return call.outcome(done, clock.now())


def perform(
    attempt: Attempt, options: Options, fn: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    """Run one attempt; what it calls sees the attempt's deadline."""
    token = DEADLINE.set(attempt.deadline)
    try:
        if options.keep is not None:
            attempt.keep, attempt.key = options.keep, options.key
            args = (attempt, *args)
        value = fn(*args, **kwargs)
        if value.__class__ is CoroutineType:
            attempt.settle(OutcomeClass.LOCAL)  # it has not even begun
        return value
    finally:
        DEADLINE.reset(token)


def _ended(
    attempt: Attempt, options: Options, fn: Callable[..., Any], args: Any, kwargs: Any
) -> Done:
    try:
        return Done(perform(attempt, options, fn, args, kwargs), None)
    except BaseException as error:
        return Done(None, error)


def drive(
    flow: Generator[Command, tuple[float, Done | None], R],
    options: Options | None,
    fn: Callable[..., Any],
    args: Any,
    kwargs: Any,
) -> R:
    """Carry out a flow's commands until it ends. Who asks is `fn`, if it is a flow that asks."""
    done: Done | None = None
    try:
        command = next(flow)
        while True:
            if isinstance(command, Start):
                done = _start(command, options, fn, args, kwargs)
                command = flow.send((clock.now(), None))
                continue
            if isinstance(command, Ask):
                told = _asked(command, fn)
                command = flow.send((clock.now(), told))
                continue
            if done is None:
                clock.sleep(command.seconds)
            answer, done = done, None
            command = flow.send((clock.now(), answer))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        flow.close()


def _asked(command: Ask, ask: Callable[[Ask], Any]) -> Done:
    """Put a question; what it calls sees how long it may take."""
    token = DEADLINE.set(min(ambient(), clock.now() + command.seconds))
    try:
        return Done(ask(command), None)
    except BaseException as error:
        return Done(None, error)
    finally:
        DEADLINE.reset(token)


def _start(
    command: Start, options: Options | None, fn: Callable[..., Any], args: Any, kwargs: Any
) -> Done:
    assert options is not None
    if isinstance(command.what, Attempt):
        return _ended(command.what, options, fn, args, kwargs)
    assert command.what is FALLBACK
    assert options.fallback is not None
    try:
        return Done(options.fallback(*args, **kwargs), None)
    except BaseException as error:
        return Done(None, error)


def _raised(done: Done) -> Any:
    if done.error is not None:
        raise done.error
    return done.value if done.value.__class__ is not CoroutineType else _unprotected(done.value)


def _unprotected(coroutine: Any) -> Any:
    coroutine.close()
    raise TypeError(
        f"{coroutine.__qualname__} returned a coroutine, whose work would run unprotected:"
        " guard the async function itself, or use `await guard.acall(...)`"
    )
