"""Seeing: the states of all targets, their changes, and what their own health checks claim.

One daemon thread judges every 100 ms, once somebody asks for changes (`on_change`, `watch`, sharing);
never by import. Listeners run on it, so they can't delay a call. Each health check is asked by a daemon
thread of its own, so that one that hangs delays no other.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ReferenceType, ref

from brownout import _guard
from brownout._claim import says_ok
from brownout._core.because import Claim
from brownout._core.blame import MANY, at_once, ill
from brownout._drive.clock import clock
from brownout._drive.stall import process
from brownout.errors import ConfigurationError

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from brownout._core.because import Verdict
    from brownout._core.guard import Core
    from brownout._core.state import State
    from brownout._core.target import Target


class _Log:
    """The logger "brownout". `logging` is imported by the first line of it, since most write none."""

    def __getattr__(self, name: str) -> Any:
        import logging

        logger = logging.getLogger("brownout")
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
        return getattr(logger, name)


log: logging.Logger = _Log()  # type: ignore[assignment]

JUDGE_SECONDS = 0.1
UNWELL_SECONDS = 5.0  # after a fault of the judge itself: no flood of the log
HEALTH_SECONDS = 1.0  # between two questions
HEALTH_TIMEOUT_SECONDS = 1.0
MOST_LISTENERS = 100


class Change(NamedTuple):
    """A target's state has changed: from `before` to `after` (None: no evidence), with the new verdict.

    `at` is the monotonic instant in seconds at which the judge saw it.
    """

    target: str
    before: State | None
    after: State | None
    verdict: Verdict
    at: float

    @property
    def because(self) -> str:
        """The sentence that decided."""
        return self.verdict.because


class _Judging:
    """The judge's thread: who listens, and what each target's state was."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Change], object]] = []
        self.states: dict[str, State | None] = {}
        self.lock = threading.Lock()
        self.wake = threading.Event()
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        with self.lock:
            if self.thread is None or not self.thread.is_alive():
                self.wake.clear()
                self.thread = threading.Thread(target=self._run, name="brownout-judge", daemon=True)
                self.thread.start()

    def stop(self) -> None:
        self.wake.set()
        thread = self.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)
        self.thread = None

    def _run(self) -> None:
        while not self._wait():
            for health in list(_health.values()):
                health.look(clock.now())
            targets = _guard.targets()
            known = {target.name for target in targets}
            for gone in [name for name in self.states if name not in known]:
                del self.states[gone]
            for target in targets:
                try:
                    self._look(target)
                except Exception:
                    log.exception("%s can't be judged; its calls go on", target.name)
                    self.wake.wait(UNWELL_SECONDS)

    def _wait(self) -> bool:
        """Wait for the next tick; whoever wakes up late is told of it. Whether this is the end."""
        real = clock.now is time.monotonic  # of a clock that is moved by hand nothing is late
        if real:
            now = clock.now()
            process.expect(now + JUDGE_SECONDS, now)
        ended = self.wake.wait(JUDGE_SECONDS)
        if real and not ended:
            process.beat(clock.now())
        process.rest()
        return ended

    def _look(self, target: Target) -> None:
        now = clock.now()
        before, after = self.states.get(target.name), target.state(now)
        if after is before:
            return
        self.states[target.name] = after
        verdict = target.verdict(now)
        if sum(state is not None and state.severity > 0 for state in self.states.values()) >= MANY:
            every = suspect([one.verdict(now) for one in _guard.targets()])
            verdict = next((one for one in every if one.target == target.name), verdict)
        change = Change(target.name, before, after, verdict, now)
        tell = log.info if after is None or not after.severity else log.warning
        tell(
            "%s: %s -> %s: %s", change.target, _label(before), _label(after), verdict.because,
        )  # fmt: skip
        for listener in list(self.listeners):
            try:
                listener(change)
            except BaseException:  # SystemExit too: nobody but the judge lives on this thread
                log.exception("a listener of on_change failed; the others are told all the same")


def _label(state: State | None) -> str:
    return state.name if state else "no evidence"


class _Health:
    """Asks one target's own health check, again and again, on a thread of its own.

    It looks anew each time which one that is, and ends when no guard that has one is left.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.asked_at: float | None = None
        self.asked_for: ReferenceType[Core] | None = None
        self.wake = threading.Event()
        self.thread = threading.Thread(
            target=self._run, name=f"brownout-health-{target.name}", daemon=True
        )
        self.thread.start()

    def _run(self) -> None:
        while self._ask():
            self.wake.wait(HEALTH_SECONDS)

    def _ask(self) -> bool:
        ask = self._check()
        if ask is None:
            return False
        self.asked_at = clock.now()
        try:
            ok = says_ok(ask, HEALTH_TIMEOUT_SECONDS)
        except Exception:
            ok = False
        with _lock:
            if not self.wake.is_set():  # else another one asks by now
                self.target.claim = Claim(ok, clock.now())
        self.asked_at = None
        return True

    def _check(self) -> str | Callable[[], bool] | None:
        with _lock:
            if self.wake.is_set():
                return None
            core = _newest(self.target.name)
            if core is None:
                del _health[self.target.name]
                self.target.claim = None
                return None
            self.asked_for = ref(core)
            return core.policy.health

    def look(self, now: float) -> None:
        """A health check that says nothing does not say ok; where there is a newer one, that is asked."""
        asked_at = self.asked_at
        if asked_at is None or now - asked_at <= 2 * HEALTH_TIMEOUT_SECONDS:
            return
        with _lock:
            if self.wake.is_set() or self.asked_at != asked_at:
                return
            self.target.claim = Claim(ok=False, at=now)
            core = _newest(self.target.name)
            if core is not None and self.asked_for is not None and self.asked_for() is not core:
                self.wake.set()
                _health[self.target.name] = _Health(self.target)


_judging = _Judging()
on_stop: list[Callable[[], None]] = []
_asked: dict[str, list[ReferenceType[Core]]] = {}  # guards that have a health check, oldest first
_health: dict[str, _Health] = {}
_watching = threading.Event()
_lock = threading.Lock()


def _on_target(target: Target, core: Core) -> None:
    if core.policy.health is not None:
        with _lock:
            known = [one for one in _asked.get(target.name, ()) if one() is not None]
            _asked[target.name] = [*known, ref(core)]
    if _watching.is_set():
        _ask_all()


_guard.on_target.append(_on_target)


def _newest(name: str) -> Core | None:
    """The newest guard of a target that is still in use and has a health check. Under the lock."""
    cores = (one() for one in reversed(_asked.get(name, ())))
    return next((core for core in cores if core is not None), None)


def _ask_all() -> None:
    known = {target.name: target for target in _guard.targets()}
    with _lock:
        for name in _asked:
            if name not in _health and name in known and _newest(name) is not None:
                _health[name] = _Health(known[name])


def states() -> list[Verdict]:
    """The verdict on every target that has a guard in this process, by name."""
    now = clock.now()
    return suspect([target.verdict(now) for target in _guard.targets()])


def suspect(verdicts: list[Verdict]) -> list[Verdict]:
    """The same, where this process should suspect itself first: many unrelated targets look ill at once."""
    reason = at_once(verdicts)
    if not reason:
        return verdicts
    return [one.suspecting(reason) if ill(one) else one for one in verdicts]


def watch() -> None:
    """Judge all the time, and ask the health checks that guards were given, on daemon threads.

    Without it, targets are judged whenever calls are made or a state is read, and no health check is
    asked. Calling it again changes nothing.
    """
    _watching.set()
    _judging.start()
    _ask_all()


def on_change(listener: Callable[[Change], object]) -> Callable[[Change], object]:
    """Call `listener(change)` whenever a target's state changes; usable as a decorator.

    It runs on the judge's thread, never on a call's path; an exception in it is logged and goes no
    further. One that is registered again, also as the function of a module that was loaded again, is told
    once. Raises ConfigurationError after 100 listeners.
    """
    for index, known in enumerate(_judging.listeners):
        if _same(known, listener):
            _judging.listeners[index] = listener
            return listener
    if len(_judging.listeners) >= MOST_LISTENERS:
        raise ConfigurationError(
            f"on_change: {MOST_LISTENERS} listeners are enough: register each only once"
        )
    _judging.listeners.append(listener)
    _judging.start()
    return listener


def _same(one: object, other: object) -> bool:
    """Whether it is the same listener, or the same function of a module that was loaded again."""
    if one == other:
        return True
    if not (isinstance(one, FunctionType) and isinstance(other, FunctionType)):
        return False
    if "<" in one.__qualname__ or hasattr(one, "__wrapped__"):  # many may have that name
        return False
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def stop() -> None:
    """End the threads and forget the listeners (for tests)."""
    for end in on_stop:
        end()
    _judging.stop()
    _judging.listeners.clear()
    _judging.states.clear()
    _watching.clear()
    with _lock:
        for health in _health.values():
            health.wake.set()
        _health.clear()
        _asked.clear()


def _forked() -> None:
    """A forked child has none of our threads; what was asked for before holds for it too."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _judging.lock, _judging.wake, _judging.thread = threading.Lock(), threading.Event(), None
    _judging.states.clear()
    process.rest()
    _health.clear()
    if _watching.is_set():
        watch()
    elif _judging.listeners:
        _judging.start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def forget(listener: Callable[[Change], object]) -> None:
    """Tell `listener` no more."""
    with suppress(ValueError):
        _judging.listeners.remove(listener)
