import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from brownout import State
from brownout._core.recent import Recent
from brownout.cli import duration, main
from brownout.fleet import wire
from brownout.fleet.file import File
from tests.fleet.sample import NOW, observer, told, verdict

LIMIT = 20.0
COMMAND = [sys.executable, "-m", "brownout"]


def put(
    file: File, *changes: wire.Told, target: str = "quotes", state: State = State.DEGRADED
) -> None:
    now = time.time()
    one = verdict(state, because="two humps", claim=True)
    body = wire.write([one], lambda instant: now - one.at + instant)
    file.write(
        observer(written=now),
        [(target, body), ("mail", wire.write([], float))],
        changes,
        prune=False,
    )


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    with closing(File(str(tmp_path / "fleet.db"))) as file:
        put(file)
        yield file


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**clean(), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )


def clean() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {"BROWNOUT_FLEET", "COLUMNS", "NO_COLOR"}
    }


# ------------------------------------------------------------------------------- status, explain


def test_status_shows_the_table(file: File) -> None:
    shown = run("status", "--fleet", file.path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "D ◐ DEGRADED" in shown.stdout
    assert "read: two humps." in shown.stdout
    assert "ok ≠" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_the_environment_names_the_fleet(file: File) -> None:
    assert run("status", BROWNOUT_FLEET=file.path).stdout.startswith(" brownout status")


def test_status_as_json(file: File) -> None:
    shown = run("status", "--json", "--fleet", file.path)
    told_: dict[str, Any] = json.loads(shown.stdout)
    assert [(one["target"], one["state"]) for one in told_["targets"]] == [
        ("quotes", "DEGRADED"),
        ("mail", None),
    ]
    assert told_["targets"][0]["contradiction"] is True
    assert told_["observers"][0]["name"] == "load"


@pytest.mark.parametrize(
    ("state", "code"), [(State.HEALTHY, 0), (State.DEGRADED, 1), (State.CRASHED, 1)]
)
def test_strict_exits_with_one_if_a_target_is_ill(file: File, state: State, code: int) -> None:
    put(file, state=state)
    assert main(["status", "--strict", "--json", "--fleet", file.path]) == code
    assert main(["status", "--json", "--fleet", file.path]) == 0


def test_no_target_at_all_is_two(file: File, capsys: pytest.CaptureFixture[str]) -> None:
    file.write(observer(written=time.time()), (), (), prune=False)
    assert main(["status", "--fleet", file.path]) == 2
    assert "nobody has called a guarded target yet" in capsys.readouterr().out


def test_ascii_output_for_an_ascii_terminal(file: File) -> None:
    for arguments, environ in (
        (["status", "--ascii"], {}),
        (["status"], {"PYTHONIOENCODING": "ascii"}),
        (["explain", "quotes"], {"PYTHONIOENCODING": "latin-1"}),
    ):
        put(file)  # anew, or on a busy machine it is stale by the third
        shown = run(*arguments, "--fleet", file.path, **environ)
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.isascii()
        assert "D DEGRADED" in shown.stdout


def test_a_hostile_name_reaches_no_terminal(file: File) -> None:
    put(file, told("\x1b[31mevil\n"), target="\x1b]0;x\x07\u202eevil\r")
    for arguments in (["status"], ["status", "--json"], ["explain", "evil "]):
        shown = run(*arguments, "--fleet", file.path)
        assert shown.returncode == 0, shown.stderr
        assert "evil" in shown.stdout
        assert not {"\x1b", "\x07", "\r", "\u202e"} & set(shown.stdout)


def test_explain_shows_a_target_in_full(file: File) -> None:
    shown = run("explain", "quotes", "--fleet", file.path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "unanswered" in shown.stdout
    assert "Not decided" in shown.stdout
    told_ = json.loads(run("explain", "quotes", "--json", "--fleet", file.path).stdout)
    assert told_["views"][0]["operations"][0]["numbers"][0]["name"] == "calls"


# ------------------------------------------------------------------------------------------ watch


def test_watch_tells_changes_as_they_happen(file: File) -> None:
    with subprocess.Popen(
        [*COMMAND, "watch", "--json", "--fleet", file.path],
        stdout=subprocess.PIPE,
        env=clean(),
        text=True,
    ) as process:
        lines: list[str] = []
        reader = threading.Thread(
            target=lambda: lines.append((process.stdout or io.StringIO()).readline())
        )
        reader.start()
        for _ in range(int(LIMIT / 0.1)):  # it follows from when it has begun, whenever that is
            put(file, told())
            reader.join(0.1)
            if lines:
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 0
    change = json.loads(lines[0])
    assert (change["target"], change["before"], change["after"]) == (
        "quotes",
        "HEALTHY",
        "DEGRADED",
    )


def split(file: File) -> None:
    """Two observers of zone-a can't reach the cache, two of zone-b can; a change makes `watch` look."""
    now = time.time()
    for zone in ("zone-a", "zone-b"):
        for number in range(2):
            bad = 20 if zone == "zone-a" else 0
            one = verdict(State.CRASHED if bad else State.HEALTHY, target="cache", because="no")
            one = one.__replace__(recent=(Recent(0.5, bad, 20),), since=one.at - 0.6)
            body = wire.write([one], lambda instant: now - NOW + instant)
            who = observer(f"{zone}-{number}", zone=zone, written=now)
            file.write(who, [("cache", body)], [told("cache", at=now)], prune=False)


def test_watch_and_status_tell_who_suffers(file: File) -> None:
    with subprocess.Popen(
        [*COMMAND, "watch", "--fleet", file.path, "--for", "20s"],
        stdout=subprocess.PIPE,
        env=clean(),
        text=True,
    ) as process:
        found = threading.Event()

        def read() -> None:
            for line in process.stdout or ():
                if " scope " in line and "partition zone-a | cache: 2 of 2 observers" in line:
                    found.set()

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(int(LIMIT / 0.1)):
            split(file)
            if found.wait(0.1):
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 0
        reader.join(LIMIT)
    assert found.is_set()
    split(file)
    shown = run("explain", "cache", "--fleet", file.path)
    assert (
        "Scope: partition zone-a | cache: 2 of 2 observers in zone-a suffer, 0 of 2" in shown.stdout
    )


def test_watch_ends_when_its_time_is_up(file: File) -> None:
    put(file, told())
    shown = run("watch", "--for", "50ms", "--fleet", file.path)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", "")


# ----------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status"], "brownout: which fleet? Give --fleet PATH, or set BROWNOUT_FLEET=PATH"),
        (
            ["watch", "--fleet", "/nowhere/fleet.db"],
            "brownout: no fleet file at /nowhere/fleet.db: start",
        ),
        (["status", "--fleet", __file__], "not even a database; give another path"),
        (["watch", "--for", "10"], 'argument --for: "10" has no unit; did you mean "10s"?'),
        (["watch", "--for", "soon"], '"soon" is not a duration (a duration is a number and a unit'),
        (["top"], "invalid choice: 'top'"),
        ([], "the following arguments are required: VERB"),
    ],
)
def test_an_error_is_one_message_and_no_traceback(arguments: list[str], message: str) -> None:
    shown = run(*arguments)
    assert shown.returncode == 2
    assert shown.stdout == ""
    assert message in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    ("name", "hint"),
    [("qoutes", "did you mean quotes?"), ("\x1b[1mdisk", "there are: ")],
)
def test_an_unknown_target_gets_a_hint(file: File, name: str, hint: str) -> None:
    shown = run("explain", name, "--fleet", file.path)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "no target" in shown.stderr
    assert hint in shown.stderr
    assert "\x1b" not in shown.stderr


def test_a_closed_pipe_is_quiet(file: File) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as out:
        shown = subprocess.run(
            [*COMMAND, "status", "--fleet", file.path],
            stdout=out,
            stderr=subprocess.PIPE,
            env=clean(),
            check=False,
            timeout=LIMIT,
        )
    assert (shown.returncode, shown.stderr) == (141, b"")


def test_the_version_is_told() -> None:
    assert run("--version").stdout.startswith("brownout ")


# ------------------------------------------------------------------------------------------- demo


@pytest.mark.parametrize(
    ("arguments", "faults", "path"),
    [([], True, None), (["--no-faults", "--json", "x.json"], False, "x.json")],
)
def test_demo_calls_the_case(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], faults: bool, path: str | None
) -> None:
    asked: list[dict[str, Any]] = []

    def demo(**options: Any) -> int:
        asked.append(options)
        return 7

    case = types.ModuleType("brownout.cases.exhausted_pool")
    monkeypatch.setattr(case, "demo", demo, raising=False)
    monkeypatch.setitem(sys.modules, "brownout.cases.exhausted_pool", case)
    assert main(["demo", *arguments]) == 7
    assert asked == [{"faults": faults, "json_path": path, "out": sys.stdout, "live": False}]


def test_a_demo_without_its_libraries_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Without:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "brownout.cases.exhausted_pool":
                raise ModuleNotFoundError("no uvicorn", name="uvicorn")

    monkeypatch.delitem(sys.modules, "brownout.cases.exhausted_pool", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Without(), *sys.meta_path])
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == (
        'brownout: the demo needs uvicorn, which is not installed: pip install "brownout[demo]"\n'
    )


# -------------------------------------------------------------------------------------- durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("2s", 2.0), ("1m30s", 90.0), ("1.5h", 5400.0), ("0s", 0.0)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert duration.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "2", "s", "2 s", "-2s", "2d", "1e3s", "2s!"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="a duration is a number and a unit: 250ms, 2s, 1m30s"):
        duration.parse(text)
