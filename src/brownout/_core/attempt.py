"""An attempt: one call on its way to the target, admitted and not yet settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brownout._core.deadline import DeadlineHeader
from brownout._core.outcome import OutcomeClass, Phase, Shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from brownout._core.breaker import Gate
    from brownout._core.evidence import Shard
    from brownout._core.held import Hold

LABELS = 8  # of one attempt
MOST_LABEL = 100  # characters of a value
_WRITTEN = (DeadlineHeader.ENVOY,)


class Attempt:
    """One attempt in flight: admitted, not yet settled. Adapters tell it how far it has come.

    `began` and `deadline` are monotonic instants; `phase` is how far it has come for certain. An adapter
    that has a pool of its own says `waiting()` before and `waited(seconds)` after the wait for a
    connection, which is not the target's time; then `sent()` and `receiving()`.
    """

    # Most attempts change none of these: as defaults of the class they cost them nothing.
    waited_seconds = 0.0
    phase = Phase.SENDING
    queued = False  # waiting for our own pool
    probe: tuple[Gate, int] | None = None  # the breaker's, if it is one, and its lease
    inherited = False  # the deadline is the caller's, shorter than the guard's time-out
    expired = False  # our timer ended it
    shown: Shown | None = None
    key: str | None = None  # of the call, where the attempt is handed out
    labels: tuple[tuple[str, str], ...] = ()  # what it has in common with others
    keep: Callable[[Attempt], Hold]  # set where an attempt is handed out, so that it can be held

    def __init__(self, shard: Shard, began: float, deadline: float) -> None:
        self.shard = shard
        self.began = began
        self.deadline = deadline

    def waiting(self) -> None:
        """It waits for a connection of our own pool; nothing has been sent."""
        self.queued = True
        self.phase = Phase.NOT_SENT

    def waited(self, seconds: float) -> None:
        """The wait for the pool is over and took so many seconds; nothing has been sent yet."""
        self.queued = False
        self.waited_seconds = seconds

    def sent(self) -> None:
        """From now on the target may have got it."""
        self.phase = Phase.SENT

    def receiving(self) -> None:
        """An answer has begun to arrive."""
        self.phase = Phase.RECEIVING

    def label(self, **labels: str) -> None:
        """Say what it has in common with others, as soon as that is known: `label(backend="10.0.0.3:80")`.

        Where some calls go well and others do not, the verdict names the value that tells them apart: those
        of one backend, one connection, one shard. What is said later of the same label replaces it. At
        most 8 labels, and 100 characters of a value, are kept; what was kept of others stays.
        """
        known = {name: str(value)[:MOST_LABEL] for name, value in labels.items()}
        if self.labels:
            known = {**dict(self.labels), **known}
        self.labels = tuple(list(known.items())[:LABELS])

    def headers(self, now: float, written: Sequence[DeadlineHeader] = _WRITTEN) -> dict[str, str]:
        """What to tell the next hop: the time that is left at the monotonic instant `now`."""
        told = {header.name: header.write(self.deadline - now) for header in written}
        return {name: value for name, value in told.items() if value is not None}

    def settle(self, class_: OutcomeClass, retry_after: float | None = None) -> None:
        """Say what the attempt showed, where its end (a value or an exception) does not say it."""
        self.shown = Shown.of(class_, retry_after)

    def hold(self) -> Hold:
        """Say that the attempt goes on when its function returns: its answer is still to be read.

        It stays in flight, with its permit, until the Hold ends it; that is to be kept by what reads the
        answer. Do it last: what the function raises afterwards is not told to the guard. Raises
        RuntimeError if the attempt is over already, or held.
        """
        return self.keep(self)
