"""`brownout fault add | list | clear` and `doctor`, as a shell sees them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from brownout.cli import amount
from brownout.errors import ConfigurationError
from brownout.fault import Amount, Cut, Latency, Schedule
from brownout.fault import record as records
from brownout.fault.identity import Identity
from brownout.fleet.file import File
from tests.cli.test_cli import put
from tests.seen import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="faults are of Linux")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BROWNOUT_FAULTS", str(tmp_path / "faults"))
    yield
    brownout("clear", "--all")


@pytest.fixture
def victim() -> Iterator[Identity]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield Identity.of(process.pid)
        process.kill()


def brownout(*arguments: str, verb: str = "fault") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "brownout", verb, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)


def test_a_fault_of_a_process_outlives_the_command_and_is_cleared(victim: Identity) -> None:
    done = brownout("add", "process", "pause", str(victim.pid), "--for", "40s", "--target", "db")
    assert done.returncode == 0, done.stderr
    id_ = done.stdout.split()[0]
    assert f"Pause() at process {victim.pid}, for 40 s" in done.stdout
    assert f"brownout fault clear {id_}" in done.stdout
    until(lambda: victim.state() == "T")
    listed = brownout("list").stdout.splitlines()
    assert listed[0].split() == ["ID", "FAULT", "PLACE", "OWNER", "ENDS", "IN", "STATE"]
    assert id_ in listed[1]
    assert "in force" in listed[1]
    (told,) = json.loads(brownout("list", "--json").stdout)["faults"]
    assert told["id"] == id_
    assert told["target"] == "db"
    assert told["owner"]["alive"] is True
    assert 0 < told["ends_in_seconds"] <= 40
    cleared = brownout("clear", id_[:5])
    assert (cleared.returncode, cleared.stdout) == (
        0,
        f"cleared: {id_}  Pause() at process {victim.pid}\n",
    )
    assert victim.state() != "T"
    assert brownout("list").stdout == "no fault is in force\n"
    until(lambda: not Identity(told["owner"]["pid"], 0).alive())


def test_it_ends_by_itself(victim: Identity) -> None:
    told = json.loads(
        brownout("add", "process", "pause", str(victim.pid), "--for", "300ms", "--json").stdout
    )
    until(lambda: victim.state() != "T")
    until(lambda: not records.read(records.folder()).records)
    until(lambda: not Path(f"/proc/{told['pid']}").exists())


def test_a_proxy_is_held_until_it_is_cleared() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        done = brownout("add", "tcp", "latency", f"{host}:{port}", "seconds=250ms", "--json")
        told = json.loads(done.stdout)
        at = told["listen"].rpartition(":")
        began = time.monotonic()
        with socket.create_connection((at[0], int(at[2])), 5) as client:
            client.sendall(b"x")
            peer = server.accept()[0]
            assert peer.recv(1) == b"x"
            peer.close()
        assert time.monotonic() - began >= 0.24
        assert brownout("clear", told["id"]).returncode == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((at[0], int(at[2])), 5)


def test_status_shows_what_is_made_on_purpose(victim: Identity, tmp_path: Path) -> None:
    path = str(tmp_path / "fleet.db")
    brownout("add", "process", "pause", str(victim.pid), "--for", "40s", "--target", "quotes")
    with closing(File(path)) as file:
        put(file)  # only now, or on a busy machine it is stale
    lines = brownout("--fleet", path, verb="status").stdout
    assert "   quotes † " in lines
    assert "   · mail: " in lines
    assert f"† fault: Pause() at process {victim.pid}, ends in" in lines
    told = json.loads(brownout("--fleet", path, "--json", verb="status").stdout)
    assert [each["target"] for each in told["faults"]] == ["quotes"]
    lines = brownout("--fleet", path, "--ascii", verb="status").stdout
    assert "+ fault: Pause()" in lines
    assert lines.isascii()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "tcp", "latency", "127.0.0.1:1"], "seconds=... is missing"),
        (["add", "tcp", "latency", "127.0.0.1:1", "seconds=1"], 'did you mean "1s"?'),
        (["add", "tcp", "latncy", "127.0.0.1:1"], "did you mean latency?"),
        (["add", "tcp", "pause", "127.0.0.1:1"], 'tcp makes no fault of a kind "pause"'),
        (["add", "udp", "latency", "x"], "there are: tcp, http, process, listener"),
        (["add", "http", "status", "127.0.0.1:1", "code=500", "header=a"], "header: "),
        (["add", "http", "hang", "127.0.0.1:1"], 'http makes no fault of a kind "hang"'),
        (["add", "process", "pause", "sshd"], '"sshd" is no process id'),
        (["add", "process", "pause", "1"], "process 1"),
        (["add", "process", "pause", str(os.getpid())], "ancestor"),
        (["add", "process", "pause", "1", "--listen", "127.0.0.1:9"], "--listen is for tcp"),
        (["clear"], "--all"),
        (["clear", "nothere"], "no fault has this id"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(arguments: list[str], said: str) -> None:
    done = brownout(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert records.read(records.folder()).records == ()


def test_an_address_in_use_is_told_by_the_process_that_holds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        done = brownout("add", "tcp", "refuse", "127.0.0.1:1", "--listen", f"{host}:{port}")
    assert done.returncode == 2
    assert f"{host}:{port}" in done.stderr


def test_what_is_inside_another_process_is_not_cleared() -> None:
    from brownout.fault.made import Made

    with Made(place="here", mechanism="m", fault=Latency(seconds=1), apply=list) as made:
        done = brownout("clear", made.id)
        assert done.returncode == 1
        assert f"inside process {os.getpid()}" in done.stdout
        assert made.active


def test_a_record_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    brownout("list")
    folder = tmp_path / "faults"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "0123456789ab.json").write_text("{torn")
    done = brownout("list")
    assert done.returncode == 0
    assert "0123456789ab.json was skipped: it is no record" in done.stderr


def test_amounts() -> None:
    texts = ["seconds=200ms~50ms:normal", "share=30%", "nth=3", "start=1s", "on=2s", "off=500ms"]
    assert amount.fault(Latency, texts) == Latency(
        seconds=Amount(0.2, 0.05, "normal"),
        share=0.3,
        nth=3,
        schedule=Schedule(start=1.0, on=2.0, off=0.5),
    )
    assert amount.fault(Cut, ["how=close", "at=reply", "after_bytes=10"]) == Cut(
        how="close", at="reply", after_bytes=10
    )
    assert amount.fault(Latency, ["seconds=inf"]) == Latency(seconds=inf)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("share=many", 'share: "many" is not a number'),
        ("nth=-1", 'nth: "-1" is not a whole number'),
        ("seconds=1s", "seconds is given twice"),
        ("sec=1s", '"sec=1s" is no amount of it; did you mean seconds?'),
        ("share=3", "a part of 1"),
        ("match=(", "no regular expression"),
        ("start=5s", None),
        ("end=0", "0 <= start < end"),
    ],
)
def test_a_wrong_amount(text: str, said: str | None) -> None:
    texts = ["seconds=2s", text]
    if said is None:
        amount.fault(Latency, texts)
        return
    with pytest.raises(ConfigurationError) as error:
        amount.fault(Latency, texts)
    assert said in str(error.value)


def test_doctor_tries_each_mechanism() -> None:
    done = brownout("--json", verb="doctor")
    told = json.loads(done.stdout)
    clients = {each["name"]: each for each in told["clients"]}
    assert clients["redis"]["resends"].startswith("every command")
    assert "NoBackoff" in clients["redis"]["advice"]
    assert clients["psycopg"]["resends"] == ""
    found = {each["name"]: each for each in told["mechanisms"]}
    assert found["watchdog"]["works"] == "yes"
    assert found["tcp proxy"]["works"] in ("yes", "weaker")
    assert found["HTTP"]["works"] == "yes"
    assert found["pause"]["used"] == "SIGSTOP"
    assert {each["works"] for each in found.values()} <= {"yes", "weaker", "no"}
    assert all(each["because"] for each in found.values() if each["works"] != "yes")
    assert records.read(records.folder()).records == ()


def test_doctor_says_what_is_used_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    from brownout.fault import doctor
    from brownout.fault.process import group

    monkeypatch.setattr(group, "hierarchies", lambda *_, **__: [])
    monkeypatch.setattr(doctor, "SECONDS", 5.0)
    names = ("freeze", "starve")
    monkeypatch.setattr(doctor, "TRIALS", {name: doctor.TRIALS[name] for name in names})
    freeze, starve = doctor.examine()
    assert (freeze.works, starve.works) == ("weaker", "weaker")
    assert "SIGSTOP" in freeze.used
    assert "neighbour" in starve.used
    assert "control groups" in freeze.because


def test_doctor_sees_whether_a_fault_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from brownout.fault import doctor
    from brownout.fault.http.place import Place

    monkeypatch.setattr(doctor, "TRIALS", {"HTTP": doctor.TRIALS["HTTP"]})
    monkeypatch.setattr(Place, "_apply", lambda *_: None)
    (found,) = doctor.examine()
    assert found.works == "no"
    assert found.because == "status 204 and then 204 came, not 503 and then 204"


def test_doctor_reports_a_mechanism_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from brownout.fault import doctor

    def fails() -> str:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(doctor, "TRIALS", {"x": fails})
    (found,) = doctor.examine()
    assert (found.works, found.because) == ("no", "[Errno 1] Operation not permitted")
