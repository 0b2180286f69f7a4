"""Settling an unknown outcome: ask until it is known, and void it in time.

1. Only what nothing can change any more is told as succeeded or failed.
2. ABSENT proves nothing, but when a horizon has passed that the user vouches for. So what is absent is
   asked for until the time runs short (counted from when it was sent); then it is voided, if that is
   wanted, and the void is repeated until it is answered: it does no harm twice.
3. A question that could not be asked says nothing. Whatever is not a fact at the end stays unknown.
4. The first question and the last phase are always asked; between them the target's budget decides, but
   for one question a second.
5. Every wait ends: at the answer, or with the time.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from brownout._core.flow import Ask, Wait
from brownout._core.ledger import Answer, Standing
from brownout._core.outcome import Certainty, Outcome, Phase
from brownout.errors import (
    ConfigurationError,
    LedgerError,
    LedgerUnavailable,
    OutcomeUnknown,
    Voided,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from brownout._core.flow import Command, Done

BACKOFF_SECONDS = 0.05
BACKOFF_MOST_SECONDS = 1.0
SPARSE_SECONDS = 1.0  # between questions that the budget does not pay for
LAST_SHARE = 0.4  # of the time is for the last phase, in which it is voided
LAST_MOST_SECONDS = 2.0
LEAST_SECONDS = 0.001
_MOST_STEPS = 60  # of doubling; more would overflow


class Busy(Exception):
    """Somebody else settles this key now. Raised by what carries out an Ask: try again in a moment."""


class Wanted(NamedTuple):
    """What is to be settled: the key, until which instant, and whether it is voided in the end.

    `ended_at` is when the caller sent it last (infinite: not known), `absent_at` the instant from which a
    question that begins then and finds nothing is a fact.
    """

    key: str
    until: float
    void: bool
    ended_at: float = inf
    absent_at: float = inf


class Told(NamedTuple):
    """What asking brought: the last answer (None: none), what kept us from asking, how often we asked.

    `never`: it is certain that it never happened, and never will.
    """

    answer: Answer | None
    error: BaseException | None
    asked: int
    never: bool = False


def resolve(
    wanted: Wanted, chance: Callable[[], float], may_ask: Callable[[], bool], now: float
) -> Generator[Command, tuple[float, Done | None], Told]:
    """Ask until it is known or the time is over. `may_ask` spends the budget; `chance` is in [0, 1)."""
    told = Told(None, None, 0)
    last_at = _last_at(wanted, now)
    asked_at, tries = -inf, 0
    while now < wanted.until:
        last = now >= last_at
        if told.asked and not last and now - asked_at < SPARSE_SECONDS and not may_ask():
            now, _ = yield Wait(min(last_at, asked_at + SPARSE_SECONDS) - now)
            asked_at = -inf
            continue
        void = last and wanted.void
        end = wanted.until if last or not wanted.void else last_at
        asked_at = now
        now, done = yield Ask(wanted.key, void, max(LEAST_SECONDS, end - now))
        assert done is not None
        told = _told(told, done, fact=asked_at >= wanted.absent_at)
        if _over(told, void=void):
            break
        tries += 1
        wait = _wait(told.answer if told.error is None else None, tries, chance())
        wake = now + wait if last else min(now + wait, last_at)
        if wake >= wanted.until:
            break
        now, _ = yield Wait(max(LEAST_SECONDS, wake - now))
    return told


def _last_at(wanted: Wanted, now: float) -> float:
    """When the last phase begins. What was sent long ago has had its time: it is voided at once."""
    span = wanted.until - now
    last_at = wanted.until - min(LAST_MOST_SECONDS, span * LAST_SHARE)
    if wanted.void and wanted.ended_at < now:
        return max(now, last_at - (now - wanted.ended_at))
    return last_at


def _told(told: Told, done: Done, *, fact: bool) -> Told:
    if isinstance(done.error, Busy):
        return Told(told.answer, done.error, told.asked)
    if done.error is not None:
        return Told(told.answer, done.error, told.asked + 1)
    answer: Answer = done.value
    never = answer.standing is Standing.VOID or (fact and answer.standing is Standing.ABSENT)
    return Told(answer, None, told.asked + 1, never)


def _over(told: Told, *, void: bool) -> bool:
    error, answer = told.error, told.answer
    if error is not None:
        if not isinstance(error, Exception):
            return True
        final = isinstance(error, (LedgerError, ConfigurationError, TypeError))
        return final and not isinstance(error, LedgerUnavailable)
    assert answer is not None
    if void and answer.standing is Standing.ABSENT:
        return True  # too old: nothing is known of it any more
    return told.never or answer.fact or answer.standing is Standing.DOUBT


def _wait(answer: Answer | None, tries: int, chance: float) -> float:
    ceiling = min(BACKOFF_SECONDS * 2.0 ** min(tries - 1, _MOST_STEPS), BACKOFF_MOST_SECONDS)
    after = 0.0 if answer is None or answer.retry_after is None else answer.retry_after
    return max(ceiling * (0.5 + 0.5 * chance), after)


def settled(
    outcome: Outcome[Any], told: Told, target: str, *, within: float, void: bool
) -> Outcome[Any]:
    """The outcome that is known now; still an unknown one, with the reason, if no fact was found."""
    answer, key = told.answer, outcome.key or ""
    certain = {"key": outcome.key, "attempts": outcome.attempts, "seconds": outcome.seconds}
    if told.error is None and told.never:
        message = f"{target}: {key} never happened, and never will"
        error = Voided(message, key=key)
        return Outcome(value=None, error=error, certainty=Certainty.ABSENT, **certain)  # type: ignore[arg-type]
    if told.error is None and answer is not None and answer.standing is Standing.DONE:
        value: Any = answer.reply
        return Outcome(value=value, error=None, certainty=Certainty.ANSWERED, **certain)  # type: ignore[arg-type]
    phase = outcome.phase if outcome.phase is not None else Phase.SENDING
    message = f"{target}: {key} is still unknown: {_why(told, within=within, void=void)}"
    sent_at = getattr(outcome.error, "sent_at", outcome.ended_at)
    unknown = OutcomeUnknown(message, target=target, sent_at=sent_at, phase=phase)
    unknown.key = outcome.key
    unknown.__cause__ = told.error if told.error is not None else outcome.error
    return outcome.__replace__(error=unknown)


def _why(told: Told, *, within: float, void: bool) -> str:
    times = "once" if told.asked == 1 else f"{told.asked} times"
    span = f"asked {times} within {within:.3g} s"
    answer, error = told.answer, told.error
    if isinstance(error, Busy):
        return f"somebody else settles it at this moment ({error}); ask again later"
    if error is not None:
        return f"{span}, and could not ask in the end: {type(error).__name__}: {error}"
    if answer is None:
        return "it was not asked, for no time was left; resolve it outside of the deadline"
    if answer.standing is Standing.DOUBT:
        because = f" ({answer.because})" if answer.because else ""
        return f"its handler was begun, and nobody knows whether it ended{because}; look for its effect"
    if answer.standing is Standing.RUNNING:
        return f"{span}, and it still runs; ask again later"
    if void:
        return f"nothing is known of a key so old{f' ({answer.because})' if answer.because else ''}"
    return f"{span}, and found nothing, which proves nothing; ask again later, or void it"
