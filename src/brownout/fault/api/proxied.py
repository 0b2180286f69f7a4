"""One proxy as the API sees it: it has a name and toxics also while it doesn't run."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any
from zlib import crc32

from brownout.errors import BrownoutError, ConfigurationError
from brownout.fault.api.answer import Problem
from brownout.fault.api.toxic import Toxic
from brownout.fault.tcp import Proxy
from brownout.fault.tcp.address import Address

if TYPE_CHECKING:
    from brownout._core.fault import Fault
    from brownout.fault.api.body import Object
    from brownout.fault.made import Made

__all__ = ["Proxied"]

TOXICS = 100


class Proxied:
    """A proxy that can be stopped and started, moved, and keeps its toxics meanwhile.

    `listen` and `upstream` are as the client wrote them, but that `listen` becomes the real address once
    the proxy has started; `address` is what `listen` means. What changes it is called one after the
    other. It waits for no client and no upstream: only for files, in a thread, since each fault is put
    on record.
    """

    def __init__(
        self, name: str, *, listen: str, address: Address, upstream: str, seed: int
    ) -> None:
        self.name = name
        self.listen = listen
        self.address = address
        self.upstream = upstream
        self._seed = seed ^ crc32(name.encode())  # or all proxies would hit the same connections
        self._toxics: dict[str, Toxic] = {}
        self._made: dict[str, Made] = {}
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
        for toxic in self._toxics.values():
            await self._make(toxic)

    async def close(self) -> None:
        """Stop, and take its faults off record."""
        await self.stop()
        for name in list(self._made):
            await self._undo(name)

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
        return sorted(self._toxics.values(), key=lambda toxic: toxic.stream == "downstream")

    def toxic(self, name: str) -> Toxic:
        """The one of that name. Raises Problem."""
        if name not in self._toxics:
            raise Problem(404, "toxic not found")
        return self._toxics[name]

    async def add(self, given: Object) -> Toxic:
        """A new toxic, on live connections too. Raises Problem, and then nothing is changed."""
        toxic = Toxic.of(given)
        if toxic.name in self._toxics:
            raise Problem(409, "toxic already exists")
        if len(self._toxics) >= TOXICS:
            raise Problem(400, f"a proxy has at most {TOXICS} toxics: delete some first")
        await self._make(toxic)
        self._toxics[toxic.name] = toxic
        return toxic

    def update(self, name: str, given: Object) -> Toxic:
        """Other amounts for a toxic, whom it hits decided anew. Raises Problem."""
        toxic = self.toxic(name).updated(given)
        fault = _fault(toxic)
        if fault is not None:
            try:
                self._proxy.change(name, fault)
            except BrownoutError as error:
                raise Problem(500, str(error)) from error
        self._toxics[name] = toxic
        return toxic

    async def remove(self, name: str) -> None:
        """End a toxic. Raises Problem."""
        self.toxic(name)
        if name in self._made:
            await self._undo(name)
        del self._toxics[name]

    async def clear(self) -> None:
        """End all its toxics."""
        for name in list(self._toxics):
            await self.remove(name)

    async def _make(self, toxic: Toxic) -> None:
        fault = _fault(toxic)
        if fault is None:
            return
        try:
            self._made[toxic.name] = await asyncio.to_thread(
                self._proxy.make, fault, seconds=inf, name=toxic.name
            )
        except BrownoutError as error:
            raise Problem(500, str(error)) from error

    async def _undo(self, name: str) -> None:
        try:
            await asyncio.to_thread(self._made[name].undo)
        except BrownoutError as error:  # it stays, and another attempt is worth while
            raise Problem(500, str(error)) from error
        del self._made[name]


def _fault(toxic: Toxic) -> Fault | None:
    try:
        return toxic.fault()
    except ConfigurationError as error:
        raise Problem(400, f"bad request body: {error}") from error
