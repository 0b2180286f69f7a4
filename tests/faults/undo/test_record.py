"""A record is whole or is not there; what can't be trusted is told and skipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from math import inf
from typing import TYPE_CHECKING, Any

import pytest

from brownout.errors import FaultRefused
from brownout.fault import record as records
from brownout.fault.identity import Identity
from brownout.fault.record import Record, Step

if TYPE_CHECKING:
    from pathlib import Path


def a_record(**changes: Any) -> Record:
    about: dict[str, Any] = {
        "id": records.new_id(),
        "mechanism": "process",
        "kind": "pause",
        "fault": "Pause()",
        "place": "process 17",
        "owner": Identity.mine(),
        "began": 1.5,
        "end": records.now() + 60,
        "steps": (Step("signal", pid=17, start=4, signal="CONT"),),
    }
    return Record(**{**about, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "faults")


def put(folder: str, record: Record) -> None:
    records.release(records.write(folder, record))


def test_what_is_written_is_read(folder: str) -> None:
    ours = [a_record(began=2.0), a_record(end=inf, steps=(), target="db", began=1.0)]
    for each in ours:
        put(folder, each)
    assert records.read(folder) == ((ours[1], ours[0]), ())
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in _paths(folder)] == [0o600] * 2


def _paths(folder: str) -> list[Path]:
    from pathlib import Path

    return sorted(Path(folder).glob("*.json"))


def test_no_folder_holds_nothing(folder: str) -> None:
    assert records.read(folder) == ((), ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no record"),
        ('{"version": 1, "id"', "no record"),
        ("[1]", "no record"),
        ("[" * 100_000, "no record"),
        ('{"version": 99}', "version 99"),
        ('{"version": 1}', "no record"),
        ('{"version": 1, "steps": [{"verb": 3}], "end": 1, "owner": "x"}', "no record"),
        ("x" * (records.MOST_BYTES + 1), "too large"),
    ],
    ids=["empty", "torn", "foreign", "deep", "newer", "bare", "wrong", "large"],
)
def test_what_is_no_record_is_told_and_skipped(folder: str, text: str, said: str) -> None:
    ours = a_record()
    put(folder, ours)
    name = f"{folder}/{records.new_id()}.json"
    with open(name, "w") as file:
        file.write(text)
    kept, problems = records.read(folder)
    assert kept == (ours,)
    assert len(problems) == 1
    assert said in problems[0]
    assert name in problems[0]


def test_a_field_of_a_wrong_kind_or_another_name_is_no_record(folder: str) -> None:
    put(folder, a_record())
    path = _paths(folder)[0]
    plain = json.loads(path.read_text())
    changes: list[dict[str, Any]] = [
        {"place": 3},
        {"id": "0" * 12},
        {"began": "x"},
        {"more": 1},
        {"steps": [[]]},
    ]
    for change in changes:
        path.write_text(json.dumps({**plain, **change}))
        kept, problems = records.read(folder)
        assert (kept, len(problems)) == ((), 1), change


def test_a_link_and_a_pipe_are_skipped(folder: str, tmp_path: Path) -> None:
    put(folder, a_record())
    path = _paths(folder)[0]
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    os.mkfifo(f"{folder}/{'0' * 12}.json")
    kept, problems = records.read(folder)
    assert (kept, len(problems)) == ((), 2)


@pytest.mark.parametrize("how", ["link", "open", "file"])
def test_a_folder_that_others_could_write_to_is_refused(
    folder: str, how: str, tmp_path: Path
) -> None:
    if how == "link":
        (tmp_path / "real").mkdir(mode=0o700)
        os.symlink(tmp_path / "real", folder)
    elif how == "open":
        os.mkdir(folder)
        os.chmod(folder, 0o755)
    else:
        (tmp_path / "faults").touch()
    with pytest.raises(FaultRefused, match="BROWNOUT_FAULTS"):
        records.write(folder, a_record())
    with pytest.raises(FaultRefused, match="BROWNOUT_FAULTS"):
        records.read(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give a folder away")
def test_a_folder_of_another_user_is_refused(folder: str) -> None:
    os.mkdir(folder, 0o700)
    os.chown(folder, 12345, -1)
    with pytest.raises(FaultRefused, match="user 12345"):
        records.read(folder)


def test_records_have_a_limit(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_RECORDS", 3)
    for _ in range(3):
        put(folder, a_record())
    with pytest.raises(FaultRefused, match="3 faults are in force"):
        records.write(folder, a_record())
    with pytest.raises(FaultRefused, match="bytes"):
        records.write(folder, a_record(place="x" * records.MOST_BYTES))


def test_a_claim_keeps_others_off_until_its_holder_dies(folder: str) -> None:
    ours = a_record()
    put(folder, ours)
    code = """
import sys, time
from brownout.fault import record
with record.claimed(sys.argv[1], sys.argv[2]) as found:
    print(found.place, flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", code, folder, ours.id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "process 17\n"
            with pytest.raises(TimeoutError), records.claimed(folder, ours.id):
                pass
        finally:
            holder.kill()
    with records.claimed(folder, ours.id) as found:
        assert found == ours
        with pytest.raises(TimeoutError), records.claimed(folder, ours.id, seconds=0.02):
            pass
        records.remove(folder, ours.id)
    with records.claimed(folder, ours.id) as found:
        assert found is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12: a fork beside threads
def test_a_child_of_a_fork_holds_no_claim(folder: str) -> None:
    ours = a_record()
    claim = records.write(folder, ours)
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(tell)
        os.read(told, 1)
        os._exit(0)
    os.close(told)
    try:
        os.close(claim)  # as death closes it: without unlocking
        records._CLAIMS.discard(claim)
        with records.claimed(folder, ours.id, seconds=1) as found:
            assert found == ours
    finally:
        os.close(tell)
        os.waitpid(child, 0)


def test_a_draft_is_swept_once_its_writer_is_dead(folder: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as writer:
        alive = Identity.of(writer.pid)
        put(folder, a_record())
        draft = f"{folder}/.{'0' * 12}.{alive.pid}-{alive.start}.draft"
        with open(draft, "w"):
            pass
        records.sweep(folder)
        assert os.path.exists(draft)
        writer.kill()
    records.sweep(folder)
    assert not os.path.exists(draft)
    assert len(_paths(folder)) == 1


def test_a_process_is_its_id_and_its_start() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        is_it = Identity.of(process.pid)
        other = is_it._replace(start=is_it.start - 1)
        assert is_it.alive()
        assert not other.alive()
        process.kill()
        process.wait()
        assert not is_it.alive()
        with pytest.raises(ProcessLookupError):
            Identity.of(process.pid)


def test_a_zombie_is_dead() -> None:
    process = subprocess.Popen(["sleep", "60"])
    is_it = Identity.of(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert not is_it.alive()
    finally:
        process.wait()


def test_the_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setenv("BROWNOUT_FAULTS", "/a")
    assert records.folder() == "/a"
    monkeypatch.delenv("BROWNOUT_FAULTS")
    assert records.folder() == "/run/user/7/brownout-faults"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert records.folder().endswith(f"/brownout-faults-{os.getuid()}")


def test_a_record_of_another_space_of_ids_is_left_alone(folder: str) -> None:
    put(folder, a_record(home=a_record().home + "x"))
    kept, problems = records.read(folder)
    assert (kept, len(problems)) == ((), 1)
    assert "another container" in problems[0]
