"""All proxies by name: made, changed, populated and reset, one change after the other."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from brownout.errors import ConfigurationError
from brownout.fault.api import body
from brownout.fault.api.access import BEYOND, address_of, is_loopback, resolved
from brownout.fault.api.answer import Problem
from brownout.fault.api.proxied import Proxied

if TYPE_CHECKING:
    from brownout.fault.api.body import Object
    from brownout.fault.api.toxic import Toxic
    from brownout.fault.tcp.address import Address

__all__ = ["Proxies"]

PROXIES = 1000


class _Wanted(NamedTuple):
    """What a body asks a proxy to be, checked, and with its name resolved before anything is changed."""

    name: str
    listen: str
    address: Address
    upstream: str
    enabled: bool


class Proxies:
    """The proxies of one API.

    `beyond`: they may listen beyond this machine. `seconds`: how long a toxic is in force if its client
    says nothing of that.

    Reading never waits. Changes wait for each other, and for nothing that a client or an upstream does.
    """

    def __init__(self, *, seed: int, beyond: bool, seconds: float) -> None:
        self._seed = seed
        self._seconds = seconds
        self._beyond = beyond
        self._all: dict[str, Proxied] = {}
        self._one_at_a_time = asyncio.Lock()

    def get(self, name: str) -> Proxied:
        """The one of that name. Raises Problem."""
        if name not in self._all:
            raise Problem(404, "proxy not found")
        return self._all[name]

    def told(self) -> dict[str, Any]:
        """All, as JSON."""
        return {name: proxy.told() for name, proxy in self._all.items()}

    async def create(self, given: Object) -> Proxied:
        """A new one. Raises Problem, and then there is none."""
        wanted = await self._wanted(given)
        async with self._one_at_a_time:
            if wanted.name in self._all:
                raise Problem(409, "proxy already exists")
            self._check_room(1)
            return await self._put(wanted)

    async def update(self, name: str, given: Object) -> Proxied:
        """Another address, or on or off; its toxics stay. Raises Problem."""
        now = self.get(name)
        listen = body.text(given, "listen", now.listen)
        upstream = body.text(given, "upstream", now.upstream) or now.upstream
        enabled = body.truth(given, "enabled", default=now.enabled)
        address = await self._address(listen) if "listen" in given else now.address
        _check_upstream(upstream)
        async with self._one_at_a_time:
            proxied = self.get(name)
            if proxied.differs(address, upstream):
                await proxied.move(listen, address, upstream)
            await (proxied.start() if enabled else proxied.stop())
            return proxied

    async def delete(self, name: str) -> None:
        """Stop one and forget it. Raises Problem."""
        async with self._one_at_a_time:
            proxied = self.get(name)
            await proxied.close()
            del self._all[name]

    async def add_toxic(self, name: str, given: Object) -> Toxic:
        """A new toxic of a proxy. Raises Problem."""
        async with self._one_at_a_time:
            return await self.get(name).add(given)

    async def update_toxic(self, name: str, toxic: str, given: Object) -> Toxic:
        """Other amounts for a toxic. Raises Problem."""
        async with self._one_at_a_time:
            return await self.get(name).update(toxic, given)

    async def remove_toxic(self, name: str, toxic: str) -> None:
        """End a toxic. Raises Problem."""
        async with self._one_at_a_time:
            await self.get(name).remove(toxic)

    async def populate(self, given: list[Object]) -> tuple[list[Proxied], Problem | None]:
        """Make those that aren't there, replace those that differ, leave the others alone.

        What is made before one fails to start stays, and is returned beside the problem. Raises
        Problem, before anything is changed, for what can't be asked.
        """
        if len(given) > PROXIES:
            raise Problem(400, f"there are at most {PROXIES} proxies")
        for number, fields in enumerate(given, 1):
            _check_fields(fields, f" at proxy {number}")
        wanted = await asyncio.gather(*map(self._wanted, given))
        done: list[Proxied] = []
        async with self._one_at_a_time:
            self._check_room(len({each.name for each in wanted} - self._all.keys()))
            for each in wanted:
                try:
                    done.append(await self._replaced(each))
                except Problem as problem:
                    return done, problem
        return done, None

    async def reset(self) -> None:
        """Start all and end all toxics. Raises Problem for what didn't start, after all else is done."""
        failed: list[str] = []
        async with self._one_at_a_time:
            for proxied in self._all.values():
                try:
                    await proxied.clear()
                    await proxied.start()
                except Problem as problem:
                    failed.append(problem.message)
        if failed:
            raise Problem(500, "; ".join(failed))

    async def close(self) -> None:
        """Stop and forget all."""
        async with self._one_at_a_time:
            while self._all:
                _, proxied = self._all.popitem()
                with suppress(Problem):
                    await proxied.close()

    async def _replaced(self, wanted: _Wanted) -> Proxied:
        old = self._all.get(wanted.name)
        if old is not None:
            if not old.differs(wanted.address, wanted.upstream):
                return old
            await old.stop()
        new = await self._put(wanted)
        if old is not None:
            await old.close()
        return new

    async def _put(self, wanted: _Wanted) -> Proxied:
        proxied = Proxied(
            wanted.name,
            listen=wanted.listen,
            address=wanted.address,
            upstream=wanted.upstream,
            seed=self._seed,
            seconds=self._seconds,
        )
        if wanted.enabled:
            await proxied.start()
        self._all[wanted.name] = proxied
        return proxied

    async def _wanted(self, given: Object) -> _Wanted:
        _check_fields(given, "")
        listen, upstream = body.text(given, "listen", ""), given["upstream"]
        _check_upstream(upstream)
        enabled = body.truth(given, "enabled", default=True)
        address = await self._address(listen)
        return _Wanted(given["name"], listen or str(address), address, upstream, enabled)

    async def _address(self, listen: str) -> Address:
        try:
            address = await resolved(listen)
        except ConfigurationError as error:
            raise Problem(400, f"bad request body: listen: {error}") from error
        if not self._beyond and not is_loopback(address.host):
            raise Problem(403, f"listen {listen!r} is open {BEYOND}")
        return address

    def _check_room(self, more: int) -> None:
        if len(self._all) + more > PROXIES:
            raise Problem(400, f"there are at most {PROXIES} proxies: delete some first")


def _check_fields(given: Object, where: str) -> None:
    for name in ("name", "upstream"):
        if not body.text(given, name, ""):
            raise Problem(400, f"missing required field: {name}{where}")


def _check_upstream(upstream: str) -> None:
    try:
        address_of(upstream)
    except ConfigurationError as error:
        raise Problem(400, f"bad request body: upstream: {error}") from error
