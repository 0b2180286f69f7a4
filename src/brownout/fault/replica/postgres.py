"""A PostgreSQL primary and its streaming replica, ours alone, in a temporary folder.

with PostgresPair() as pair:
    with pair.make(FreezeReceiver()):
        ...  # the primary commits, the replica answers without it, and no view of PostgreSQL's says so
        pair.seconds_behind()

They listen on Unix sockets alone: no port to be taken, and nobody but this user (and root) gets in.
A wire fault is made by a proxy in front: `running(pair.replica.address)`. No driver is needed.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from brownout.errors import BrownoutError, ConfigurationError, FaultRefused
from brownout.fault.kind import CutStreaming, DelayReplay, FreezeReceiver, PauseReplay
from brownout.fault.process.stop import pause
from brownout.fault.process.subject import Subject
from brownout.fault.replica.home import Home, program, wait_for
from brownout.fault.replica.lag import Lag
from brownout.fault.replica.place import Mechanism, Replica
from brownout.fault.replica.wire import Postgres

if TYPE_CHECKING:
    from brownout._core.fault import Fault

__all__ = ["PostgresPair", "PostgresServer", "forget_template", "lsn_number", "lsn_text"]

DAY_SECONDS = 86_400.0
PROGRAMS = ("postgres", "initdb")
PORT = 5432  # of no socket but those in our own folders
# Nothing is synced: what is in here may be lost. Little is written that no client has asked for, since any
# WAL that is missing counts as missing. A replica retries ten times a second, not every 5 s, so that an
# undo is soon seen.
SETTINGS = """
listen_addresses = ''
port = 5432
fsync = off
full_page_writes = off
wal_level = replica
wal_keep_size = 256MB
max_wal_size = 1GB
checkpoint_timeout = 1h
autovacuum = off
shared_buffers = 16MB
wal_retrieve_retry_interval = 100ms
logging_collector = off
"""


class PostgresServer(NamedTuple):
    """One of the two: the folder of its data, which holds its socket too.

    `dsn` is for libpq and psycopg; asyncpg takes `host`, with user and database "postgres"; `address` is for
    a proxy. No password.
    """

    folder: Path
    pid: int

    @property
    def host(self) -> str:
        """The folder of the socket, as libpq and asyncpg name a host."""
        return str(self.folder)

    @property
    def dsn(self) -> str:
        """A connection string."""
        return f"host={self.folder} port={PORT} user=postgres dbname=postgres"

    @property
    def address(self) -> str:
        """The socket, as a proxy's upstream."""
        return f"unix:{self.folder}/.s.PGSQL.{PORT}"

    def session(self) -> Postgres:
        """A session for questions of our own."""
        return Postgres(self.folder / f".s.PGSQL.{PORT}")


class PostgresPair(Replica):
    """A primary and its replica, both up and streaming; a context manager.

    The first of a process takes seconds (it makes a template), each other less than one. It ends with its
    block, with this process however that dies, and after `seconds`. Where we are root it runs as user
    `postgres`. Raises FaultRefused where PostgreSQL is not installed, BrownoutError if it does not come up.
    """

    def __init__(
        self, *, target: str = "", seconds: float = DAY_SECONDS, every: float = 0.02
    ) -> None:
        with _TEMPLATE_LOCK:
            template = _template()
            home = _home("a PostgreSQL pair", seconds)
            with home.kept_if_right():
                folders = [home.folder(name) for name in ("primary", "replica")]
                for folder in folders:
                    home.run(["cp", "-a", "--", f"{template}/.", folder])
        with home.kept_if_right(), ExitStack() as stack:
            self.primary, self.replica = (_started(home, folder) for folder in folders)
            self._asked = self.primary.session(), self.replica.session()
            for session, folder in zip(self._asked, folders, strict=True):
                stack.callback(session.close)
                home.until(partial(_answers, session), folder=folder)
            home.until(self._streaming, folder=self.replica.folder)
            super().__init__(
                f"PostgreSQL replica in {self.replica.folder}",
                Lag(self._primary_lsn, self._replica_lsn, every=every),
                home=home,
                target=target,
            )
            self._stack = stack.pop_all()

    # ------------------------------------------------------------------------------------ the lag

    def _primary_lsn(self) -> int:
        return lsn_number(self._on_primary("SELECT pg_current_wal_lsn()"))

    def _replica_lsn(self) -> int:
        return lsn_number(self._on_replica("SELECT pg_last_wal_replay_lsn()"))

    def _on_primary(self, query: str) -> str:
        return self._asked[0].ask(query)[0][0] or ""

    def _on_replica(self, query: str) -> str:
        return self._asked[1].ask(query)[0][0] or ""

    def _streaming(self) -> bool:
        query = "SELECT status FROM pg_stat_wal_receiver WHERE pid IS NOT NULL"
        return self._asked[1].ask(query) == [["streaming"]]

    # ----------------------------------------------------------------------------------- the faults

    def _mechanism(self, fault: Fault) -> Mechanism:
        match fault:
            case PauseReplay():
                return Mechanism(
                    "pg_wal_replay_pause",
                    lambda: self._replay("pause"),
                    lambda: self._replay("resume"),
                    lambda: self._replay_state() == "not paused",
                )
            case DelayReplay():
                return Mechanism(
                    "recovery_min_apply_delay",
                    lambda: self._delay(f"{fault.seconds * 1000:.0f}ms"),
                    lambda: self._delay(""),
                    lambda: self._on_replica("SHOW recovery_min_apply_delay") == "0",
                )
            case FreezeReceiver():
                stopping = pause(Subject(self._receiver()))
                assert stopping.enter is not None
                return Mechanism(
                    "SIGSTOP of the WAL receiver",
                    stopping.enter,
                    lambda: None,  # its steps do it
                    lambda: True,
                    stopping.steps,
                )
            case CutStreaming():
                return Mechanism("primary_conninfo", self._cut, self._connect, self._streaming)
            case _:
                raise ConfigurationError(
                    f"{fault}: no fault of a PostgreSQL replica; those are PauseReplay, DelayReplay, "
                    "FreezeReceiver and CutStreaming"
                )

    def _replay_state(self) -> str:
        return self._on_replica("SELECT pg_get_wal_replay_pause_state()")

    def _replay(self, how: str) -> None:
        self._on_replica(f"SELECT pg_wal_replay_{how}()")
        if how == "pause":
            wait_for(
                lambda: self._replay_state() == "paused",
                lambda: "the replica does not stop to replay",
                seconds=3,
            )

    def _set(self, name: str, value: str | None) -> None:
        replica = self._asked[1]
        replica.ask(
            f"ALTER SYSTEM RESET {name}"
            if value is None
            else f"ALTER SYSTEM SET {name} = '{value}'"
        )
        replica.ask("SELECT pg_reload_conf()")

    def _delay(self, value: str) -> None:
        self._set("recovery_min_apply_delay", value or None)
        if value:
            wait_for(
                lambda: self._on_replica("SHOW recovery_min_apply_delay") != "0",
                lambda: "the replica does not take the delay up",
                seconds=3,
            )

    def _receiver(self) -> int:
        found = self._asked[1].ask("SELECT pid FROM pg_stat_wal_receiver WHERE pid IS NOT NULL")
        if not found:
            raise FaultRefused(
                f"{self._where}: it has no WAL receiver now. Is its streaming cut? Undo that first"
            )
        return int(found[0][0] or 0)

    def _cut(self) -> None:
        self._set("primary_conninfo", "")
        wait_for(
            lambda: not self._asked[1].ask("SELECT pid FROM pg_stat_wal_receiver"),
            lambda: "the replica goes on to stream",
            seconds=3,
        )

    def _connect(self) -> None:
        self._set("primary_conninfo", None)

    def _close(self) -> None:
        self._stack.close()


def lsn_number(text: str) -> int:
    """A position in the WAL as a number: "0/3000148" is 0x3000148. Raises BrownoutError for anything else."""
    high, _, low = text.partition("/")
    try:
        return (int(high, 16) << 32) + int(low, 16)
    except ValueError:
        raise BrownoutError(f'{text!r} is no position in the WAL, such as "0/3000148"') from None


def lsn_text(number: int) -> str:
    """The other way round."""
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


# ------------------------------------------------------------------------------------- clusters

_TEMPLATE_LOCK = threading.Lock()
_TEMPLATES: list[Home] = []


def _home(what: str, seconds: float) -> Home:
    return Home(what, programs=PROGRAMS, signal="QUIT", users=("postgres",), seconds=seconds)


def _binary(name: str) -> Path:
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    numbered = [path for path in versions if path.parent.name.isdigit()]
    folders = sorted(numbered, key=lambda path: int(path.parent.name))
    return program(name, folders, "postgresql")


def _template() -> Path:
    """An empty cluster, never started, which the pairs of this process are copies of.

    A replica is a copy too: both begin with the same shut-down, and no base backup is needed.
    """
    found = [home for home in _TEMPLATES if home.active]
    if not found:
        home = _home("a template of PostgreSQL", DAY_SECONDS)
        with home.kept_if_right():
            data = home.folder("data")
            options = ["-U", "postgres", "-A", "trust", "--no-sync", "--no-instructions"]
            how = ["-E", "UTF8", "--locale=C", "--wal-segsize=1"]
            home.run([_binary("initdb"), "-D", data, *options, *how])
            with (data / "postgresql.conf").open("a", encoding="utf-8") as file:
                file.write(SETTINGS)
        _TEMPLATES[:] = [home]
    return _TEMPLATES[0].path / "data"


def forget_template() -> None:
    """Remove the template before this process ends."""
    with _TEMPLATE_LOCK:
        for home in _TEMPLATES:
            home.close()
        _TEMPLATES.clear()


def _started(home: Home, folder: Path) -> PostgresServer:
    if folder.name == "replica":
        primary = folder.parent / "primary"
        line = f"primary_conninfo = 'host={primary} port={PORT} user=postgres'\n"
        with (folder / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(line)
        (folder / "standby.signal").touch()
    child = home.start([_binary("postgres"), "-D", folder, "-k", folder], cwd=folder)
    return PostgresServer(folder, child.pid)


def _answers(session: Postgres) -> bool:
    return session.ask("SELECT 1") == [["1"]]
