"""One proxy as the API sees it: it has a name and toxics also while it doesn't run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zlib import crc32

from brownout.errors import BrownoutError, ConfigurationError
from brownout.fault.api.answer import Problem
from brownout.fault.api.toxic import Toxic
from brownout.fault.record import now
from brownout.fault.tcp import Proxy
from brownout.fault.tcp.address import Address

if TYPE_CHECKING:
    from brownout._core.fault import Fault
    from brownout.fault.api.body import Object
    from brownout.fault.made import Made

__all__ = ["Proxied"]

TOXICS = 100


@dataclass(slots=True)
class _Held:
    """A toxic, the fault that it is, if it is any, and the instant of its end."""

    toxic: Toxic
    end: float
    made: Made | None = None

    @property
    def over(self) -> bool:
        """Whether its time has come, and it is seen to be gone: as if a client had removed it."""
        return now() >= self.end and (self.made is None or not self.made.active)


class Proxied:
    """A proxy that can be stopped and started, moved, and keeps its toxics meanwhile.

    A toxic ends by itself, after `seconds` unless its client says otherwise, whether or not it is stopped.

    `listen` and `upstream` are as the client wrote them, but that `listen` becomes the real address once
    the proxy has started; `address` is what `listen` means. What changes it is called one after the
    other. It waits for no client and no upstream: only for files, in a thread, since each fault is put
    on record.
    """

    def __init__(
        self,
        name: str,
        *,
        listen: str,
        address: Address,
        upstream: str,
        seed: int,
        seconds: float,
    ) -> None:
        self.name = name
        self.listen = listen
        self.address = address
        self.upstream = upstream
        self._seed = seed ^ crc32(name.encode())  # or all proxies would hit the same connections
        self._seconds = seconds
        self._held: dict[str, _Held] = {}
        self._proxy = self._new()

    def _new(self) -> Proxy:
        upstream = Address.read(self.upstream)
        return Proxy(str(upstream), str(self.address), name=self.name, seed=self._seed)

    @property
    def enabled(self) -> bool:
        """Whether it listens."""
        return self._proxy.enabled

    # ------------------------------------------------------------------------------ the proxy

    async def start(self) -> None:
        """Listen, unless it does already. Raises Problem if the address can't be had."""
        try:
            await self._proxy.start()
        except BrownoutError as error:
            raise Problem(500, str(error)) from error
        self.listen = self._proxy.listen
        self.address = Address.read(self.listen)

    async def stop(self) -> None:
        """Listen no more, and end all connections."""
        await self._proxy.stop()

    async def move(self, listen: str, address: Address, upstream: str) -> None:
        """Stop, and be between other addresses at the next start, with the same toxics."""
        await self.close()
        self.listen, self.address, self.upstream = listen, address, upstream
        self._proxy = self._new()
        for held in self._all():
            await self._make(held)

    async def close(self) -> None:
        """Stop, and take its faults off record."""
        await self.stop()
        for held in self._all():
            await self._undo(held)

    def differs(self, address: Address, upstream: str) -> bool:
        """Whether this is another way than its own."""
        return (address, upstream) != (self.address, self.upstream)

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "listen": self.listen,
            "upstream": self.upstream,
            "enabled": self.enabled,
            "toxics": [toxic.told() for toxic in self.toxics],
        }

    # ------------------------------------------------------------------------------ its toxics

    @property
    def toxics(self) -> list[Toxic]:
        """In the order in which bytes meet them, those of the request first."""
        toxics = [held.toxic for held in self._all()]
        return sorted(toxics, key=lambda toxic: toxic.stream == "downstream")

    def toxic(self, name: str) -> Toxic:
        """The one of that name. Raises Problem."""
        return self._one(name).toxic

    def _all(self) -> list[_Held]:
        for name in [name for name, held in self._held.items() if held.over]:
            del self._held[name]
        return list(self._held.values())

    def _one(self, name: str) -> _Held:
        self._all()
        if name not in self._held:
            raise Problem(404, "toxic not found")
        return self._held[name]

    async def add(self, given: Object) -> Toxic:
        """A new toxic, on live connections too. Raises Problem, and then nothing is changed."""
        toxic = Toxic.of(given)
        there = self._all()
        if toxic.name in self._held:
            raise Problem(409, "toxic already exists")
        if len(there) >= TOXICS:
            raise Problem(400, f"a proxy has at most {TOXICS} toxics: delete some first")
        held = _Held(toxic, now() + (toxic.seconds or self._seconds))
        await self._make(held)
        self._held[toxic.name] = held
        return toxic

    async def update(self, name: str, given: Object) -> Toxic:
        """Other amounts for a toxic, whom it hits decided anew, or another end. Raises Problem."""
        held = self._one(name)
        toxic = held.toxic.updated(given)
        fault = _fault(toxic)
        seconds = toxic.seconds if Toxic.renews(given) else None
        if fault is not None:
            try:
                await asyncio.to_thread(self._proxy.change, name, fault, seconds=seconds)
            except BrownoutError as error:
                self._one(name)  # it may have ended just now
                raise Problem(500, str(error)) from error
        held.toxic = toxic
        held.end = held.end if seconds is None else now() + seconds
        return toxic

    async def remove(self, name: str) -> None:
        """End a toxic. Raises Problem."""
        await self._undo(self._one(name))
        self._held.pop(name, None)

    async def clear(self) -> None:
        """End all its toxics."""
        for held in self._all():
            await self._undo(held)
            self._held.pop(held.toxic.name, None)

    async def _make(self, held: _Held) -> None:
        fault = _fault(held.toxic)
        left = held.end - now()
        if fault is None or left <= 0:
            return
        make, name = self._proxy.make, held.toxic.name
        try:
            held.made = await asyncio.to_thread(make, fault, seconds=left, name=name)
        except BrownoutError as error:
            raise Problem(500, str(error)) from error

    async def _undo(self, held: _Held) -> None:
        if held.made is None:
            return
        try:
            await asyncio.to_thread(held.made.undo)
        except BrownoutError as error:  # it stays, and another attempt is worth while
            raise Problem(500, str(error)) from error
        held.made = None


def _fault(toxic: Toxic) -> Fault | None:
    try:
        return toxic.fault()
    except ConfigurationError as error:
        raise Problem(400, f"bad request body: {error}") from error
