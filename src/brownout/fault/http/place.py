"""What the three forms have in common: the faults that are made there, and the plan for a request."""

from __future__ import annotations

import threading
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from brownout._core.fault import Injection, Log
from brownout.errors import ConfigurationError
from brownout.fault.kind import Cut
from brownout.fault.made import Made

from .ending import Ending
from .plan import MAKES, Active, Hit, Plan, Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from brownout._core.fault import Fault

__all__ = ["Place"]

FAULTS_MOST = 100


class Place:
    """Where faults of HTTP are made. Each request is a subject of its own, whatever `per` says.

    `nth` and `first` count, since the fault was made, the requests that it is meant for by `match`, `header`
    and `client`. Everything may be called from any thread.
    """

    def __init__(self, *, name: str = "", seed: int = 0) -> None:
        self.name = name
        self.seed = seed
        self.log = Log()
        self._lock = threading.Lock()
        self._actives: dict[str, Active] = {}
        self._mades: dict[str, Made] = {}

    @property
    def made(self) -> Mapping[str, Injection]:
        """The faults that are made, by name, in the order of making."""
        return MappingProxyType({name: each.injection for name, each in self._actives.items()})

    def make(self, fault: Fault, *, seconds: float = 60.0, name: str | None = None) -> Made:
        """A fault, in force from now on, until it is undone or `seconds` have passed.

        `name` is unique here; without one it is that of the kind. Raises ConfigurationError for what can't
        be made here.
        """
        self._refuse_wrong(fault)
        chosen = name or self._free_name(fault.kind)
        ending = Ending()
        made = Made(
            place=self._where(),
            mechanism="http",
            fault=fault,
            seconds=seconds,
            name=chosen,
            target=self.name,
            listen=self._listens(),
            log=self.log,
            apply=lambda: self._apply(chosen, fault, ending),
            undo=lambda: self._unmake(chosen, ending),
            gone=lambda: self._gone(ending),
        )
        made.make()
        self._mades[chosen] = made
        return made

    def undo(self, name: str) -> None:
        """Undo one: who waits because of it goes on at once. Raises ConfigurationError."""
        if name not in self._actives:
            told = ", ".join(self._actives) or "none"
            raise ConfigurationError(f'no fault called "{name}" is made at {self._where()}: {told}')
        made = self._mades.get(name)
        if made is not None:
            made.undo()

    # ------------------------------------------------------------------------- for the three forms

    def _where(self) -> str:
        raise NotImplementedError

    def _listens(self) -> str:
        return ""

    def _refuse_wrong(self, fault: Fault) -> None:
        if type(fault) not in MAKES:
            known = ", ".join(sorted(kind.__name__ for kind in MAKES))
            raise ConfigurationError(f"{fault}: in HTTP there are {known}")
        if isinstance(fault, Cut) and (fault.at == "accept" or _early(fault)):
            raise ConfigurationError(
                f'{fault}: in HTTP a request is cut whole, before it is executed (at="request"), or its'
                f' reply (at="reply", after_bytes of the body); for the rest there is fault.Proxy'
            )

    def plan(self, request: Request) -> Plan:
        """What is to be done to a request that has come now."""
        if not self._actives:
            return Plan((), time.monotonic)
        now = time.monotonic()
        head = request.method + b" " + request.path
        hits: list[Hit] = []
        with self._lock:
            for active in self._actives.values():
                injection = active.injection
                if not injection.fits(client=request.client, head=head):
                    continue
                if not injection.fits_headers(request.headers):
                    continue
                active.count += 1
                number = active.count
                hit = injection.hits(now, number, number, client=request.client, head=head)
                injection.note(now, 0, number, "hit" if hit else "passed")
                if hit:
                    hits.append(Hit(active, number, injection.chance(number, number)))
        return Plan(hits, time.monotonic)

    # -------------------------------------------------------------------------------- make, undo

    def _free_name(self, kind: str) -> str:
        if kind not in self._actives:
            return kind
        names = (f"{kind}_{n}" for n in range(2, FAULTS_MOST + 2))
        return next(name for name in names if name not in self._actives)

    def _apply(self, name: str, fault: Fault, ending: Ending) -> None:
        with self._lock:
            if name in self._actives:
                raise ConfigurationError(
                    f'a fault called "{name}" is made at {self._where()} already'
                )
            if len(self._actives) >= FAULTS_MOST:
                raise ConfigurationError(
                    f"{FAULTS_MOST} faults are made at {self._where()}: undo some"
                )
            since = time.monotonic()
            injection = Injection(name, fault, seed=self.seed, since=since, log=self.log)
            self._actives[name] = Active(injection, ending)

    def _unmake(self, name: str, ending: Ending) -> None:
        with self._lock:
            if name in self._actives and self._actives[name].ending is ending:
                del self._actives[name]
                self._mades.pop(name, None)
        ending.come()

    def _gone(self, ending: Ending) -> bool:
        """Seen to be gone: no plan can name it any more, and all who waited for it were woken."""
        with self._lock:
            named = any(each.ending is ending for each in self._actives.values())
        return not named and ending.over and not ending.waiting


def _early(fault: Cut) -> bool:
    return fault.at == "request" and fault.after_bytes > 0
