"""`brownout fault serve`: toxiproxy's HTTP API."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brownout.errors import BrownoutError, ConfigurationError
from brownout.fault.api import FOR_SECONDS, Server
from brownout.fault.tcp import new_loop

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

__all__ = ["add", "serve"]

LISTEN = "127.0.0.1:8474"
TOKEN = "BROWNOUT_FAULT_TOKEN"  # noqa: S105 (the name of a variable)
_ENDINGS = (signal.SIGINT, signal.SIGTERM)


def add(verbs: Any, seconds: Callable[[str], float]) -> None:
    """Hang the verb into the sub-verbs of `fault`; `seconds` reads a duration, as argparse wants it."""
    parser = verbs.add_parser(
        "serve",
        help="toxiproxy's HTTP API: make proxies and faults from any of its clients",
        description="Serve toxiproxy's HTTP API until Ctrl-C. Its clients work unchanged.",
    )
    parser.add_argument("--config", metavar="FILE", help="proxies to begin with: a toxiproxy.json")
    parser.add_argument(
        "--listen", default=LISTEN, metavar="HOST:PORT", help=f"where to serve (default: {LISTEN})"
    )
    parser.add_argument(
        "--token",
        help="what every request has to show, as Authorization: Bearer TOKEN; only with one may the API"
        f" or a proxy listen beyond this machine (default: {TOKEN}, which `ps` doesn't show)",
    )
    parser.add_argument(
        "--for",
        dest="seconds",
        type=seconds,
        default=FOR_SECONDS,
        metavar="DURATION",
        help="a toxic is in force for so long, unless its attribute for_ms says otherwise (default: 1h)",
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="the same connections are hit for the same seed"
    )
    parser.set_defaults(run=serve)


def serve(options: Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM; then every proxy is gone. Raises BrownoutError."""
    seed = secrets.randbits(32) if options.seed is None else options.seed
    token = options.token if options.token is not None else os.environ.get(TOKEN)
    server = Server(options.listen, token=token, seed=seed, seconds=options.seconds)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        proxies = 0 if options.config is None else _populate(runner, server, options.config)
        runner.run(_serve(server, f"proxies: {proxies}, seed: {seed}"))
    return 0


def _populate(runner: asyncio.Runner, server: Server, path: str) -> int:
    try:
        return runner.run(server.populate(Path(path).read_bytes()))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except BrownoutError as error:
        raise ConfigurationError(f"{path}: {error}") from error


async def _serve(server: Server, begins_with: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _ENDINGS:
        loop.add_signal_handler(number, stop.set)
    try:
        await server.start()
        print(f"toxiproxy's API on {server.listen}, {begins_with}", flush=True)
        await stop.wait()
    finally:
        await server.stop()
        for number in _ENDINGS:  # uvloop, closed, would swallow them in this process for ever
            loop.remove_signal_handler(number)
