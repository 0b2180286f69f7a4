"""Guard: one target's policy, evidence and state, driven by threads or by asyncio.

The registry keeps one `Target` for a name, so that all guards of that name share evidence and state.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from math import inf
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload
from weakref import WeakSet

from brownout._claim import health_faults
from brownout._core.flow import Options
from brownout._core.guard import Core
from brownout._core.policy import Breaker, Policy, Retry
from brownout._core.state import State, at_least
from brownout._core.target import Target
from brownout._crowd import Crowd
from brownout._drive import threads, wheel
from brownout._drive.block import AttemptBlock
from brownout._drive.clock import clock
from brownout._drive.function import check_function, is_async, name_of
from brownout._drive.hold import keeper
from brownout.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from brownout._core.because import Verdict
    from brownout._core.journal import Journal
    from brownout._core.ledger import Asker
    from brownout._core.operation import Operation
    from brownout._core.outcome import Outcome, Shown
    from brownout._unknown import Unknowns

P = ParamSpec("P")
T = TypeVar("T")

MOST_TARGETS = 1024
MOST_KEY = 255  # characters
_POLICY = object()  # as the policy says
_registry: dict[str, Target] = {}
_cores: WeakSet[Core] = WeakSet()  # of every guard, for a fork
_lock = threading.Lock()
on_target: list[Callable[[Target, Core], None]] = []
open_journal: list[Callable[[str], Journal]] = []  # by its URL; hung in from above


def targets() -> list[Target]:
    """Every target that has a guard, by name."""
    with _lock:
        return [_registry[name] for name in sorted(_registry)]


def _chance() -> float:
    from random import random  # nothing is drawn while all is well

    return random()


def _alive() -> frozenset[int]:
    return frozenset(sys._current_frames())  # noqa: SLF001 - also threads that others started


class _TooMany(ConfigurationError):
    """There is no room for another target."""


def _target(name: str, *, part: bool = False) -> Target:
    with _lock:
        if name not in _registry:
            if len(_registry) >= MOST_TARGETS and not _crowd.drop(clock.now()):
                raise _TooMany(
                    f"more than {MOST_TARGETS} targets: name them by what they are, not by each"
                    " address; guard.per(host) has room for any number of hosts"
                )
            _registry[name] = Target(name, threading.Lock, _alive)
        if not part:
            _crowd.own(name, _registry[name])
        return _registry[name]


def _forked() -> None:
    """A forked child has its own locks, evidence, permits and gates; what is usual it keeps."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    wheel.rest()
    for target in _registry.values():
        target.renew(threading.Lock, clock.now())
    for core in list(_cores):
        core.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Guard:
    """Guards the calls of one target: sees what they suffer, and bounds what they cost.

    `target` names whom we call; guards of one name share evidence, state and budget. `timeout` bounds one
    attempt, in seconds (asyncio: cancelled and raised as TimedOut; threads: pushed into the client through
    `remaining()`, never interrupted). `retry` is a Retry or None; `breaker` a Breaker or None; `limit` how
    many attempts may be in flight; `fallback` is called with the call's arguments when the call can't be
    answered otherwise. `idempotent` says that repeating a call does no harm; `answers` are exception
    classes that are the target's answer, not its failure. `health` is the URL of the target's own health
    check (http, https, grpc, grpcs), or a function that returns whether it says ok; `watch()` asks it. Of
    several guards of one name that have one, the newest that is still in use is asked for.

    `ask` is whom to ask what became of a call with a key: a Ledger, Outcomes(url), or a function that looks
    it up (`brownout.ledger.Find`). `journal` is a file, "sqlite:///unknown.db": calls with a key are written
    down before they are sent, and struck out when their outcome is certain. Trouble with it is logged, and
    fails no call. `dead_band` is what slowness is material, as a share of the usual and in seconds, whichever
    is more (default 0.25, 0.001); `false_alarm_every` how seldom the judge may cry wolf (default 86,400 s).

    Raises ConfigurationError with every fault of the arguments at once.
    """

    _part = False

    def __init__(
        self,
        target: str,
        *,
        timeout: float = inf,
        retry: Retry | None = None,
        breaker: Breaker | None = Breaker(),  # noqa: B008 - an immutable value
        limit: int | None = None,
        fallback: Callable[..., Any] | None = None,
        idempotent: bool = False,
        answers: tuple[type[BaseException], ...] = (),
        health: str | Callable[[], bool] | None = None,
        ask: Asker | Callable[[str], Any] | None = None,
        journal: str | Journal | None = None,
        dead_band: tuple[float, float] | None = None,
        false_alarm_every: float | None = None,
    ) -> None:
        self.policy = Policy(
            target, timeout, retry, breaker, limit, fallback, idempotent, answers, health,
            ask, journal, dead_band, false_alarm_every,
        )  # fmt: skip
        faults = health_faults(health)
        self._unknowns: Unknowns | None = None
        if ask is not None or journal is not None:
            from brownout import _unknown

            self._unknowns, more = _unknown.made(target, ask, journal, open_journal)
            faults += more
        self.policy.check(*faults)
        self._target = _target(target, part=self._part)
        if timeout < inf:
            known = self._target.timeout
            self._target.timeout = timeout if known == inf else max(known, timeout)
        self._target.dead_band = dead_band or self._target.dead_band
        self._target.false_alarm_every = false_alarm_every or self._target.false_alarm_every
        self._core = Core(self.policy, self._target, threading.Lock, _chance)
        _cores.add(self._core)
        for tell in on_target:
            tell(self._target, self._core)

    def __repr__(self) -> str:
        return f"Guard({self.policy.target!r})"

    @overload
    def __call__(
        self, fn: Callable[P, Coroutine[Any, Any, T]]
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, fn: Callable[P, T]) -> Callable[P, T]: ...
    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Guard a function: `def` or `async def`, the function decides. Signature and colour are kept.

        Raises TypeError for a class or a generator, of which a call is not the work.
        """
        options = self._options(fn)
        core = self._core
        if is_async(fn):
            from brownout._drive import aio

            return functools.wraps(fn)(aio.guarded(core, options, fn))
        return functools.wraps(fn)(threads.guarded(core, options, fn))

    def call(
        self,
        fn: Callable[..., T],
        *args: Any,
        operation: str | None = None,
        idempotent: bool | None = None,
        key: str | None = None,
        classify: Callable[[BaseException], Shown | None] | None = None,
        with_attempt: bool = False,
        **kwargs: Any,
    ) -> T:
        """Call `fn(*args, **kwargs)` under this guard, in this thread.

        `operation` names the kind of call (default: the function's name). `classify` says what an exception
        shows (None: as usual). `key` names the work, and the target knows it by that too: sent again, it
        is done once; so an unknown outcome may be tried again. `with_attempt` hands the Attempt to `fn` as
        its first argument. Raises TypeError for an async function: it would silently run unprotected.
        """
        if is_async(fn):
            raise TypeError(f"{name_of(fn)} is async: use `await guard.acall(...)`")
        options = self._options(
            fn, operation, idempotent, classify, key=key, with_attempt=with_attempt
        )
        if self._unknowns is not None:
            return self._unknowns.call(self._core, options, fn, args, kwargs)  # type: ignore[no-any-return]
        return threads.guarded(self._core, options, fn)(*args, **kwargs)  # type: ignore[no-any-return]

    async def acall(
        self,
        fn: Callable[..., Awaitable[T]],
        *args: Any,
        operation: str | None = None,
        idempotent: bool | None = None,
        key: str | None = None,
        classify: Callable[[BaseException], Shown | None] | None = None,
        with_attempt: bool = False,
        **kwargs: Any,
    ) -> T:
        """Await `fn(*args, **kwargs)` under this guard; the arguments are those of `call`.

        Raises TypeError for a function that is not async.
        """
        if not is_async(fn):
            raise TypeError(f"{name_of(fn)} is not async: use `guard.call(...)`")
        from brownout._drive import aio

        options = self._options(
            fn, operation, idempotent, classify, key=key, with_attempt=with_attempt
        )
        if self._unknowns is not None:
            return await self._unknowns.acall(self._core, options, fn, args, kwargs)  # type: ignore[no-any-return]
        return await aio.guarded(self._core, options, fn)(*args, **kwargs)  # type: ignore[no-any-return]

    @overload
    def outcome(  # pyright: ignore[reportOverlappingOverload] - an async function is the narrower one
        self, fn: Callable[..., Coroutine[Any, Any, T]], *args: Any, **kwargs: Any
    ) -> Coroutine[Any, Any, Outcome[T]]: ...
    @overload
    def outcome(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> Outcome[T]: ...
    def outcome(
        self,
        fn: Callable[..., Any],
        *args: Any,
        operation: str | None = None,
        idempotent: bool | None = None,
        key: str | None = None,
        classify: Callable[[BaseException], Shown | None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call `fn` under this guard and tell how it ended: `.succeeded .failed .unknown`.

        For an async function it is to be awaited. No fallback is used: it would hide what is known. A cancel
        and KeyboardInterrupt are settled, then raised.
        """
        options = self._options(fn, operation, idempotent, classify, key=key, fallback=None)
        call: Callable[..., Any] = threads.outcome
        if self._unknowns is not None:
            call = self._unknowns.aoutcome if is_async(fn) else self._unknowns.outcome
        elif is_async(fn):
            from brownout._drive.aio import outcome as call
        return call(self._core, options, fn, args, kwargs)

    def resolve(
        self, outcome: Outcome[T], *, within: float = 5.0, give_up: str = "void"
    ) -> Outcome[T]:
        """Ask what became of an unknown outcome, until that is known or `within` seconds are over.

        Succeeded: it was done, and `value` is what was answered (a ledger's Reply, of whatever status).
        Failed: it never happened and never will. In the last part of the time what has not begun is voided,
        unless `give_up="keep"`. What stays unknown is an OutcomeUnknown that says why; what is certain is
        returned as it is. Raises ConfigurationError without `ask`, ValueError without a key.
        """
        return self._settles().resolve(self._core, outcome, within=within, give_up=give_up)

    async def aresolve(
        self, outcome: Outcome[T], *, within: float = 5.0, give_up: str = "void"
    ) -> Outcome[T]:
        """As `resolve`, for asyncio."""
        return await self._settles().aresolve(self._core, outcome, within=within, give_up=give_up)

    def unknowns(self) -> list[Outcome[Any]]:
        """The unknown outcomes of this target in the journal, an earlier process's too, the oldest first.

        None that is being called or settled. Raises ConfigurationError without a journal, BrownoutError if it
        can't be read.
        """
        return self._settles().listed()

    def _settles(self) -> Unknowns:
        from brownout._unknown import Unknowns

        return self._unknowns or Unknowns(self.policy.target, None, None)

    def attempt(self, operation: str = "attempt") -> AttemptBlock:
        """A block as one attempt: `with guard.attempt():` or `async with guard.attempt():`.

        Admitted and settled, never repeated. The second form is cancelled when its time is up.
        """
        asked = self._operation(operation)
        return AttemptBlock(self._core, Options(asked, keep=keeper(self._core, asked)))

    def per(self, part: str) -> Guard:
        """The guard of one part of the target, of one host say: the same policies, and all else its own.

        Its target is "name/part". Ask anew for each call: of all targets 1,024 are kept, and the part asked
        for longest ago is dropped, never one with calls in flight; where all have some, it is this guard
        itself. Raises ConfigurationError if `part` can't be part of a name.
        """
        name = f"{self.policy.target}/{part}"
        with _lock:
            found = _crowd.find(name, self)
        if found is not None:
            return found
        own: dict[str, Any] = {"target": name, "health": None}  # that is the whole's
        try:
            guard = _PartGuard(**{**vars(self.policy), **own})
        except _TooMany:
            return self
        with _lock:
            return _crowd.add(name, guard._target, self, guard)  # noqa: SLF001 - our own

    def observe_age(self, seconds: float, *, operation: str = "read") -> None:
        """Tell how old what was read is: a second latency, "read:age", judged against what is usual of it.

        Where reads are older, the target is DEGRADED, of kind "stale". Raises ValueError for what is no age.
        """
        if not (isinstance(seconds, int | float) and 0 <= seconds < inf):
            raise ValueError(f"observe_age({seconds!r}): give an age in seconds, from 0 on")
        self._target.observe_age(operation, seconds, threading.get_ident(), clock.now())

    @property
    def state(self) -> State | None:
        """What the target is judged to be now; None without evidence."""
        return self._target.state(clock.now())

    @property
    def verdict(self) -> Verdict:
        """The state of the target's worst operation, with the sentence and numbers that decided it."""
        return self._target.verdict(clock.now())

    def at_least(self, floor: State) -> bool:
        """Whether the target is judged to be `floor` or worse. False without evidence."""
        return at_least(self.state, floor)

    def relearn(self, *, operation: str | None = None, errors: float | None = None) -> None:
        """Forget what is usual, of all operations or of one: the target is another one now, after a deploy.

        What an earlier process had learned is void. `errors` pins the share of calls that fails ordinarily,
        up to which it is HEALTHY. Raises ConfigurationError for what is no share from 0 to 0.8.
        """
        self._target.relearn(clock.now(), operation, errors)

    def _operation(self, name: str) -> Operation:
        operation = self._target.operation(name, clock.now())
        self._core.gate(operation)  # it must stand there before anything is judged
        return operation

    def _options(
        self,
        fn: Callable[..., Any],
        operation: str | None = None,
        idempotent: bool | None = None,  # noqa: FBT001
        classify: Callable[[BaseException], Shown | None] | None = None,
        *,
        key: str | None = None,
        with_attempt: bool = False,
        fallback: Any = _POLICY,
    ) -> Options:
        check_function(fn)
        policy = self.policy
        if fallback is _POLICY:
            fallback = policy.fallback
            if fallback is not None and is_async(fallback) and not is_async(fn):
                raise TypeError(f"{name_of(fn)} is not async, but its fallback is: give it a `def`")
        if key is not None and not (isinstance(key, str) and 0 < len(key) <= MOST_KEY):
            raise ValueError(f"key={key!r:.80} is to be a text of 1 to {MOST_KEY} characters")
        asked = self._operation(operation or name_of(fn))
        return Options(
            asked,
            (policy.idempotent or key is not None) if idempotent is None else idempotent,
            classify,
            fallback,
            keeper(self._core, asked) if with_attempt else None,
            key,
        )


class _PartGuard(Guard):
    """A guard that `Guard.per` has made: its target may be dropped again."""

    _part = True


_crowd: Crowd[Guard] = Crowd(_registry)
