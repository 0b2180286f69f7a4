"""One trial of a client under a fault: what its guard made of it, and what had really happened."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from brownout import BrownoutError, Guard
from brownout.fault import running
from tests.seen import classes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from brownout import Outcome
    from brownout.fault import Proxy

PAGE = Path(__file__).parents[3] / "docs/reference/clients.md"
THREADS = 16
NONE = "\N{EN DASH}"  # in a cell: this client has no such case
_names = count()


class Trial(NamedTuple):
    """How one call ended, and the error that told so."""

    verdict: str
    shown: str
    error: BaseException | None

    def __str__(self) -> str:
        return self.verdict if self.verdict == "succeeded" else f"{self.verdict}, {self.shown}"


@contextmanager
def proxied(upstream: str, fault: Any) -> Iterator[int]:
    """The port of a proxy that makes the fault."""
    with ExitStack() as stack:
        proxy = _started(stack, upstream)
        stack.enter_context(proxy.make(fault))
        yield int(proxy.listen.rpartition(":")[2])


def _started(stack: ExitStack, upstream: str, left: int = 9) -> Proxy:
    try:
        return stack.enter_context(running(upstream))
    except BrownoutError:  # another trial's socket took the port that was found free
        if not left:
            raise
        return _started(stack, upstream, left - 1)


@contextmanager
def proxy_of(upstream: str) -> Iterator[Proxy]:
    """A proxy without a fault as yet."""
    with ExitStack() as stack:
        yield _started(stack, upstream)


def tried(fn: Callable[[], Any], seconds: float | None = None, **options: Any) -> Trial:
    """Make one guarded call; an async function in a loop of its own, with a time-out if it is given."""
    if inspect.iscoroutinefunction(fn):
        return asyncio.run(atried(fn, seconds, **options))
    guard = Guard(f"matrix {next(_names)}", breaker=None, timeout=seconds or inf)
    return _trial(guard, guard.outcome(fn, **options))


async def atried(fn: Callable[[], Any], seconds: float | None = None, **options: Any) -> Trial:
    """The same on the running loop."""
    guard = Guard(f"matrix {next(_names)}", breaker=None, timeout=seconds or inf)
    return _trial(guard, await guard.outcome(fn, **options))


def _trial(guard: Guard, outcome: Outcome[Any]) -> Trial:
    verdict = "succeeded" if outcome.succeeded else "failed" if outcome.failed else "unknown"
    return Trial(verdict, "/".join(classes(guard)), outcome.error)


def together(trials: Iterable[Callable[[], Any]]) -> list[Any]:
    """Play all of them at once."""
    with ThreadPoolExecutor(THREADS) as pool:
        return [each.result() for each in [pool.submit(trial) for trial in trials]]


def until(what: Callable[[], bool], seconds: float = 3.0) -> bool:
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.01)
    return found


def table(title: str) -> dict[tuple[str, str], str]:
    """A section of the reference: what stands in each cell, by fault and client."""
    section = PAGE.read_text("utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    clients = rows[0][1:]
    return {
        (row[0], client): cell
        for row in rows[2:]
        for client, cell in zip(clients, row[1:], strict=False)
    }


def shown(trial: Trial, executed: int) -> str:
    """As it stands in a cell: also that it was executed more than once."""
    return f"{trial}, done {executed} times" if executed > 1 else str(trial)


def check(title: str, found: dict[tuple[str, str], tuple[Trial, int]]) -> None:
    """No word that was not true; and what the reference says, cell by cell."""
    if os.environ.get("BROWNOUT_PRINT"):
        print("\n" + printed(found))
    false = {
        where: (str(trial), f"executed {executed}", repr(trial.error))
        for where, (trial, executed) in found.items()
        if (trial.verdict == "failed" and executed)
        or (trial.verdict == "succeeded" and not executed)
    }
    assert not false, "\n".join(f"{where}: {what}" for where, what in false.items())
    told = {where: cell for where, cell in table(title).items() if cell != NONE}
    unlike = {
        where: (f"page: {told.get(where)}", f"measured: {shown(*one)}", repr(one[0].error))
        for where, one in found.items()
        if told.get(where) != shown(*one)
    }
    assert not unlike, "\n".join(f"{where}: {what}" for where, what in unlike.items())
    assert told.keys() == found.keys()


def printed(found: dict[tuple[str, str], tuple[Trial, int]]) -> str:
    """The rows of the page, from a measurement: `pytest -k matrix -s` with BROWNOUT_PRINT=1."""
    faults = list(dict.fromkeys(fault for fault, _ in found))
    clients = list(dict.fromkeys(client for _, client in found))
    lines = [f"| fault | {' | '.join(clients)} |", f"|---|{'---|' * len(clients)}"]
    told = {where: shown(*one) for where, one in found.items()}
    for fault in faults:
        cells = [told.get((fault, client), NONE) for client in clients]
        lines.append(f"| {fault} | {' | '.join(cells)} |")
    return "\n".join(lines)
