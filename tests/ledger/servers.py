"""Servers for the ledger's tests, ours alone: started in a temporary folder, shot, and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

WAIT_SECONDS = 20.0


class Server:
    """A server in a folder of its own; a context manager. Its process dies with the block."""

    user = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="brownout-ledger-"))
        self.process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0 and self.user:
            self._as = {"user": self.user, "group": self.user, "extra_groups": []}
            shutil.chown(self.folder, self.user, self.user)
        self.folder.chmod(0o700)

    @staticmethod
    def needed() -> None:
        """Skip the test where there is no such server."""

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def run(self, *command: str) -> None:
        subprocess.run(
            command, check=True, cwd=self.folder, capture_output=True, timeout=60, **self._as
        )

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.folder, stdout=log, stderr=log, **self._as
            )
        until(self.answers, self.log)

    def shoot(self, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """End it now; what it had not made durable is gone."""
        assert self.process is not None
        self.process.send_signal(with_signal)
        self.process.wait(WAIT_SECONDS)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.shoot(signal.SIGQUIT if self.user == "postgres" else signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


class PostgresServer(Server):
    """PostgreSQL on a Unix socket. What is committed survives `shoot`: the machine's memory has it.

    Nothing is synced to the disk, which would only matter if the machine itself failed.
    """

    user = "postgres"

    @staticmethod
    def needed() -> None:
        """Skip the test where there is none."""
        if not binaries():
            pytest.skip("postgresql is not installed")

    def __init__(self) -> None:
        self.needed()
        super().__init__()
        self.binary = binaries()[-1].parent
        data = str(self.folder / "data")
        self.run(
            str(self.binary / "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync",
            "--no-instructions", "-E", "UTF8", "--locale=C",
        )  # fmt: skip
        self.url = f"postgresql://postgres@/postgres?host={self.folder}"

    def command(self) -> Sequence[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "shared_buffers": "16MB",
            "max_connections": "60",
            "autovacuum": "off",
            "fsync": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self.binary / "postgres"), "-D", str(self.folder / "data"), *options]

    def answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def immediate(self) -> None:
        """Shut it down as `pg_ctl -m immediate` does, and start it again: it recovers from its log."""
        self.shoot(signal.SIGQUIT)
        self.start()


class RedisServer(Server):
    """Redis on a Unix socket, its log written at each write; `shoot` loses nothing."""

    @staticmethod
    def needed() -> None:
        """Skip the test where there is none."""
        if not shutil.which("redis-server"):
            pytest.skip("redis-server is not installed")

    def __init__(self, *more: str) -> None:
        self.needed()
        super().__init__()
        self.more = more
        self.url = f"unix://{self.folder}/socket"

    def command(self) -> Sequence[str]:
        return [
            "redis-server", "--port", "0", "--unixsocket", str(self.folder / "socket"), "--save", "",
            "--appendonly", "yes", "--appendfsync", "no", "--dir", str(self.folder), *self.more,
        ]  # fmt: skip

    def answers(self) -> bool:
        import redis

        with redis.Redis.from_url(self.url) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


def binaries() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


def until(
    done: Callable[[], object], log: Callable[[], str] = str, seconds: float = WAIT_SECONDS
) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, log()
        time.sleep(0.02)
