"""Fixtures for tests of what a service does while something fails in part: `faults` and `states`.

def test_a_slow_database_is_seen(faults, states, shop):
    with faults.tcp("127.0.0.1:5432", listen=shop.database).make(Latency(seconds=1)):
        shop.read_many(200)
    assert states.named("database") is State.DEGRADED

Whatever a test has made is undone at its end, and seen to be gone, or the test fails. pytest loads this
module in every run: it imports nothing of faults before a test asks for them.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, overload

import pytest

if TYPE_CHECKING:
    import os
    from collections.abc import Generator
    from pathlib import Path
    from typing import Literal

    from brownout import State, Verdict
    from brownout.fault import Fault
    from brownout.fault.disk.place import Disk
    from brownout.fault.http import HttpProxy
    from brownout.fault.made import Made
    from brownout.fault.pool import Pool
    from brownout.fault.process.place import Listener, Process
    from brownout.fault.process.subject import Member
    from brownout.fault.replica.postgres import PostgresPair
    from brownout.fault.replica.redis import RedisPair
    from brownout.fault.replica.sqlite import SqliteCopy
    from brownout.fault.tcp import Proxy
    from brownout.fault.zone.place import Zones

__all__ = ["Faults", "States", "faults", "states"]

WAIT_SECONDS = 10.0
POLL_SECONDS = 0.02


class Faults:
    """Places where a test makes faults. All that it started ends with the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._disks: dict[Path, Disk] = {}

    def tcp(
        self, upstream: str, *, listen: str = "127.0.0.1:0", name: str = "", seed: int = 0
    ) -> Proxy:
        """A proxy that relays to `upstream`, started, in a thread of its own; call its `listen` instead.

        Raises BrownoutError if the address can't be had.
        """
        from brownout.fault.tcp import running

        return self._stack.enter_context(running(upstream, listen, name=name, seed=seed))

    def http(
        self, upstream: str, *, listen: str = "127.0.0.1:0", name: str = "", seed: int = 0
    ) -> HttpProxy:
        """A reverse proxy before `upstream`, started, in a thread of its own; call its `listen` instead.

        Raises BrownoutError if the address can't be had.
        """
        from brownout.fault.http import running

        return self._stack.enter_context(running(upstream, listen, name=name, seed=seed))

    def process(self, process: int | Member, *, target: str = "", seed: int = 0) -> Process:
        """A process: its id, or what subprocess, multiprocessing or asyncio returned for it.

        Raises FaultRefused for one that no fault may touch.
        """
        from brownout.fault.process.place import Process

        return Process(process, target=target, seed=seed)

    def listener(self, address: str, *, target: str = "") -> Listener:
        """An address that a process of this machine listens on."""
        from brownout.fault.process.place import Listener

        return Listener(address, target=target)

    def zones(self, *names: str, mtu: int = 65_000, seed: int = 0) -> Zones:
        """Zones that no packet leaves, up, each linked with each other; all in them ends with the test.

        Raises FaultRefused where this machine allows no network namespace or TUN device.
        """
        from brownout.fault.zone.place import Zones

        return self._stack.enter_context(Zones(*names, mtu=mtu, seed=seed))

    def disk(
        self,
        path: str | os.PathLike[str] | None = None,
        fault: Fault | None = None,
        *,
        only: str | None = None,
        target: str = "",
        seed: int = 0,
    ) -> Disk | Made:
        """A folder (None: a new one) shadowed until the test ends, whose files can hang and fail.

        With a fault it is made at once, and returned: `with faults.disk(path, Hang(seconds=5)): ...`; a
        folder is shadowed once, however often it is asked for. Raises FaultRefused if it can't be.
        """
        from brownout.fault.disk.place import Disk

        found = Disk(path, only=only, target=target, seed=seed)
        disk = self._disks.get(found.path)
        if disk is None:
            disk = self._disks[found.path] = self._stack.enter_context(found)
        return disk if fault is None else disk.make(fault)

    @overload
    def replica(self, of: Literal["postgres"], *, target: str = "") -> PostgresPair: ...
    @overload
    def replica(self, of: Literal["redis"], *, target: str = "") -> RedisPair: ...
    @overload
    def replica(self, of: Path, *, target: str = "") -> SqliteCopy: ...
    def replica(
        self, of: Literal["postgres", "redis"] | Path, *, target: str = ""
    ) -> PostgresPair | RedisPair | SqliteCopy:
        """A primary and its replica of our own, started; or a copy of the SQLite database of that path.

        Raises FaultRefused where the servers are not installed, ConfigurationError for another name.
        """
        from brownout.errors import ConfigurationError
        from brownout.fault import PostgresPair, RedisPair, SqliteCopy

        if of == "postgres":
            return self._stack.enter_context(PostgresPair(target=target))
        if of == "redis":
            return self._stack.enter_context(RedisPair(target=target))
        if isinstance(of, str):
            raise ConfigurationError(f'{of!r} is "postgres", "redis", or the Path of a database')
        return self._stack.enter_context(SqliteCopy(of, target=target))

    def pool(self, pool: object, *, target: str = "") -> Pool:
        """A pool of SQLAlchemy, psycopg_pool, asyncpg or httpx.

        Raises ConfigurationError for any other, once a fault is made.
        """
        from brownout.fault.pool import Pool

        return Pool(pool, target=target)


class States:
    """What the guards of this process say of their targets."""

    def named(self, target: str) -> State | None:
        """The state of a target; None without evidence. Raises LookupError if no guard has that name."""
        return self.verdict(target).state

    def verdict(self, target: str) -> Verdict:
        """State, sentence and numbers of a target. Raises LookupError if no guard has that name."""
        from brownout import states as all_states

        found = {verdict.target: verdict for verdict in all_states()}
        if target not in found:
            known = ", ".join(sorted(found)) or "none"
            raise LookupError(f"no guard has the target {target!r}; there are: {known}")
        return found[target]

    def until(self, target: str, state: State, *, seconds: float = WAIT_SECONDS) -> Verdict:
        """Wait until a target is in a state. Raises TimeoutError with what it is instead, and why."""
        end = time.monotonic() + seconds
        while (seen := self.verdict(target)).state is not state:
            if time.monotonic() >= end:
                found = seen.state.name if seen.state else "without evidence"
                raise TimeoutError(
                    f"{target} is {found} and not {state.name} after {seconds:g} s: {seen.because}"
                )
            time.sleep(POLL_SECONDS)
        return seen


@pytest.fixture
def faults() -> Generator[Faults]:
    """Places to make faults at; whatever is in force is undone at the end of the test, and verified.

    Raises UndoFailed there if a fault is still seen.
    """
    from brownout.fault.made import in_force

    before = set(in_force())
    with ExitStack() as stack:  # which ends the proxies, and then looks once more
        stack.callback(_undo, before)
        yield Faults(stack)
        _undo(before)


@pytest.fixture
def states() -> States:
    """What the guards of this process say of their targets."""
    return States()


def _undo(before: set[Made]) -> None:
    from brownout.errors import UndoFailed
    from brownout.fault.made import in_force

    failed: list[UndoFailed] = []
    for made in in_force():
        if made not in before:
            try:
                made.undo()
            except UndoFailed as error:
                failed.append(error)
    if failed:
        raise failed[0] if len(failed) == 1 else ExceptionGroup("faults were not undone", failed)
