"""A proxy for those who have no event loop: it runs in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol, TypeVar

from brownout.errors import BrownoutError, ConfigurationError

from .proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from brownout._core.fault import Injection

__all__ = ["hosted", "new_loop", "running"]

START_SECONDS = 10.0


class _Started(Protocol):
    """What is hosted: a proxy of TCP, or one of HTTP."""

    @property
    def listen(self) -> str: ...
    @property
    def upstream(self) -> str: ...
    @property
    def made(self) -> Mapping[str, Injection]: ...
    def undo(self, name: str) -> None: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...


P = TypeVar("P", bound=_Started)


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop: uvloop's where it is installed, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


@contextmanager
def running(
    upstream: str,
    listen: str = "127.0.0.1:0",
    *,
    name: str = "",
    seed: int = 0,
    watch: bool = False,
) -> Generator[Proxy]:
    """A started `Proxy`, stopped on leaving, with its faults undone.

    Raises BrownoutError if the address can't be had.
    """
    with hosted(Proxy(upstream, listen, name=name, seed=seed, watch=watch)) as proxy:
        yield proxy


@contextmanager
def hosted(proxy: P) -> Generator[P]:
    """Start a proxy in a thread of its own; stop it on leaving, with its faults undone."""
    loop = new_loop()
    thread = threading.Thread(
        target=loop.run_forever, name=f"brownout proxy {proxy.upstream}", daemon=True
    )
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(proxy.start(), loop).result(START_SECONDS)
        try:
            try:
                yield proxy
            finally:
                _undo_all(proxy)
        finally:
            asyncio.run_coroutine_threadsafe(proxy.stop(), loop).result(START_SECONDS)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_SECONDS)
        if thread.is_alive():
            raise BrownoutError(f"the loop of the proxy at {proxy.listen} is stuck and can't end")
        loop.close()


def _undo_all(proxy: _Started) -> None:
    for fault in list(proxy.made):
        with suppress(ConfigurationError):  # it has just ended by itself
            proxy.undo(fault)
