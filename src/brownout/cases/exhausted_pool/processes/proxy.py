"""The fault proxies: between each shop and its downstream, one `brownout.fault.Proxy`; makes requests fail.

`delay` holds a request back, `hang` swallows it and leaves the connection silent, `reset` sends a real RST
once the request has come, `refuse` takes the listener away and resets what is open. A fault hits both chains
alike; the share of requests that it hits is drawn request by request. What was done, and when, is the truth
of the case: it is what the proxies' own log says. No guard and no judge is at work in this process.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from brownout.fault import Cut, Drop, Fault, Latency, Proxy, Refuse

from .child import Child, run

COLLECT_SECONDS = 0.1
_METHODS = "(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) "


def fault_of(kind: str, share: float, seconds: float, only: str) -> Fault:
    """The fault of this name, on requests whose path begins with `only`."""
    if kind == "refuse":
        return Refuse()
    whom: dict[str, Any] = {"share": share, "per": "request", "match": _METHODS + re.escape(only)}
    if kind == "delay":
        return Latency(seconds=seconds, stream="upstream", **whom)
    if kind == "hang":
        return Drop(**whom)
    if kind == "reset":
        return Cut(**whom)
    raise ValueError(f"no fault is called {kind!r}: there are delay, hang, reset, refuse")


class Faults:
    """Makes one fault at a time on all proxies, and records what began, had an effect, and ended when."""

    def __init__(self, child: Child, proxies: dict[str, Proxy]) -> None:
        self._child = child
        self._proxies = proxies
        self._story: dict[str, object] = {}
        self._collected = dict.fromkeys(proxies, 0)

    def obey(self, command: dict[str, Any]) -> None:
        """Carry out `{"fault": {...}}` or `{"clear": true}`, and tell when it is done."""
        self.clear()
        if not command.get("clear"):
            self._begin(**command["fault"])
        self._child.tell(done=command)

    def _begin(
        self, kind: str, name: str, share: float = 1.0, seconds: float = 0.0, only: str = "/"
    ) -> None:
        fault = fault_of(kind, share, seconds, only)
        for proxy in self._proxies.values():
            proxy.make(fault, name=name)
        self._story = {"fault": kind, "name": name, "share": share, "seconds": seconds}
        self._child.record("began", at=time.monotonic(), **self._story)

    def clear(self) -> None:
        """Undo the fault, if there is one. A request that was swallowed stays unanswered."""
        if not self._story:
            return
        for proxy in self._proxies.values():
            for name in list(proxy.made):
                proxy.undo(name)
        self.collect()
        self._child.record("ended", at=time.monotonic(), **self._story)
        self._story = {}

    def collect(self) -> None:
        """Record every request that was hit since the last time."""
        for chain, proxy in self._proxies.items():
            log = proxy.log
            new = list(log)[max(0, self._collected[chain] - log.lost) :]
            self._collected[chain] = log.lost + len(log)
            for one in new:
                if one.what == "hit":
                    self._child.record("effect", at=one.at, chain=chain, name=one.injection)


async def main(child: Child) -> None:
    """Listen for both chains, and make the faults that the parent asks for."""
    proxies = {
        chain: Proxy(f"127.0.0.1:{port}", name=chain, seed=child.spec["seed"])
        for chain, port in child.spec["onward"].items()
    }
    for proxy in proxies.values():
        await proxy.start()
    faults = Faults(child, proxies)
    child.tell(ready={chain: int(p.listen.rpartition(":")[2]) for chain, p in proxies.items()})
    try:
        while True:
            try:
                async with asyncio.timeout(COLLECT_SECONDS):
                    command = await child.commands.get()
            except TimeoutError:
                faults.collect()
            else:
                faults.obey(command)
    finally:
        faults.clear()
        for proxy in proxies.values():
            await proxy.stop()


if __name__ == "__main__":
    run(main)
