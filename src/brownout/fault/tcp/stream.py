"""One direction of a connection: data from its source, through the stages of the faults, to its sink."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Literal

from .shape import stage_of
from .stage import End, Onward, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .active import Active
    from .link import Link
    from .side import Side
    from .truth import Exchange

__all__ = ["HELD_BYTES", "Stream"]

HELD_BYTES = 16 << 20  # held by the stages of one direction, before its source is read no more


class Stream:
    """A direction; also the tail of its own chain, which writes to the sink."""

    def __init__(self, link: Link, name: Literal["upstream", "downstream"]) -> None:
        self.link = link
        self.name = name
        self.place = 1 if name == "upstream" else 2  # for the draws of its stages
        self.source: Side
        self.sink: Side
        self.stages: list[Stage[Any]] = []
        self.passed = 0  # bytes of it that have come while faults were looked after
        self.ended = False  # its end has reached the sink
        self._first: Onward = self
        self._held = 0
        self._early: deque[tuple[bytes, Exchange]] = deque()  # came before the sink was there
        self._early_end: End | None = None

    # ------------------------------------------------------------------------------- what comes

    def feed(self, data: bytes) -> None:
        """Data has come from the source."""
        exchange = self.link.turn(self, data)
        self._first.data(data, exchange)
        self.passed += len(data)

    def finish(self, end: End) -> None:
        """The source has said all, or is gone."""
        self._first.end(end, self.link.exchange)

    # --------------------------------------------------------------------------------- the tail

    def data(self, data: bytes, exchange: Exchange) -> None:
        """Write to the sink."""
        transport = self.sink.transport
        if transport is None:
            self._early.append((data, exchange))
            self.hold(len(data))
            return
        if transport.is_closing():
            return
        transport.write(data)
        if self.place == 1:
            exchange.bytes_up += len(data)
        else:
            exchange.bytes_delivered += len(data)

    def end(self, end: End, exchange: Exchange) -> None:
        """End the sink as the source ended, or cut the connection, once all before it is written."""
        if end in (End.CUT_RESET, End.CUT_CLOSE):
            how: Literal["reset", "close"] = "reset" if end is End.CUT_RESET else "close"
            self.sink.when_drained(lambda: self.link.cut(how))
            return
        if self.sink.transport is None and not self.sink.gone:
            self._early_end = end
            self.link.ended_early(end)
            return
        self.ended = True
        if end is End.RESET:
            self.sink.when_drained(lambda: self.link.cut("reset"))
        else:
            self.sink.write_end()
            self.link.ended()

    def open(self) -> None:
        """The sink is there: write what came before."""
        while self._early:
            data, exchange = self._early.popleft()
            self.let(len(data))
            self.data(data, exchange)
        if self._early_end is not None:
            self.end(self._early_end, self.link.exchange)

    # ------------------------------------------------------------------------------- the stages

    def arrange(self, wanted: Sequence[Active]) -> None:
        """Have exactly the stages of these faults. One that stays keeps what it holds."""
        old = {stage.active: stage for stage in self.stages}
        found = [old.get(active) or stage_of(self, active) for active in wanted]
        stages = [stage for stage in found if stage is not None]
        if stages == self.stages:
            return
        changed = {stage.active.turns: stage for stage in self.stages if stage not in stages}
        for stage in stages:
            if stage.active.turns in changed:
                stage.follow(changed[stage.active.turns])
        before, self.stages = self.stages, stages
        following: Onward = self
        for stage in reversed(stages):
            stage.next = following
            following = stage
        self._first = following
        self._dismiss(before)

    def _dismiss(self, before: list[Stage[Any]]) -> None:
        """Let those go that are no longer there: the last first, since what it holds is the oldest."""
        turns = {stage.active.turns for stage in self.stages}
        following: Onward = self
        for stage in reversed(before):
            if stage in self.stages:
                following = stage
            else:
                stage.next = following
                stage.release(replaced=stage.active.turns in turns)

    def discard(self) -> None:
        """The connection is over: forget all that is held."""
        for stage in self.stages:
            stage.discard()
        self._early.clear()

    # ------------------------------------------------------------------------- what it may hold

    def hold(self, size: int) -> None:
        """So many bytes more are held."""
        self._held += size
        if self._held > HELD_BYTES:
            self.source.pause("held")

    def let(self, size: int) -> None:
        """So many bytes less are held."""
        self._held -= size
        if self._held < HELD_BYTES // 2:
            self.source.resume("held")
