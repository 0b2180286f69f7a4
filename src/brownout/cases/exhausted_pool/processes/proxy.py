"""The fault proxy: stands between each shop and its downstream, and makes requests fail. Stands alone.

It works on the connections themselves: `delay` holds a request back, `hang` swallows it and leaves the
connection open and silent, `reset` sends a real RST once the request has come, `refuse` takes the
listener away and resets what is open, so that connecting is refused. A fault hits both chains alike;
the share of requests that it hits is drawn request by request. What was done, and when, is the truth
of the case.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from typing import Any, NamedTuple

from .child import Child, run

KINDS = ("delay", "hang", "reset", "refuse")
_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ")
_RST_ON_CLOSE = struct.pack("ii", 1, 0)


class Fault(NamedTuple):
    """One fault: what is done to which share of the requests whose path begins with `only`."""

    kind: str
    name: str
    share: float = 1.0
    seconds: float = 0.0
    only: str = "/"

    def hits(self, request: bytes, chance: random.Random) -> bool:
        """Whether it hits a chunk that a client sent. A chunk that begins no request is never hit."""
        if not request.startswith(_METHODS):
            return False
        path = request.split(b" ", 2)[1].decode("latin-1")
        return path.startswith(self.only) and chance.random() < self.share


class Proxy:
    """The listener of one chain, in front of its instance of the downstream."""

    def __init__(self, child: Child, chain: str, onward: int, chance: random.Random) -> None:
        self._child = child
        self._chance = chance
        self._chain = chain
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None
        self.onward = onward
        self.port = 0
        self.fault: Fault | None = None
        self.open: set[Inward] = set()

    def drawn(self, request: bytes) -> Fault | None:
        """The fault that this request meets; it is recorded."""
        fault = self.fault
        if fault is None or fault.kind == "refuse" or not fault.hits(request, self._chance):
            return None
        self._child.record("effect", at=time.monotonic(), chain=self._chain, name=fault.name)
        return fault

    async def listen(self) -> None:
        """Accept connections: on a port that the kernel chooses, from then on on the same one."""
        place = self._reserved or _bound(0)
        self.port = place.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._reserved = None
        self._server = await loop.create_server(lambda: Inward(self), sock=place)

    def refuse(self) -> None:
        """Refuse connections, and reset those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
            # Bound but not listening: connects are refused, and nobody else is given the port.
            self._reserved = _bound(self.port)
        for connection in list(self.open):
            connection.reset()


def _bound(port: int) -> socket.socket:
    # The protocol is named, since asyncio sets TCP_NODELAY only then; else two small writes wait 40 ms.
    place = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind(("127.0.0.1", port))
    place.setblocking(False)  # noqa: FBT003 - socket's own
    return place


class Inward(asyncio.Protocol):
    """A client's connection, and its way on to the downstream."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._client: asyncio.Transport | None = None
        self._outward: asyncio.Transport | None = None
        self._held: list[bytes] = []  # what must wait: for the connection onward, or for a delay
        self._delayed = False
        self._silent = False
        self._dialling: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Dial on."""
        assert isinstance(transport, asyncio.Transport)
        self._client = transport
        self._proxy.open.add(self)
        self._dialling = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            onward, _ = await loop.create_connection(
                lambda: Outward(self), "127.0.0.1", self._proxy.onward
            )
        except OSError:
            self.reset()
            return
        self._outward = onward
        self._send()

    def data_received(self, data: bytes) -> None:
        """Pass on what the client sent, unless a fault hits it."""
        if self._silent:
            return
        fault = self._proxy.drawn(data)
        if fault is not None and fault.kind == "hang":
            self._silent = True
            return
        if fault is not None and fault.kind == "reset":
            self.reset()
            return
        self._held.append(data)
        if fault is not None:
            self._delayed = True
            asyncio.get_running_loop().call_later(fault.seconds, self._resume)
        self._send()

    def _resume(self) -> None:
        self._delayed = False
        self._send()

    def _send(self) -> None:
        if self._delayed or self._outward is None or self._outward.is_closing():
            return
        for data in self._held:
            self._outward.write(data)
        self._held.clear()

    def answered(self, data: bytes) -> None:
        """Pass back what the downstream sent."""
        if self._client is not None and not self._silent:
            self._client.write(data)

    def reset(self) -> None:
        """Close the client's connection by an RST, as a crashed peer does."""
        if self._client is not None:
            sock = self._client.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
            self._client.abort()

    def close(self) -> None:
        """The downstream closed: so do we, unless we are to be silent."""
        if self._client is not None and not self._silent:
            self._client.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client's side is gone: so is the other."""
        self._proxy.open.discard(self)
        if self._dialling is not None:
            self._dialling.cancel()
        if self._outward is not None:
            self._outward.abort()


class Outward(asyncio.Protocol):
    """The connection to the downstream, on behalf of one client's."""

    def __init__(self, inward: Inward) -> None:
        self._inward = inward

    def data_received(self, data: bytes) -> None:
        """Pass it back."""
        self._inward.answered(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it back."""
        self._inward.close()


class Faults:
    """Makes one fault at a time on all listeners, and records what began and ended when."""

    def __init__(self, child: Child, proxies: list[Proxy]) -> None:
        self._child = child
        self._proxies = proxies
        self._fault: Fault | None = None

    async def obey(self, command: dict[str, Any]) -> None:
        """Carry out `{"fault": {...}}` or `{"clear": true}`, and tell when it is done."""
        if command.get("clear"):
            await self.clear()
        else:
            await self.clear()
            self._begin(Fault(**command["fault"]))
        self._child.tell(done=command)

    def _begin(self, fault: Fault) -> None:
        if fault.kind not in KINDS:
            raise ValueError(f"no fault is called {fault.kind!r}: there are {', '.join(KINDS)}")
        self._fault = fault
        for proxy in self._proxies:
            proxy.fault = fault
            if fault.kind == "refuse":
                proxy.refuse()
        self._child.record("began", at=time.monotonic(), fault=fault.kind, **_story(fault))

    async def clear(self) -> None:
        """Undo the fault, if there is one. What hangs goes on hanging until its client leaves."""
        fault, self._fault = self._fault, None
        if fault is None:
            return
        for proxy in self._proxies:
            proxy.fault = None
            if fault.kind == "refuse":
                await proxy.listen()
        self._child.record("ended", at=time.monotonic(), fault=fault.kind, **_story(fault))


def _story(fault: Fault) -> dict[str, object]:
    return {"name": fault.name, "share": fault.share, "seconds": fault.seconds}


async def main(child: Child) -> None:
    """Listen for both chains, and make the faults that the parent asks for."""
    chance = random.Random(child.spec["seed"])
    proxies = [Proxy(child, chain, port, chance) for chain, port in child.spec["onward"].items()]
    for proxy in proxies:
        await proxy.listen()
    faults = Faults(child, proxies)
    child.tell(ready=dict(zip(child.spec["onward"], [p.port for p in proxies], strict=True)))
    while True:
        await faults.obey(await child.commands.get())


if __name__ == "__main__":
    run(main)
