"""The unhappy path, once, for every driver: retry and fallback as a generator.

It yields commands and is told the time; it never waits, and never reads a clock. `Start(n, what)` begins
attempt n (`what` is the admitted attempt, or FALLBACK); `Wait(seconds)` is answered with the time and
the `Done` that ended it, or None when the time was up. `Ask(key, void, seconds)` asks what became of a
key, and is answered with the time and the `Done` of that question. A driver carries them out.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from brownout._core.outcome import (
    Certainty,
    Outcome,
    OutcomeClass,
    Phase,
    Shown,
    classify,
    told,
)
from brownout.errors import DeadlinePassed, OutcomeUnknown, Refused, TimedOut

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from brownout._core.attempt import Attempt
    from brownout._core.guard import Core
    from brownout._core.held import Hold
    from brownout._core.operation import Operation

FALLBACK = "fallback"
TIGHT_SECONDS = 0.005  # clients round their time-outs


class Start(NamedTuple):
    """Begin attempt `n`, or the fallback."""

    n: int
    what: Attempt | str


class Wait(NamedTuple):
    """Wait so long, or until what was started has ended."""

    seconds: float


class Ask(NamedTuple):
    """Ask what became of a key, for at most so long; `void`: what has not begun never will."""

    key: str
    void: bool
    seconds: float


class Done(NamedTuple):
    """How what was started ended: a value, or an error."""

    value: Any
    error: BaseException | None


Command = Start | Wait | Ask
Answer = tuple[float, Done | None]


class Options(NamedTuple):
    """What one call asks for beyond its guard's policy."""

    operation: Operation
    idempotent: bool = False
    classify: Callable[[BaseException], Shown | None] | None = None
    fallback: Callable[..., Any] | None = None
    keep: Callable[[Attempt], Hold] | None = None  # hands the attempt to the function; holds it
    key: str | None = None  # names the work, at the target too: sent again, it is done once


class Call:
    """One call that did not go well at once: what was tried, and what is known."""

    __slots__ = ("began", "certainty", "core", "deadline", "options", "phase", "thread", "tried")

    def __init__(
        self, core: Core, options: Options, thread: int, began: float, deadline: float
    ) -> None:
        self.core = core
        self.options = options
        self.thread = thread
        self.began = began
        self.deadline = deadline
        self.tried = 0
        self.certainty = Certainty.ABSENT
        self.phase = Phase.NOT_SENT  # the furthest of the attempts that are unknown

    def admit(self, now: float) -> Attempt | Refused:
        """Another attempt, or the refusal."""
        return self.core.admit(self.options.operation, self.thread, now, self.deadline, self.tried)

    def settle(self, attempt: Attempt, error: BaseException | None, now: float) -> Shown:
        """Settle an attempt by how it ended."""
        shown = self._shown(attempt, error, now)
        if isinstance(error, OutcomeUnknown):
            error.key = self.options.key
        self.tried += 1
        if shown.certainty is Certainty.UNKNOWN or self.certainty is not Certainty.UNKNOWN:
            # Once unknown, a later refusal does not make it certain.
            self.certainty = shown.certainty
        if shown.certainty is Certainty.UNKNOWN:
            inner = error.phase if isinstance(error, OutcomeUnknown) else Phase.NOT_SENT
            self.phase = max(self.phase, attempt.phase, inner)
        self.core.settle(self.options.operation, attempt, shown.class_, now)
        return shown

    def _shown(self, attempt: Attempt, error: BaseException | None, now: float) -> Shown:
        if attempt.shown is not None:
            return attempt.shown
        if error is None:
            return Shown.of(OutcomeClass.SUCCESS)
        left = not isinstance(error, Exception)
        if attempt.queued and (left or isinstance(error, TimeoutError)):
            return Shown.of(OutcomeClass.LOCAL)
        if (
            attempt.expired and not left
        ):  # also when a client made our cancel into an error of its own
            shown = Shown.of(OutcomeClass.SHORT if attempt.inherited else OutcomeClass.UNKNOWN)
            said = told(error, attempt.began)
            if said is not None:  # an adapter saw how far it had come
                shown = shown._replace(certainty=said.certainty)
        else:
            # nobody may repeat what was cancelled
            asked = None if left else self._asked(error, attempt.began)
            shown = asked or classify(error, self.core.policy.answers, attempt.began)
        if attempt.phase is Phase.NOT_SENT and shown.certainty is Certainty.UNKNOWN:
            shown = shown._replace(certainty=Certainty.ABSENT)
        if (
            shown.class_ is OutcomeClass.UNKNOWN
            and attempt.inherited
            and now >= attempt.deadline - TIGHT_SECONDS
        ):
            shown = shown._replace(
                class_=OutcomeClass.SHORT
            )  # the client was told to give up so early
        return shown

    def _asked(self, error: BaseException, began: float) -> Shown | None:
        """What the call's `classify` says; one that fails loses neither permit nor error.

        An adapter's has `since`, to be told when the attempt began: more may have been done in it.
        """
        if self.options.classify is None:
            return None
        try:
            since = getattr(self.options.classify, "since", None)
            return self.options.classify(error) if since is None else since(error, began)
        except Exception as problem:
            error.add_note(f"brownout: its classify failed with {problem!r}")
            return None

    def outcome(self, done: Done, now: float) -> Outcome[Any]:
        """The outcome of the whole call; raises what is no Exception."""
        error = done.error
        if error is not None and not isinstance(error, Exception):
            raise error
        certainty = Certainty.ANSWERED if error is None else self.certainty
        seconds, key = now - self.began, self.options.key
        if certainty is not Certainty.UNKNOWN:
            return Outcome(done.value, error, certainty, self.tried, seconds, key, None, inf)
        return Outcome(None, error, certainty, self.tried, seconds, key, self.phase, now)

    def note(self, error: BaseException, now: float) -> None:
        """Tell on the user's own exception what was tried."""
        if self.tried > 1:
            name = f"{self.core.target.name}.{self.options.operation.name}"
            error.add_note(f"brownout: {self.tried} attempts at {name} in {now - self.began:.2f} s")


def timed_out(target: str, attempt: Attempt, now: float) -> TimedOut | DeadlinePassed:
    """What is raised when our timer ended an attempt."""
    attempt.expired = True
    after = f"after {now - attempt.began:.2f} s"
    if attempt.queued:
        message = f"{target}: not sent, because no connection of our own pool came free {after}"
        return DeadlinePassed(message, target=target)
    whose = "the deadline it inherited" if attempt.inherited else "its time-out"
    if attempt.phase is Phase.NOT_SENT:
        message = f"{target}: no connection {after}, {whose}; it was not sent"
    elif attempt.phase is Phase.RECEIVING:
        message = f"{target}: no whole answer {after}, {whose}; it may have been done"
    else:
        message = (
            f"{target}: no answer {after}, {whose}; it may have been done: ask before repeating it"
        )
    return TimedOut(message, target=target, sent_at=attempt.began, phase=attempt.phase)


def recover(
    call: Call, attempt: Attempt | None, error: BaseException, now: float
) -> Generator[Command, Answer, Done]:
    """What to do after a first attempt that ended in `error`, or was refused (`attempt` is None).

    Ends with the `Done` of the whole call.
    """
    while attempt is not None:
        shown = call.settle(attempt, error, now)
        if not isinstance(error, Exception):  # the caller left: whatever it showed, it is over
            break
        if shown.class_ is OutcomeClass.SUCCESS:  # the error is the target's answer
            call.note(error, now)
            return Done(None, error)
        wait = call.core.may_retry(
            shown, call.tried, now, call.deadline, idempotent=call.options.idempotent
        )
        if wait is None:
            break
        now, _ = yield Wait(wait)
        admitted = call.admit(now)
        if isinstance(admitted, Refused):  # the first error says more than our refusal to try again
            break
        attempt = admitted
        yield Start(call.tried, attempt)
        now, done = yield Wait(max(0.0, attempt.deadline - now))
        assert done is not None
        if done.error is None:
            call.settle(attempt, None, now)
            return done
        error = done.error
    if call.options.fallback is not None and isinstance(error, Exception):
        yield Start(call.tried, FALLBACK)
        now, done = yield Wait(0.0)
        assert done is not None
        return done
    call.note(error, now)
    return Done(None, error)
