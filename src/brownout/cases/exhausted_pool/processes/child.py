"""What every process of the case has in common: it is told, it tells, it records, and it never stays.

Commands come as JSON lines on stdin; *the end of stdin is the end of the process*, so that whatever
ends the parent ends its children. What the parent must know goes to stdout as JSON lines; what
happened goes into a file of its own, one JSON line a record. All times are `time.monotonic()`, which
the processes of one machine share.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

FLUSH_SECONDS = 0.5
GRACE_SECONDS = 2.0  # a loop that does not end by then is ended
_PR_SET_PDEATHSIG = 1


class Child:
    """This process, as its main coroutine sees it. `spec` is what the parent gave it to start with."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.commands: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._records = Path(spec["records"]).open("w", encoding="utf-8")  # noqa: SIM115

    def record(self, kind: str, **fields: object) -> None:
        """Write one record; it is in the file half a second later at the latest."""
        self._records.write(json.dumps({"kind": kind, **fields}) + "\n")

    def tell(self, **fields: object) -> None:
        """Tell the parent."""
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()

    def flush(self) -> None:
        """Put all records into the file."""
        self._records.flush()


def run(main: Callable[[Child], Coroutine[Any, Any, None]]) -> None:
    """Be a process of the case: run `main` until it ends, or until stdin does."""
    spec = json.loads(sys.argv[1])
    _end_with(spec["parent"])
    asyncio.run(_live(main, spec))


async def _live(main: Callable[[Child], Coroutine[Any, Any, None]], spec: dict[str, Any]) -> None:
    child = Child(spec)
    task = asyncio.create_task(main(child))
    flusher = asyncio.create_task(_flush(child))
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Thread(target=_listen, args=(loop, child.commands, over), daemon=True).start()
    ended = asyncio.create_task(over.wait())
    await asyncio.wait([task, ended], return_when=asyncio.FIRST_COMPLETED)
    for each in (task, flusher, ended):
        each.cancel()
    await asyncio.gather(flusher, ended, return_exceptions=True)
    child.flush()
    try:
        await task  # what went wrong in it is told on stderr
    except asyncio.CancelledError:
        return


async def _flush(child: Child) -> None:
    while True:
        await asyncio.sleep(FLUSH_SECONDS)
        child.flush()


def _listen(
    loop: asyncio.AbstractEventLoop, commands: asyncio.Queue[dict[str, Any]], over: asyncio.Event
) -> None:
    # os.read and no buffered file: a daemon thread inside the latter can't be ended cleanly.
    rest = b""
    try:
        while chunk := os.read(0, 65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                loop.call_soon_threadsafe(commands.put_nowait, json.loads(line))
        loop.call_soon_threadsafe(over.set)
    except RuntimeError:  # the loop has ended already
        return
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def _end_with(parent: int) -> None:
    """On Linux, let the kernel kill this process when the parent dies: a second belt."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we could ask
        os._exit(1)
