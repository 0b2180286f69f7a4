"""A fault made beside a running loop, which goes on meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from brownout._core.fault import Fault

    from .made import Made

__all__ = ["making"]


class Place(Protocol):
    """Where faults are made."""

    def make(self, fault: Fault, *, seconds: float = ..., name: str | None = ...) -> Made:
        """Make one."""
        ...


@asynccontextmanager
async def making(
    place: Place, fault: Fault, *, seconds: float = 60.0, name: str | None = None
) -> AsyncGenerator[Made]:
    """Make a fault for the length of the block; the loop waits neither for its making nor for its undo.

    `async with place.make(fault):` waits on the loop's thread while it is made: for its record, and the
    first time for a watchdog to start, which takes as long as a start of Python. Here a thread does, so this
    is not for a pool that lives in the loop. Raises what `place.make` does.
    """
    begun = asyncio.ensure_future(asyncio.to_thread(place.make, fault, seconds=seconds, name=name))
    try:
        made = await asyncio.shield(begun)
    except asyncio.CancelledError:
        await asyncio.wait({begun})  # it goes on in its thread, so it has to be undone
        if not begun.cancelled() and begun.exception() is None:
            await asyncio.to_thread(begun.result().undo)
        raise
    async with made:
        yield made
