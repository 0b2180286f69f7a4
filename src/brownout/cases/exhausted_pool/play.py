"""Plays the story: starts the processes, makes things fail on time, and ends every process again."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from brownout import ConfigurationError
from brownout.fleet import local

from .crew import Crew
from .processes.price import quoted
from .records import Claim, Run, Seen, read
from .schedule import POOL_CONNECTIONS, RATES, Phase, Step, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

TICK_SECONDS = 0.25
ASK_SECONDS = 1.0  # between two questions to the health checks
MOST_CHANGES = 1000
SEED = 4711
FLEET = "fleet.db"


class Ports(NamedTuple):
    """Where the proxies and the shops listen, by chain."""

    proxies: dict[str, int]
    shops: dict[str, int]


def start(crew: Crew, fleet: Path) -> Ports:
    """Start every process and connect them."""
    crew.start("downstream", "downstream", seed=SEED)
    (onward,) = crew.ready("downstream")
    crew.start("proxy", "proxy", seed=SEED, onward=onward)
    (proxies,) = crew.ready("proxy")
    chains: dict[str, dict[str, Any]] = {
        "with": {"bare": False, "fleet": str(fleet)},
        "without": {"bare": True},
    }
    for chain, spec in chains.items():
        onward = proxies[chain]
        crew.start(f"shop-{chain}", "shop", downstream=onward, pool=POOL_CONNECTIONS, **spec)
    shops = crew.ready("shop-with", "shop-without")
    for (chain, spec), shop in zip(chains.items(), shops, strict=True):
        crew.start(f"caller-{chain}", "caller", shop=shop, **spec)
    callers = crew.ready("caller-with", "caller-without")
    crew.start("load", "load", seed=SEED, callers=dict(zip(chains, callers, strict=True)))
    crew.ready("load")
    return Ports(proxies, dict(zip(chains, shops, strict=True)))


def play(
    crew: Crew,
    phases: tuple[Phase, ...],
    *,
    faults: bool,
    show: Callable[[float, Step | None], None],
) -> None:
    """Make the load, and what goes wrong, on time. `show` is told four times a second, and each step."""
    schedule, end = steps(phases)
    crew.members["load"].tell(start=True)
    began = time.monotonic()
    for step in [*(schedule if faults else []), None]:
        at = step.at if step else end
        while (left := began + at - time.monotonic()) > 0:
            time.sleep(min(left, TICK_SECONDS))
            crew.check()
            show(time.monotonic() - began, None)
        if step is not None:
            _carry_out(crew, step)
            show(time.monotonic() - began, step)
    crew.members["load"].tell(stop=True)


def _carry_out(crew: Crew, step: Step) -> None:
    phase = step.phase
    if phase.rate is not None:
        rate, name = (phase.rate, phase.name) if step.begins else (RATES, "")
        crew.members["load"].tell(rate=rate, name=name)
    elif step.begins:
        crew.members["proxy"].tell(fault={**(phase.fault or {}), "name": phase.name})
    else:
        crew.members["proxy"].tell(clear=True)


@contextmanager
def asking(shops: dict[str, int]) -> Generator[dict[str, Claim]]:
    """Ask the shops' own health checks once a second, as a load balancer does; count what they say."""
    claims = dict.fromkeys(shops, Claim(0, 0))
    over = threading.Event()

    def ask() -> None:
        while not over.wait(ASK_SECONDS):
            for chain, port in shops.items():
                asked, ok = claims[chain]
                said = _get(port, "/health") == {"status": "ok"}
                claims[chain] = Claim(asked + 1, ok + said)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield claims
    finally:
        over.set()
        thread.join(2 * ASK_SECONDS)


def undone(proxies: dict[str, int]) -> bool:
    """Whether a quote is right, and comes in time, through every proxy."""
    item = 7
    return all(_get(port, f"/quote/{item}") == {"price": quoted(item)} for port in proxies.values())


def _get(port: int, path: str) -> object:
    try:
        url = f"http://127.0.0.1:{port}{path}"
        with urllib.request.urlopen(url, timeout=1.0) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


def seen(fleet: Path) -> list[Seen]:
    """Every state change in the fleet file; none if nobody has written into it."""
    found: list[Seen] = []
    last = 0
    try:
        while True:
            changes, last = local.changes(fleet, after=last)
            found += [Seen(c.monotonic, c.target, c.after, c.because) for c in changes]
            if len(changes) < MOST_CHANGES:
                return found
    except ConfigurationError:
        return found


def run(
    folder: Path,
    phases: tuple[Phase, ...],
    *,
    faults: bool,
    watch: Callable[[Crew, Path], Callable[[float, Step | None], None]],
) -> Run:
    """One play from start to end, in this folder. `watch` is given the crew and the fleet file."""
    fleet = folder / FLEET
    with Crew(folder) as crew:
        ports = start(crew, fleet)
        with asking(ports.shops) as claims:
            play(crew, phases, faults=faults, show=watch(crew, fleet))
        well = undone(ports.proxies)
    return read(folder, seen(fleet), claims, undone=well)
