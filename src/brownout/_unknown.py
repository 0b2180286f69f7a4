"""A guard's unknown outcomes: whom it asks, what it has written down, and who settles them.

At most one resolver a key asks at a time: in this process by a table, across processes by a lease in the
journal. Whoever comes second waits for its turn, and then needs one question.
"""

from __future__ import annotations

import os
import threading
import time
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, cast

from brownout._core import resolver
from brownout._core.journal import Entry
from brownout._core.outcome import Certainty, Outcome, Phase
from brownout._core.resolver import Busy, Told, Wanted
from brownout._drive import threads
from brownout._drive.clock import clock
from brownout._drive.context import ambient
from brownout._drive.function import is_async, name_of
from brownout._find import Find, answer, ask_faults
from brownout.errors import ConfigurationError, OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Future

    from brownout._core.flow import Ask, Options
    from brownout._core.guard import Core
    from brownout._core.journal import Journal
    from brownout._core.ledger import Answer, Asker

WRITE_SECONDS = 0.5  # the longest that a journal may hold a call up
HELD_SECONDS = 60.0  # a call that has no end of its own is nobody else's for so long
HELD_MOST_SECONDS = 3600.0
LEASE_SPARE_SECONDS = 1.0
WITHIN_MOST_SECONDS = 3600.0

_NOT_SENT: Outcome[Any] = Outcome(None, None, Certainty.ABSENT, 0, 0.0)
_settling: set[tuple[str, str]] = (
    set()
)  # target and key, of every resolve under way in this process
_lock = threading.Lock()


def made(
    target: str, ask: Any, journal: Any, openers: list[Callable[[str], Journal]]
) -> tuple[Unknowns | None, list[str]]:
    """What knows of a guard's unknown outcomes; and what is wrong with what it was given."""
    faults, opened = ask_faults(ask), journal
    if isinstance(journal, str):
        try:
            opened = openers[0](journal)
        except ConfigurationError as error:
            faults.append(str(error))
    elif journal is not None and not hasattr(journal, "begin"):
        faults.append("journal: give the URL of a file, such as sqlite:///unknown.db")
    return (None if faults else Unknowns(target, ask, opened)), faults


class Unknowns:
    """What one guard knows of its unknown outcomes."""

    __slots__ = ("_asker", "_journal", "_target")

    def __init__(self, target: str, ask: Any, journal: Journal | None) -> None:
        self._target = target
        self._asker: Asker | None = ask if ask is None or hasattr(ask, "ask") else Find(ask)
        self._journal = journal

    # ---------------------------------------------------------------------------------- the calls

    def outcome(
        self, core: Core, options: Options, fn: Callable[..., Any], args: Any, kwargs: Any
    ) -> Outcome[Any]:
        """A call by a thread, written down before it is sent and struck out when it is certain."""
        entry = self._entry(options)
        if entry is None:
            return threads.outcome(core, options, fn, args, kwargs)
        written, process = self._begin(core, entry), os.getpid()
        known: Outcome[Any] | None = _NOT_SENT
        try:
            _wait(written)
            known = None
            outcome = known = threads.outcome(core, options, fn, args, kwargs)
        finally:
            self._end(entry, known, process)
        return outcome

    def call(
        self, core: Core, options: Options, fn: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """The same as an ordinary call: it returns or raises."""
        if self._entry(options) is None:
            return threads.guarded(core, options, fn)(*args, **kwargs)
        outcome = self.outcome(core, options._replace(fallback=None), fn, args, kwargs)
        if outcome.error is None:
            return outcome.value
        if options.fallback is None or outcome.certainty is Certainty.ANSWERED:
            raise outcome.error
        return options.fallback(*args, **kwargs)

    async def aoutcome(
        self, core: Core, options: Options, fn: Callable[..., Any], args: Any, kwargs: Any
    ) -> Outcome[Any]:
        """The same for asyncio."""
        from brownout._drive import aio

        entry = self._entry(options)
        if entry is None:
            return await aio.outcome(core, options, fn, args, kwargs)
        aio.on_a_loop()
        written, process = self._begin(core, entry), os.getpid()
        known: Outcome[Any] | None = _NOT_SENT
        try:
            await _await(written)
            known = None
            outcome = known = await aio.outcome(core, options, fn, args, kwargs)
        finally:
            self._end(entry, known, process)
        return outcome

    async def acall(
        self, core: Core, options: Options, fn: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """The same as an ordinary call, for asyncio."""
        from brownout._drive import aio

        if self._entry(options) is None:
            return await aio.guarded(core, options, fn)(*args, **kwargs)
        outcome = await self.aoutcome(core, options._replace(fallback=None), fn, args, kwargs)
        if outcome.error is None:
            return outcome.value
        if options.fallback is None or outcome.certainty is Certainty.ANSWERED:
            raise outcome.error
        value = options.fallback(*args, **kwargs)
        return await value if is_async(options.fallback) else value

    def _entry(self, options: Options) -> Entry | None:
        if self._journal is None or options.key is None:
            return None
        name = options.operation.name
        call = int.from_bytes(os.urandom(7)) or 1
        return Entry(options.key, self._target, name, Phase.SENDING, time.time(), call)

    def _begin(self, core: Core, entry: Entry) -> Future[bool]:
        assert self._journal is not None
        tries = 1 if core.policy.retry is None else core.policy.retry.attempts
        longest = min(ambient() - clock.now(), core.timeout * (tries + 1), HELD_MOST_SECONDS)
        bounded = ambient() < inf or core.timeout < inf
        return self._journal.begin(entry, max(1.0, longest) if bounded else HELD_SECONDS)

    def _end(self, entry: Entry, outcome: Outcome[Any] | None, process: int) -> None:
        if os.getpid() != process:  # forked meanwhile: it is the parent's
            return
        self._note(entry, outcome)

    def _note(self, entry: Entry, outcome: Outcome[Any] | None) -> None:
        """Strike an entry out, or let it stand; without an outcome nobody knows how far it had come."""
        journal = self._journal
        if journal is None:
            return
        if outcome is not None and not outcome.unknown:
            # Done is done for every call with that key; that one failed says nothing of the others.
            journal.settle(entry.key, entry.target, 0 if outcome.succeeded else entry.call)
            return
        phase = entry.phase if outcome is None or outcome.phase is None else outcome.phase
        journal.unknown(entry._replace(phase=phase, since=time.time()))

    # ---------------------------------------------------------------------------------- to settle

    def listed(self) -> list[Outcome[Any]]:
        """What the journal holds of this target and nobody settles now, the oldest first."""
        if self._journal is None:
            raise ConfigurationError(
                f"Guard({self._target!r}) has no journal: give journal='sqlite:///unknown.db'"
            )
        now, wall = clock.now(), time.time()
        return [
            _of_entry(entry, now - max(0.0, wall - entry.since))
            for entry in self._journal.unsettled(self._target)
            if not entry.held
        ]

    def resolve(
        self, core: Core, outcome: Outcome[Any], *, within: float, give_up: str
    ) -> Outcome[Any]:
        """Ask what became of an unknown outcome, in this thread, until it is known or the time is over."""
        if not outcome.unknown:
            return outcome
        if isinstance(self._asker, Find) and is_async(self._asker.find):
            raise TypeError(
                f"{name_of(self._asker.find)} is async: use `await guard.aresolve(...)`"
            )
        wanted = self._wanted(outcome, within, give_up)
        turn = _Turn(self._target, wanted, cast("Asker", self._asker), self._journal)
        flow = resolver.resolve(wanted, core.chance, core.may_ask, clock.now())
        told = Told(None, None, 0)
        try:
            told = threads.drive(flow, None, turn.ask, (), {})
        finally:
            new = self._known(outcome, told, turn, within, wanted)
        return _raised(new, told)

    async def aresolve(
        self, core: Core, outcome: Outcome[Any], *, within: float, give_up: str
    ) -> Outcome[Any]:
        """The same for asyncio."""
        from brownout._drive import aio

        if not outcome.unknown:
            return outcome
        aio.on_a_loop()
        wanted = self._wanted(outcome, within, give_up)
        turn = _Turn(self._target, wanted, cast("Asker", self._asker), self._journal)
        flow = resolver.resolve(wanted, core.chance, core.may_ask, clock.now())
        told = Told(None, None, 0)
        try:
            told = await aio.drive(flow, core, None, turn.aask, (), {})
        finally:
            new = self._known(outcome, told, turn, within, wanted)
        return _raised(new, told)

    def _known(
        self, outcome: Outcome[Any], told: Told, turn: _Turn, within: float, wanted: Wanted
    ) -> Outcome[Any]:
        new = resolver.settled(outcome, told, self._target, within=within, void=wanted.void)
        if turn.end():
            phase = Phase.SENDING if outcome.phase is None else outcome.phase
            since = time.time() - max(0.0, clock.now() - outcome.ended_at)
            since = since if isfinite(since) else time.time()
            entry = Entry(wanted.key, self._target, "", phase, since)
            if self._journal is not None and new.unknown:
                self._journal.unknown(entry)
            elif self._journal is not None:
                self._journal.settle(entry.key, entry.target)
        return new

    def _wanted(self, outcome: Outcome[Any], within: float, give_up: str) -> Wanted:
        if self._asker is None:
            stays = "" if self._journal is None else "; it stays in the journal"
            raise ConfigurationError(
                f"Guard({self._target!r}) has nobody to ask: give ask=Outcomes(url), ask=Ledger(url), or a"
                f" function that looks a key up{stays}"
            )
        if outcome.key is None:
            raise ValueError(
                f"{self._target}: an outcome without a key can't be asked for: call with"
                " key=Key.of(order.id, at=order.created)"
            )
        if give_up not in {"void", "keep"}:
            raise ValueError(f'give_up={give_up!r}: write "void" or "keep"')
        number = isinstance(within, (int, float)) and not isinstance(within, bool)
        if not number or not 0 < within <= WITHIN_MOST_SECONDS:
            raise ValueError(
                f"within={within!r}: give a number of seconds above 0, at most {WITHIN_MOST_SECONDS:g}"
            )
        until = min(clock.now() + within, ambient())
        if isinstance(self._asker, Find):
            absent_at = outcome.ended_at + self._asker.horizon_seconds
            return Wanted(outcome.key, until, void=False, absent_at=absent_at)
        return Wanted(outcome.key, until, void=give_up == "void", ended_at=outcome.ended_at)


class _Turn:
    """One resolve's right to ask: taken with the first question, given back at the end."""

    __slots__ = ("_asker", "_journal", "_leased", "_mine", "_process", "_target", "_wanted")

    def __init__(self, target: str, wanted: Wanted, asker: Asker, journal: Journal | None) -> None:
        self._target = target
        self._wanted = wanted
        self._asker = asker
        self._journal = journal
        self._mine = self._leased = False
        self._process = os.getpid()

    def ask(self, command: Ask) -> Answer:
        """Put a question, if it is our turn. Raises Busy, and what the asker raises."""
        lease = self._take()
        if lease is not None:
            self._took(_wait(lease))
        return answer(
            self._asker.ask(command.key, void=command.void, seconds=command.seconds), self._asker
        )

    async def aask(self, command: Ask) -> Answer:
        """The same for asyncio. Who has no `aask` is asked on a thread of the loop's pool."""
        import asyncio

        lease = self._take()
        if lease is not None:
            self._took(await _await(lease))
        how = {"void": command.void, "seconds": command.seconds}
        aask: Callable[..., Awaitable[Answer]] | None = getattr(self._asker, "aask", None)
        if aask is not None:
            return answer(await aask(command.key, **how), self._asker)
        ask: Callable[..., Answer] = self._asker.ask
        return answer(await asyncio.to_thread(ask, command.key, **how), self._asker)

    def _take(self) -> Future[bool] | None:
        """Take the turn in this process; the lease of the journal, where that is yet to be taken."""
        if not self._mine:
            with _lock:
                if (self._target, self._wanted.key) in _settling:
                    raise Busy("in this process")
                _settling.add((self._target, self._wanted.key))
            self._mine = True
        if self._leased or self._journal is None:
            return None
        seconds = self._wanted.until - clock.now() + LEASE_SPARE_SECONDS
        return self._journal.lease(self._wanted.key, self._target, seconds)

    def _took(self, leased: object) -> None:
        if leased is False:
            self._give()
            raise Busy("in another process")
        self._leased = True  # or the journal is in trouble, and says so: then without it

    def _give(self) -> None:
        with _lock:
            _settling.discard((self._target, self._wanted.key))
        self._mine = False

    def end(self) -> bool:
        """Give the turn back; whether it was ours."""
        if os.getpid() != self._process or not self._mine:
            return False
        self._give()
        return True


def _raised(new: Outcome[Any], told: Told) -> Outcome[Any]:
    if told.error is not None and not isinstance(told.error, Exception):
        raise told.error
    return new


def _of_entry(entry: Entry, ended_at: float) -> Outcome[Any]:
    message = (
        f"{entry.target}: {entry.key} ({entry.operation}) is unknown, as the journal has it:"
        " resolve it, it may have been done"
    )
    error = OutcomeUnknown(message, target=entry.target, sent_at=ended_at, phase=entry.phase)
    error.key = entry.key
    return Outcome(None, error, Certainty.UNKNOWN, 0, 0.0, entry.key, entry.phase, ended_at)


def _patience() -> float:
    """How long the journal may hold a call up: never so long that the call itself comes too late."""
    return min(WRITE_SECONDS, max(0.0, ambient() - clock.now()) / 2)


def _wait(written: Future[bool]) -> bool | None:
    """What became of it, if the journal says so in time; None if it does not."""
    if written.done():
        return written.result()
    try:
        return written.result(_patience())
    except TimeoutError:
        return None


async def _await(written: Future[bool]) -> bool | None:
    """The same for asyncio."""
    if written.done():
        return written.result()
    import asyncio

    future = asyncio.wrap_future(written)
    done, _ = await asyncio.wait({future}, timeout=_patience())
    return future.result() if done else None


def _forked() -> None:
    """What is being settled is the parent's."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _settling.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
