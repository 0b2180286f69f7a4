"""One proxy as the API sees it: it has a name and toxics also while it doesn't run."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any
from zlib import crc32

from brownout.errors import BrownoutError, ConfigurationError
from brownout.fault.api.access import Address
from brownout.fault.api.answer import Problem
from brownout.fault.api.toxic import Toxic
from brownout.fault.tcp import Proxy

if TYPE_CHECKING:
    from brownout.fault.api.body import Object

__all__ = ["Proxied"]

TOXICS = 100


class Proxied:
    """A proxy that can be stopped and started, moved, and keeps its toxics meanwhile.

    `listen` and `upstream` are as the client wrote them, but that `listen` becomes the real address once
    the proxy has started. `address` is what `listen` means.
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
        self._proxy: Proxy | None = None

    @property
    def enabled(self) -> bool:
        """Whether it listens."""
        return self._proxy is not None

    # ------------------------------------------------------------------------------ the proxy

    async def start(self) -> None:
        """Listen, unless it does already. Raises Problem if the address can't be had."""
        if self._proxy is not None:
            return
        try:
            proxy = Proxy(
                str(Address.of(self.upstream)), str(self.address), name=self.name, seed=self._seed
            )
            self._proxy = proxy
            for toxic in self._toxics.values():
                self._make(toxic)
            await proxy.start()
        except BrownoutError as error:
            self._proxy = None
            raise Problem(500, str(error)) from error
        self.listen = proxy.listen
        self.address = Address.of(proxy.listen)

    async def stop(self) -> None:
        """Stop listening, and end all connections."""
        proxy, self._proxy = self._proxy, None
        if proxy is not None:
            await proxy.stop()

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
    # None of this waits: a toxic is in force when it is answered for, and bytes in flight see to themselves.

    @property
    def toxics(self) -> list[Toxic]:
        """In the order in which bytes meet them, those of the request first."""
        return sorted(self._toxics.values(), key=lambda toxic: toxic.stream == "downstream")

    def toxic(self, name: str) -> Toxic:
        """The one of that name. Raises Problem."""
        if name not in self._toxics:
            raise Problem(404, "toxic not found")
        return self._toxics[name]

    def add(self, given: Object) -> Toxic:
        """A new toxic, on live connections too. Raises Problem, and then nothing is changed."""
        toxic = Toxic.of(given)
        if toxic.name in self._toxics:
            raise Problem(409, "toxic already exists")
        if len(self._toxics) >= TOXICS:
            raise Problem(400, f"a proxy has at most {TOXICS} toxics: delete some first")
        self._make(toxic)
        self._toxics[toxic.name] = toxic
        return toxic

    def update(self, name: str, given: Object) -> Toxic:
        """Other amounts for a toxic, whom it hits decided anew. Raises Problem."""
        toxic = self.toxic(name).updated(given)
        fault = _fault(toxic)
        if fault is not None and self._proxy is not None:
            self._proxy.change(name, fault)
        self._toxics[name] = toxic
        return toxic

    def remove(self, name: str) -> None:
        """End a toxic. Raises Problem."""
        toxic = self.toxic(name)
        if self._proxy is not None and toxic.fault() is not None:
            self._proxy.undo(name)
        del self._toxics[name]

    def clear(self) -> None:
        """End all its toxics."""
        for name in list(self._toxics):
            self.remove(name)

    def _make(self, toxic: Toxic) -> None:
        fault = _fault(toxic)
        if fault is not None and self._proxy is not None:
            self._proxy.make(fault, seconds=inf, name=toxic.name)


def _fault(toxic: Toxic) -> Any:
    try:
        return toxic.fault()
    except ConfigurationError as error:
        raise Problem(400, f"bad request body: {error}") from error
