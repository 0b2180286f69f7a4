"""The place where faults of the wire are made: a TCP proxy between a client and its upstream.

    proxy = Proxy("127.0.0.1:5432")
    await proxy.start()
    with proxy.make(Latency(seconds=0.2)):
        ...                                   # clients of proxy.listen are served late

Making, changing and undoing swap the stages of every open connection on the loop's thread. They wait for
no byte: not for a client that has stopped reading, nor for an upstream that doesn't accept.
"""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from brownout._core.fault import Injection, Log
from brownout.errors import BrownoutError, ConfigurationError
from brownout.fault.disk.kind import of_disks_alone
from brownout.fault.kind import NeverAccept, Refuse
from brownout.fault.made import Made, Step

from .active import Active, Turns
from .address import Address
from .alarm import Alarm, Wake
from .link import Link
from .listener import Listener
from .shape import MAKES
from .truth import Exchanges

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from brownout._core.fault import Fault

__all__ = ["Proxy"]

CONNECTIONS_MOST = 10_000
FAULTS_MOST = 100
CALL_SECONDS = 5.0  # a call from another thread waits so long for the loop
SOON_SECONDS = 1.0
CLOSE_SECONDS = 1.0

T = TypeVar("T")


class Proxy:
    """Relays `listen` to `upstream`, and makes faults on what passes.

    Addresses are "host:port", "[::1]:port" or "unix:/path"; port 0 is one that is free. Without faults data
    is written straight through. While one is made, or always with `watch`, `exchanges` tells what became of
    each request. Everything but `start` and `stop` may be called from any thread.
    """

    def __init__(
        self,
        upstream: str,
        listen: str = "127.0.0.1:0",
        *,
        name: str = "",
        seed: int = 0,
        watch: bool = False,
    ) -> None:
        self.upstream_address = Address.read(upstream)
        self.name = name
        self.seed = seed
        self.log = Log()
        self.exchanges = Exchanges()
        self.enabled = False
        self._watch = watch
        self._asked = Address.read(listen)
        self._actives: dict[str, Active] = {}
        self._mades: dict[str, Made] = {}
        self._links: dict[int, Link] = {}
        self._opened = 0
        self._requests = 0
        self._listener: Listener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._alarm: Alarm | None = None
        self._look: Wake | None = None

    # -------------------------------------------------------------------------------- start, stop

    @property
    def listen(self) -> str:
        """Where clients connect to: with the real port, once started."""
        return str(self._asked)

    @property
    def upstream(self) -> str:
        """Where their data goes."""
        return str(self.upstream_address)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._links)

    async def start(self) -> None:
        """Listen, on the running loop; nothing, if it does already. The port stays the same from then on.

        Raises BrownoutError if the address can't be had.
        """
        if self.enabled:
            return
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.enabled = True
        try:
            address = await self._asked.resolved()
            self._listener = Listener(address, self._accept)
            await self._listener.start()
        except OSError as error:
            self.enabled = False
            if self._listener is not None:
                self._listener.close()
                self._listener = None
            why = error.strerror or str(error)
            raise BrownoutError(f"can't listen on {self._asked}: {why}") from error
        self._asked = self._listener.address
        self._alarm = Alarm(self._loop)
        self._arrange()

    async def stop(self) -> None:
        """Listen no more and close every connection. Faults stay made, for the next start."""
        if not self.enabled:
            return
        self.enabled = False
        assert self._listener is not None
        assert self._alarm is not None
        self._listener.close()
        for link in list(self._links.values()):
            link.stop()
        end = time.monotonic() + CLOSE_SECONDS
        while self._links and time.monotonic() < end:  # noqa: ASYNC110  bounded, and soon over
            await asyncio.sleep(0)
        self._alarm.close()
        self._alarm = self._look = self._listener = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    def drop_connections(self) -> None:
        """Reset all that are open, by a real RST."""
        self._call(self._cut_all)

    def _cut_all(self) -> None:
        for link in list(self._links.values()):
            link.cut("reset")

    # ------------------------------------------------------------------------------------- faults

    @property
    def made(self) -> Mapping[str, Injection]:
        """The faults that are made, by name, in the order in which data passes them."""
        return MappingProxyType({name: each.injection for name, each in self._actives.items()})

    def make(self, fault: Fault, *, seconds: float = 60.0, name: str | None = None) -> Made:
        """A fault, in force now on open connections too, until it is undone or `seconds` have passed.

        `name` is unique here; without one it is that of the kind. Raises ConfigurationError for what can't
        be made here.
        """
        self._refuse_wrong(fault)
        chosen = name or self._free_name(fault.kind)
        turns = Turns()
        made = Made(
            place=f"{self.listen} -> {self.upstream}",
            mechanism="tcp",
            fault=fault,
            seconds=seconds,
            name=chosen,
            target=self.name,
            listen=self.listen,
            log=self.log,
            undo_steps=self._leftover(),
            apply=lambda: self._call(lambda: self._apply(chosen, fault, turns)),
            undo=lambda: self._soon(lambda: self._unmake(chosen, turns)),
            gone=lambda: self._gone(chosen, turns),
        )
        made.make()
        self._mades[chosen] = made
        return made

    def _leftover(self) -> list[Step]:
        """The file of a Unix socket outlives a process that is killed; whoever removes it has another cwd."""
        path = self._asked.path
        return [Step("socket", path=str(Path(path).absolute()))] if path else []

    def change(self, name: str, fault: Fault, *, seconds: float | None = None) -> None:
        """Put another fault in the place of one that is made: the same name, order and draws.

        It ends when the one before it would have, or `seconds` from now. Raises ConfigurationError, and
        FaultRefused if the change can't be put on record: then it is not made.
        """
        self._refuse_wrong(fault)
        self._known(name)
        made = self._mades.get(name)
        if made is not None:
            made.change(fault, seconds=seconds)
        self._call(lambda: self._change(name, fault))

    def undo(self, name: str) -> None:
        """Undo one; what it holds is handed on at once, in order. Raises ConfigurationError."""
        self._known(name)
        made = self._mades.get(name)
        if made is not None:
            made.undo()

    def _refuse_wrong(self, fault: Fault) -> None:
        if type(fault) not in MAKES:
            known = ", ".join(sorted(kind.__name__ for kind in MAKES))
            raise ConfigurationError(f"{fault}: a TCP proxy makes {known}")
        if fault.header is not None:
            raise ConfigurationError(f"{fault}: a TCP proxy knows no header; http.HttpProxy does")
        if told := of_disks_alone(fault):
            raise ConfigurationError(f"{fault}: {', '.join(told)}: says something to a disk only")

    def _free_name(self, kind: str) -> str:
        if kind not in self._actives:
            return kind
        return next(
            name for n in range(2, FAULTS_MOST + 2) if (name := f"{kind}_{n}") not in self._actives
        )

    def _apply(self, name: str, fault: Fault, turns: Turns) -> None:
        if name in self._actives:
            raise ConfigurationError(f'a fault called "{name}" is made at {self.listen} already')
        if len(self._actives) >= FAULTS_MOST:
            raise ConfigurationError(f"{FAULTS_MOST} faults are made at {self.listen}: undo some")
        turns.before = self._requests
        self._actives[name] = Active(self._injection(name, fault), turns)
        self._arrange()

    def _injection(self, name: str, fault: Fault) -> Injection:
        return Injection(name, fault, seed=self.seed, since=time.monotonic(), log=self.log)

    def _change(self, name: str, fault: Fault) -> None:
        before = self._actives.get(name)
        if before is not None:  # else it has ended just now
            self._actives[name] = Active(self._injection(name, fault), before.turns)
            self._arrange()

    def _unmake(self, name: str, turns: Turns) -> None:
        if name in self._actives and self._actives[name].turns is turns:
            del self._actives[name]
            self._mades.pop(name, None)
            self._arrange()

    def _known(self, name: str) -> Active:
        if name not in self._actives:
            told = ", ".join(self._actives) or "none"
            raise ConfigurationError(f'no fault called "{name}" is made at {self.listen}: {told}')
        return self._actives[name]

    def _gone(self, name: str, turns: Turns) -> bool:
        """Seen to be gone: no connection has a stage of it, and the listener does what it should."""
        if name in self._actives and self._actives[name].turns is turns:
            return False
        if not self._runs() or self._listener is None:
            return True
        if any(each.turns is turns for link in list(self._links.values()) for each in link.at_work):
            return False
        return self._mode() != "accept" or self._listener.listening

    # ---------------------------------------------------------------------- what follows from them

    def _arrange(self, anew: Active | None = None) -> None:
        """Have on every connection, and on the listener, exactly what is in force."""
        if not self._runs() or self._listener is None or self._alarm is None:
            return
        mode = self._mode()
        self._listener.turn(mode)
        for link in list(self._links.values()):
            link.arrange(anew)
        if mode == "refuse" and any(
            isinstance(each.fault, Refuse) and not each.fault.keep_open for each in self._in_force()
        ):
            self._cut_all()
        self._look_again()

    def _mode(self) -> Any:
        kinds = {type(each.fault) for each in self._in_force()}
        return "refuse" if Refuse in kinds else "full" if NeverAccept in kinds else "accept"

    def _in_force(self) -> list[Active]:
        now = time.monotonic()
        return [each for each in self._actives.values() if each.in_force(now)]

    def _look_again(self) -> None:
        """Wake when a schedule next changes what is in force."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        now = time.monotonic()
        due, _, first = min(
            ((each.next_look(now), n, each) for n, each in enumerate(self._actives.values())),
            default=(float("inf"), 0, None),
        )
        if due < float("inf") and self._alarm is not None:
            self._look = self._alarm.at(due, lambda: self._arrange(first))

    # --------------------------------------------------------------------- for its connections

    def _accept(self) -> asyncio.Protocol:
        assert self._alarm is not None
        return Link(self, self._alarm).client

    @property
    def actives(self) -> list[Active]:
        """The faults, as connections see them."""
        return list(self._actives.values())

    @property
    def watches(self) -> bool:
        """Whether what becomes of requests is kept."""
        return self._watch or bool(self._actives)

    def opened(self, link: Link) -> int:
        """A connection is there: its number, from 1; 0 if it is one too many."""
        if len(self._links) >= CONNECTIONS_MOST or not self.enabled:
            return 0
        self._opened += 1
        self._links[self._opened] = link
        return self._opened

    def closed(self, link: Link) -> None:
        """A connection is gone."""
        self._links.pop(link.number, None)

    def next_request(self) -> int:
        """The number of a request, from 1."""
        self._requests += 1
        return self._requests

    # --------------------------------------------------------------------------- other threads

    def _elsewhere(self) -> bool:
        """Whether the loop runs, and in another thread."""
        return self._runs() and threading.get_ident() != self._thread

    def _runs(self) -> bool:
        """Whether it is started, and its loop was not closed meanwhile."""
        return self.enabled and self._loop is not None and not self._loop.is_closed()

    def _call(self, do: Callable[[], T]) -> T:
        """Do it on the loop's thread. Raises what it raises, and BrownoutError if the loop is stuck."""
        if not self._elsewhere():
            return do()
        assert self._loop is not None

        async def done() -> T:
            return do()

        future = asyncio.run_coroutine_threadsafe(done(), self._loop)
        try:
            return future.result(CALL_SECONDS)
        except TimeoutError:
            future.cancel()
            raise BrownoutError(
                f"the loop of the proxy at {self.listen} didn't answer within {CALL_SECONDS:.0f} s:"
                f" something blocks it"
            ) from None

    def _soon(self, do: Callable[[], object]) -> None:
        """Do it on the loop's thread. Waits for it, but not for long: that thread may wait for this one."""
        if not self._elsewhere():
            do()
            return
        assert self._loop is not None
        done = threading.Event()

        def do_it() -> None:
            try:
                do()
            finally:
                done.set()

        self._loop.call_soon_threadsafe(do_it)
        done.wait(SOON_SECONDS)
