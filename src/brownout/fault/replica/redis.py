"""A Redis primary and its replica, ours alone, in a temporary folder; what streams between passes a proxy.

with RedisPair() as pair:
    with pair.make(FreezeReceiver()):
        ...  # "master_link_status:up", and nothing arrives
        pair.seconds_behind()
"""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from brownout.errors import BrownoutError, ConfigurationError
from brownout.fault.kind import CutStreaming, DelayReplay, FreezeReceiver, Hang, Latency, Refuse
from brownout.fault.replica.home import Home, program
from brownout.fault.replica.lag import Lag
from brownout.fault.replica.place import Mechanism, Replica
from brownout.fault.replica.wire import Redis
from brownout.fault.tcp import running

if TYPE_CHECKING:
    from pathlib import Path

    from brownout._core.fault import Fault
    from brownout.fault.made import Made

__all__ = ["RedisPair", "RedisServer"]

DAY_SECONDS = 86_400.0
TRIES = 5  # for a port that nobody takes before the server does
SETTINGS = {
    "bind": "127.0.0.1",
    "save": "",
    "appendonly": "no",
    "daemonize": "no",
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": "0",
    "repl-backlog-size": "64mb",  # what is missed after a cut is caught up with, not copied anew
    "unixsocket": "socket",
    "unixsocketperm": "700",
}


class RedisServer(NamedTuple):
    """One of the two: `url` is for clients on a Unix socket, `port` (of 127.0.0.1) for others.

    Both want the password: whoever may talk to Redis may write files as its user.
    """

    folder: Path
    port: int
    pid: int
    password: str

    @property
    def url(self) -> str:
        """As `redis.Redis.from_url` takes it."""
        return f"unix://:{self.password}@{self.folder}/socket"

    def session(self) -> Redis:
        """A session for questions of our own."""
        return Redis(self.folder / "socket", self.password)


class RedisPair(Replica):
    """A primary and its replica, both up and in step; a context manager.

    `stream` is the proxy between them: faults of the wire can be made there too. It ends as a `PostgresPair`
    does; where we are root it runs as user `redis` or `nobody`. Raises FaultRefused where Redis is not
    installed, BrownoutError if it does not come up.
    """

    def __init__(
        self, *, target: str = "", seconds: float = DAY_SECONDS, every: float = 0.02
    ) -> None:
        home = Home(
            "a Redis pair",
            programs=("redis",),
            users=("redis", "nobody"),
            seconds=seconds,
        )
        with home.kept_if_right(), ExitStack() as stack:
            password = secrets.token_hex(16)
            self.primary = _started(home, "primary", password)
            self.stream = stack.enter_context(
                running(f"127.0.0.1:{self.primary.port}", name=target)
            )
            _, _, port = self.stream.listen.rpartition(":")
            of = ["--replicaof", f"127.0.0.1 {port}", "--masterauth", password]
            self.replica = _started(home, "replica", password, of)
            self._asked = self.primary.session(), self.replica.session()
            for session in self._asked:
                stack.callback(session.close)
            home.until(self._linked, folder=self.replica.folder)
            super().__init__(
                f"Redis replica in {self.replica.folder}",
                Lag(self._written, self._applied, every=every),
                home=home,
                target=target,
            )
            self._stack = stack.pop_all()

    def _written(self) -> int:
        return int(self._asked[0].info()["master_repl_offset"])

    def _applied(self) -> int:
        """It is 0 while everything is copied anew, and then the replica answers with what it had."""
        return int(self._asked[1].info()["slave_repl_offset"])

    def _linked(self) -> bool:
        return self._asked[1].info().get("master_link_status") == "up"

    def _mechanism(self, fault: Fault) -> Mechanism:
        match fault:
            case DelayReplay():
                wire: Fault = Latency(seconds=fault.seconds, stream="downstream")
            case FreezeReceiver():
                wire = Hang(stream="downstream")
            case CutStreaming():
                wire = Refuse()
            case _:
                raise ConfigurationError(
                    f"{fault}: no fault of a Redis replica; those are DelayReplay, FreezeReceiver and "
                    "CutStreaming (Redis can't pause its replay: take FreezeReceiver)"
                )
        at: list[Made] = []

        def leave() -> None:
            while at:
                at[-1].undo()
                at.pop()

        return Mechanism(
            f"{wire} by a proxy on the stream",
            # Its end is ours: the one that is listed under this fault's name.
            lambda: at.append(self.stream.make(wire, seconds=DAY_SECONDS)),
            leave,
            lambda: not at and self._linked(),
        )

    def _close(self) -> None:
        self._stack.close()


def _started(home: Home, name: str, password: str, more: list[str] | None = None) -> RedisServer:
    """A server, once it answers. A port is free when we look, and may be taken before it listens."""
    folder = home.folder(name)
    settings = {**SETTINGS, "requirepass": password}
    options = [word for key, value in settings.items() for word in (f"--{key}", value)]
    for left in reversed(range(TRIES)):
        port = _free_port()
        command = [str(program("redis-server", (), "redis-server")), "--port", str(port)]
        child = home.start([*command, *options, *(more or [])], cwd=folder)
        server = RedisServer(folder, port, child.pid, password)
        session = server.session()
        try:
            home.until(partial(_answers, session), folder=folder)
        except BrownoutError as error:
            if not left or "Address already in use" not in str(error):
                raise
            home.forget(child)
        else:
            return server
        finally:
            session.close()
    raise AssertionError("the last try returns or raises")


def _answers(session: Redis) -> bool:
    return bool(session.ask("PING") == "PONG")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
