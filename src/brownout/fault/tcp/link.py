"""One connection through the proxy: a client's side, an upstream's side, and two directions between them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Literal

from brownout._core.fault import drawn
from brownout.fault.kind import Cut

from .side import Side
from .stage import End
from .stream import Stream
from .truth import Exchange

if TYPE_CHECKING:
    from .active import Active
    from .alarm import Alarm, Wake
    from .proxy import Proxy

__all__ = ["Link"]

DIAL_SECONDS = 5.0
HEAD_BYTES = 4096  # of a request, to match against


class Link:
    """A connection, from the accept on. All of it happens on the loop's thread, and nothing waits."""

    def __init__(self, proxy: Proxy, alarm: Alarm) -> None:
        self.proxy = proxy
        self.alarm = alarm
        self.now = time.monotonic
        self.number = 0
        self.address = ""
        self.opened = self.now()
        self.up = Stream(self, "upstream")
        self.down = Stream(self, "downstream")
        self.client = Side(self, self.up, self.down)
        self.server = Side(self, self.down, self.up)
        self.exchange = Exchange(0, 0, "", self.opened, b"")
        self.over = False
        self._dialled = False
        self._dialling: asyncio.Task[None] | None = None
        self._numbers: dict[object, int] = {}
        self._verdicts: dict[Active, bool] = {}
        self._cuts: dict[Active, Wake] = {}

    def _unasked(self) -> Exchange:
        """What a server says before it is asked, and what nobody looks at."""
        return Exchange(self.number, 0, self.address, self.opened, b"")

    # ----------------------------------------------------------------------- it begins and it ends

    def came(self, side: Side) -> None:
        """A side is connected."""
        if side is self.server:
            self._reached()
            return
        assert side.transport is not None
        self.number = self.proxy.opened(self)
        peer: Any = side.transport.get_extra_info("peername")  # a path for a Unix socket
        self.address = "" if isinstance(peer, str | bytes) or not peer else str(peer[0])
        self.exchange = self._unasked()
        if not self.number:
            side.reset()
            return
        side.pause("dialling")
        self.arrange()
        if not self.over:
            self._dialling = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                await self.proxy.upstream_address.connect(lambda: self.server)
        except OSError:  # TimeoutError is one
            self.cut("reset")

    def _reached(self) -> None:
        """The upstream is there: hand on what came before, ahead of anything that comes now."""
        self._dialled = True
        if self.over or self.client.gone:
            self.server.reset()
            return
        self.up.open()
        self.client.resume("dialling")
        self.rebind()

    def ended(self) -> None:
        """A direction has ended; with both of them the connection is over."""
        if self.up.ended and self.down.ended and not self.over:
            self._over()
            self.client.finish()
            self.server.finish()

    def ended_early(self, end: End) -> None:
        """The client ended before the upstream was reached: nothing is sent if it was reset."""
        if end is End.RESET:
            self.cut("reset")

    def lost(self, side: Side, error: Exception | None) -> None:
        """A side is gone: the other one hears of it in the order of what was sent."""
        if not self.over:
            side.back.discard()
            side.stream.finish(End.CLOSE if error is None else End.RESET)
        if self.client.gone and (self.server.gone or not self._dialled):
            self._over()
            self.proxy.closed(self)

    def cut(
        self,
        how: Literal["reset", "close"],
        by: Active | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        """End both sides now, by RST or FIN."""
        if self.over:
            return
        if by is not None:
            what = "reset" if how == "reset" else "closed"
            request = 0 if exchange is None else exchange.request
            by.injection.note(self.now(), self.number, request, what, offset=self.up.passed)
        self._over()
        for side in (self.client, self.server):
            if how == "reset":
                side.reset()
            else:
                side.close()

    def _over(self) -> None:
        self.over = True
        if self._dialling is not None and not self._dialled:
            self._dialling.cancel()
        if self.exchange.ended is None:
            self.exchange.ended = self.now()
        for wake in self._cuts.values():
            wake.cancel()
        self._cuts.clear()
        self.up.discard()
        self.down.discard()

    # ------------------------------------------------------------------------------------ faults

    def turn(self, stream: Stream, data: bytes) -> Exchange:
        """The exchange that this data belongs to; the client's first after a reply begins a new one."""
        exchange = self.exchange
        if stream is self.down:
            exchange.bytes_down += len(data)
            return exchange
        if not exchange.request or exchange.bytes_down:
            now = self.now()
            exchange.ended = now
            if not self.proxy.watches:
                self.exchange = self._unasked()
                self.rebind()
                return self.exchange
            number = self.proxy.next_request()
            exchange = Exchange(self.number, number, self.address, now, data[:HEAD_BYTES])
            self.exchange = exchange
            self.proxy.exchanges.add(exchange)
        exchange.bytes_sent += len(data)
        return exchange

    def hit(self, active: Active, exchange: Exchange) -> bool:
        """Whether a fault hits this connection, or where it is per request this exchange."""
        if active.fault.per == "request":
            verdict = exchange.verdicts.get(active)
            if verdict is None:
                request = exchange.request - active.turns.before
                verdict = request > 0 and self._decided(active, exchange, request)
                exchange.verdicts[active] = verdict
            return verdict
        verdict = self._verdicts.get(active)
        if verdict is None:
            if active.fault.match is not None and not exchange.request:
                return False  # until the client has said something
            verdict = self._verdicts[active] = self._decided(active, exchange, 0)
        return verdict

    def _decided(self, active: Active, exchange: Exchange, request: int) -> bool:
        now = self.now()
        injection = active.injection
        verdict = injection.hits(
            now, self._number(active), request, client=self.address, head=exchange.head
        )
        what = "hit" if verdict else "passed"
        injection.note(now, self.number, exchange.request if request else 0, what)
        return verdict

    def _number(self, active: Active) -> int:
        """Which connection this is since the fault was made, from 1."""
        number = self._numbers.get(active.turns)
        if number is None:
            active.turns.connections += 1
            number = self._numbers[active.turns] = active.turns.connections
        return number

    def arrange(self, anew: Active | None = None) -> None:
        """Have the stages of the faults in force; `anew` is one whose schedule has it drawn again."""
        if self.over:
            return
        now = self.now()
        if anew is not None:
            self._verdicts.pop(anew, None)
        actives = self.proxy.actives
        wanted = [each for each in actives if self._concerns(each, now)]
        self.up.arrange(wanted)
        self.down.arrange(wanted)
        self._arrange_cuts(wanted, now)
        for gone in [each for each in self._verdicts if each not in actives]:
            del self._verdicts[gone]
        self.rebind()

    def _concerns(self, active: Active, now: float) -> bool:
        self._number(active)
        if not active.in_force(now):
            self._verdicts.pop(active, None)
            return False
        fault = active.fault
        return fault.per == "request" or fault.match is not None or self.hit(active, self.exchange)

    def _arrange_cuts(self, wanted: list[Active], now: float) -> None:
        for active in [each for each in self._cuts if each not in wanted]:
            self._cuts.pop(active).cancel()
        for active in wanted:
            fault = active.fault
            if not isinstance(fault, Cut) or fault.at != "accept" or active in self._cuts:
                continue
            chance = active.injection.chance(self.number)
            due = self.opened + drawn(fault.after_seconds, chance)
            if due > now or not self._dialling:
                self._cut_at(due, active, fault.how)

    def _cut_at(self, due: float, active: Active, how: Literal["reset", "close"]) -> None:
        if due <= self.now():
            self.cut(how, active)
        else:
            self._cuts[active] = self.alarm.at(due, lambda: self.cut(how, active))

    def rebind(self) -> None:
        """Take the short way where nothing is to be looked at, and only there.

        An exchange that was looked at is looked at to its end, also when the fault is undone in its midst.
        """
        if self.over or not self._dialled:
            return
        watched = self.proxy.watches or self.exchange.request
        plain = not (watched or self.up.stages or self.down.stages)
        for side, other in ((self.client, self.server), (self.server, self.client)):
            onward = other.transport
            straight = plain and onward is not None and not onward.is_closing()
            side.plain(onward if straight else None)

    @property
    def at_work(self) -> list[Active]:
        """The faults that have a stage here, or a cut that is waited for; none, once it is cut off."""
        if self.over:
            return []
        return [*(each.active for each in (*self.up.stages, *self.down.stages)), *self._cuts]

    def stop(self) -> None:
        """The proxy stops: close both sides without waiting for anything."""
        if not self.over:
            self._over()
        for side in (self.client, self.server):
            if side.transport is not None:
                side.transport.abort()
