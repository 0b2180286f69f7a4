"""A real PostgreSQL pair: other processes see each fault, its lag is set against the truth, and undone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from brownout.errors import BrownoutError, ConfigurationError, FaultRefused
from brownout.fault import (
    CutStreaming,
    DelayReplay,
    FreezeReceiver,
    Kill,
    Pause,
    PauseReplay,
    Process,
)
from brownout.fault import record as records
from brownout.fault.identity import Identity
from brownout.fault.replica.postgres import PostgresPair, lsn_number, lsn_text
from tests.faults.replica.conftest import psql
from tests.seen import within

if TYPE_CHECKING:
    from brownout.fault import Fault

FAULTS = [PauseReplay(), DelayReplay(seconds=30), FreezeReceiver(), CutStreaming()]
# The two formulas of PostgreSQL's wikis and exporters, asked of the replica; and what its primary says.
OLDEST = "SELECT extract(epoch FROM now() - pg_last_xact_replay_timestamp())"
CORRECTED = (
    "SELECT CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0"
    " ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END"
)
OF_PRIMARY = "SELECT coalesce(extract(epoch FROM replay_lag), 0) FROM pg_stat_replication"


def value(dsn: str) -> int:
    return int(psql(dsn, "SELECT v FROM t"))


def write(pair: PostgresPair) -> tuple[int, float, float]:
    """A value that nobody wrote before, and the instants between which it was committed and seen."""
    new = value(pair.primary.dsn) + 1
    began = time.monotonic()
    psql(pair.primary.dsn, f"UPDATE t SET v = {new}")
    pair.position()
    return new, began, time.monotonic()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.kind)
def test_the_replica_answers_without_what_was_committed(pair: PostgresPair, fault: Fault) -> None:
    old = value(pair.replica.dsn)
    with pair.make(fault) as made:
        on_record = {each.kind: each.place for each in records.read(made.folder).records}
        assert on_record[fault.kind] == f"PostgreSQL replica in {pair.replica.folder}"
        new, earliest, latest = write(pair)
        time.sleep(0.4)
        before = time.monotonic()
        behind = pair.seconds_behind()
        after = time.monotonic()
        assert before - latest <= behind <= after - earliest
        assert (value(pair.primary.dsn), value(pair.replica.dsn)) == (new, old)
        with pytest.raises(TimeoutError, match="behind"):
            pair.fence(seconds=0.05)
    pair.fence(seconds=10)
    assert value(pair.replica.dsn) == new
    assert pair.seconds_behind() == 0


def test_it_is_late_by_what_was_asked(pair: PostgresPair) -> None:
    with pair.make(DelayReplay(seconds=0.5)):
        new, earliest, latest = write(pair)
        pair.fence(seconds=10)
        seen = time.monotonic()
        assert value(pair.replica.dsn) == new
        assert seen - earliest >= 0.49  # measured from before the commit
        assert seen - latest < 5
        assert pair.seconds_behind() == 0


def test_the_usual_formulas_say_zero_while_commits_are_missing(pair: PostgresPair) -> None:
    """Report of the primary, and the corrected formula of the replica: both lie with a frozen receiver."""
    write(pair)
    pair.fence(seconds=10)
    with pair.make(FreezeReceiver()):
        new, _, latest = write(pair)
        time.sleep(1)
        assert float(psql(pair.replica.dsn, CORRECTED)) == 0
        assert "streaming" in psql(pair.primary.dsn, "SELECT state FROM pg_stat_replication")
        assert pair.seconds_behind() >= time.monotonic() - latest - 0.2 >= 0.7
        assert value(pair.replica.dsn) != new
    pair.fence(seconds=10)


def test_the_primary_takes_a_delay_for_no_lag(pair: PostgresPair) -> None:
    write(pair)
    pair.fence(seconds=10)
    with pair.make(DelayReplay(seconds=20)):
        _, _, latest = write(pair)
        time.sleep(1)
        told = float(psql(pair.primary.dsn, OF_PRIMARY))
        assert told < 0.5 < time.monotonic() - latest - 0.2 <= pair.seconds_behind()


def test_an_idle_pair_is_not_behind(pair: PostgresPair) -> None:
    write(pair)
    pair.fence(seconds=10)
    time.sleep(1)
    assert float(psql(pair.replica.dsn, OLDEST)) >= 1  # a false alarm
    assert pair.seconds_behind() == 0


def test_who_has_written_reads_it(pair: PostgresPair) -> None:
    with (
        psycopg.connect(pair.primary.dsn, autocommit=True) as primary,
        psycopg.connect(pair.replica.dsn, autocommit=True) as replica,
    ):
        for new in range(1000, 1050):
            primary.execute("UPDATE t SET v = %s", (new,))
            row = primary.execute("SELECT pg_current_wal_lsn()").fetchone()
            assert row
            pair.fence(lsn_number(row[0]), seconds=10)
            assert replica.execute("SELECT v FROM t").fetchone() == (new,)


def test_two_faults_at_once_and_their_undos_in_any_order(pair: PostgresPair) -> None:
    delay = pair.make(DelayReplay(seconds=30))
    freeze = pair.make(FreezeReceiver())
    new, _, _ = write(pair)
    delay.undo()
    with pytest.raises(TimeoutError):
        pair.fence(seconds=0.1)
    freeze.undo()
    pair.fence(seconds=10)
    assert value(pair.replica.dsn) == new


def test_it_ends_after_its_time(pair: PostgresPair) -> None:
    made = pair.make(PauseReplay(), seconds=0.2)
    write(pair)
    pair.fence(seconds=10)
    assert within(lambda: not made.active)


def test_what_is_refused(pair: PostgresPair) -> None:
    with pair.make(CutStreaming()):
        with pytest.raises(FaultRefused, match=r"CutStreaming\(\) is in force at .* undo it first"):
            pair.make(CutStreaming())
        with pytest.raises(FaultRefused, match="no WAL receiver now"):
            pair.make(FreezeReceiver())
    with pytest.raises(ConfigurationError, match=r"Pause\(\): no fault of a PostgreSQL replica"):
        pair.make(Pause())


def test_a_pair_leaves_nothing(template: None) -> None:
    def on_record() -> int:
        of_pair = [str(folder), f"PostgreSQL replica in {folder / 'replica'}"]
        return sum(each.place in of_pair for each in records.read(records.folder()).records)

    with PostgresPair() as pair:
        made = pair.make(FreezeReceiver())
        servers = [Identity.of(pair.primary.pid), Identity.of(pair.replica.pid)]
        folder = pair.primary.folder.parent
        assert pair.primary.folder.stat().st_mode & 0o777 == 0o700
        assert on_record() == 2
    assert not folder.exists()
    assert not any(server.alive() for server in servers)
    assert on_record() == 0
    assert not made.active
    with pytest.raises(FaultRefused, match="has ended"):
        pair.make(PauseReplay())
    pair.close()


def test_pairs_are_apart(pair: PostgresPair) -> None:
    with PostgresPair() as other:
        with other.make(PauseReplay()):
            write(pair)
            pair.fence(seconds=10)
        assert (
            psql(other.replica.dsn, "SELECT count(*) FROM pg_tables WHERE tablename = 't'") == "0"
        )


@pytest.mark.parametrize(
    ("text", "number"), [("0/0", 0), ("0/3000148", 0x3000148), ("1/FF", 1 << 32 | 255)]
)
def test_positions(text: str, number: int) -> None:
    assert lsn_number(text) == number
    assert lsn_text(number) == text


@pytest.mark.parametrize("text", ["", "7", "x/y", "/"])
def test_no_position(text: str) -> None:
    with pytest.raises(BrownoutError, match="no position in the WAL"):
        lsn_number(text)


def test_a_fault_ends_with_a_server_that_is_killed(template: None) -> None:
    with PostgresPair() as pair:
        made = pair.make(PauseReplay())
        with Process(pair.replica.pid).make(Kill()):
            pass
        made.undo()
        with pytest.raises(FaultRefused, match="has ended"):
            pair.make(DelayReplay(seconds=1))
        folder = pair.primary.folder.parent
    assert not folder.exists()
