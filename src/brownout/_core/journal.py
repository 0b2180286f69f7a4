"""A caller's journal: the calls with a key whose outcome is not certain, kept for its next life."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from concurrent.futures import Future

    from brownout._core.outcome import Phase


class Entry(NamedTuple):
    """A call whose outcome is not known for certain: of which key, at which target, how far it had come.

    `since` is in seconds since 1970: when it was sent, or was last heard of. `call` tells calls of one key
    apart (0: all of them). `held`: somebody calls or settles at this moment.
    """

    key: str
    target: str
    operation: str
    phase: Phase
    since: float
    call: int = 0
    held: bool = False


class Journal(Protocol):
    """Where a guard writes down what is unknown. What is told here is done in that order, a bit later.

    Nothing but `unsettled` raises or waits: trouble is shown, and what was to be written is written when
    it is over.
    """

    def begin(self, entry: Entry, seconds: float) -> Future[bool]:
        """A call is about to be sent; it may take so long, and is nobody else's meanwhile.

        The future is True when it is written down, False when it can't be.
        """
        ...

    def unknown(self, entry: Entry) -> None:
        """A call has ended, or was asked for in vain: it stays unknown, and may be settled by anybody."""
        ...

    def settle(self, key: str, target: str, call: int = 0) -> None:
        """It is certain what became of a call; of all calls with that key, if none is named."""
        ...

    def lease(self, key: str, target: str, seconds: float) -> Future[bool]:
        """Take a key, to settle it within so long. The future is False if somebody else has it."""
        ...

    def unsettled(self, target: str | None = None) -> list[Entry]:
        """An entry a key (of one target), the oldest first. Raises BrownoutError if it can't be read."""
        ...
