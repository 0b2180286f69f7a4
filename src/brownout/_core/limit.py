"""The limit: how many attempts may be in flight at once.

A fixed limit is a stack of permits. Taking and giving back one are single operations of a list, atomic
under every Python, so it needs no lock and no count can drift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brownout._core.attempt import Attempt


class Limit:
    """A fixed number of permits.

    `free` is the stack itself, always the same list, for who can't afford a call. A permit is None, or an
    attempt that is over and that nobody knows any more: it serves again.
    """

    __slots__ = ("free", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.free: list[Attempt | None] = [None] * most

    def take(self) -> bool:
        """Take a permit; False if none is free. Never waits."""
        try:
            self.free.pop()
        except IndexError:
            return False
        return True

    def give(self) -> None:
        """Give a permit back."""
        self.free.append(None)

    def renew(self) -> None:
        """As new, after a fork: the permits that are out are the parent's."""
        self.free[:] = [None] * self.most

    @property
    def in_use(self) -> int:
        """Permits taken now."""
        return self.most - len(self.free)
