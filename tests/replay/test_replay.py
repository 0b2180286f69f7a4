"""Replay: recorded calls are judged as they happened, whatever order they stand in; bad rows are told."""

from __future__ import annotations

import gzip
import json
import random
from math import log
from typing import TYPE_CHECKING

import pytest

from brownout import State
from brownout.cli import main
from brownout.cli.replay import dead_band
from brownout.errors import ConfigurationError
from brownout.replay import HEADER, Change, Problem, Record, Replay, Settings, read, record

if TYPE_CHECKING:
    from pathlib import Path


def rows(seed: int = 1, rate: float = 50.0, ill: float = 40.0, end: float = 60.0) -> list[str]:
    """Healthy calls, and refused ones from `ill` on."""
    chance, now, made = random.Random(seed), 0.0, []
    while (now := now + chance.expovariate(rate)) < end:
        took = chance.lognormvariate(log(0.02), 0.5)
        ended = "answered" if now < ill else "refused"
        made.append(f"{now:.6f},web,db,read,{took if now < ill else 0.001:.6f},{ended}")
    return made


def judged(told: list[str], settings: Settings = Settings()) -> list[Change]:  # noqa: B008
    replay, changes = Replay(settings), []
    for row in told:
        one = record(row)
        assert isinstance(one, Record)
        changes += replay.add(one)
    return changes + replay.end()


def test_a_recorded_crash_is_named_when_it_happened() -> None:
    changes = judged(rows())
    assert changes[0].state is State.HEALTHY
    assert changes[-1].state is State.CRASHED
    assert 40.0 < changes[1].t_seconds <= changes[-1].t_seconds <= 40.6
    assert changes[-1].onset_seconds == pytest.approx(40.0, abs=0.3)
    assert "refused" in changes[-1].because


def test_calls_may_be_up_to_a_minute_out_of_order() -> None:
    told = rows()
    mixed = sorted(
        told, key=lambda row: float(row.split(",")[0]) + random.Random(row).random() * 55
    )
    assert mixed != told
    assert judged(mixed) == judged(told)


def test_a_call_that_comes_too_late_is_left_out_and_counted() -> None:
    replay = Replay()
    for start in (0.0, 100.0, 101.0, 200.0, 5.0):
        replay.add(Record(start, "web", "db", "read", 0.01, 0))  # type: ignore[arg-type]
    assert replay.late == 1


@pytest.mark.parametrize("hole", [31.0, 600.0, 86_400.0])
def test_a_gap_in_the_recording_is_no_evidence_and_no_silence(hole: float) -> None:
    told = rows(ill=30.0, end=30.0)
    told.append("29.9,web,db,read,60.0,answered")  # in flight when the recorder stopped
    for row in rows(seed=2, ill=30.0, end=30.0):
        start, rest = row.split(",", 1)
        told.append(f"{float(start) + 30 + hole:.6f},{rest}")
    states = [one.state for one in judged(told)]
    assert set(states) <= {State.HEALTHY, None}
    assert states.count(None) == 1


def test_a_hang_is_seen_before_its_time_out() -> None:
    told = rows(ill=40.0, end=40.0)
    told += [f"{40 + n / 50},web,db,read,30.0,timeout" for n in range(100)]
    changes = judged(told, Settings(deadline=30.0))
    named = next(one for one in changes if one.state is State.UNRESPONSIVE)
    assert named.t_seconds < 42.0


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("1,a,b,c,0.1", "5 fields"),
        ("x,a,b,c,0.1,answered", "start_seconds"),
        ("nan,a,b,c,0.1,answered", "start_seconds"),
        ("1_0,a,b,c,0.1,answered", "start_seconds"),
        ("1,a,b,c,-0.1,answered", "duration_seconds"),
        ("1,a,b,c,inf,answered", "duration_seconds"),
        ("1,a,b,c,0.1,fine", "none of answered error"),
        ("1,a,,c,0.1,answered", "target is empty"),
        ("1,a,b\x1b[2J,c,0.1,answered", "printable"),
        (f"1,a,{'b' * 300},c,0.1,answered", "200 printable"),
        ("1,a,b,c,0.1,answered,more", "7 fields"),
    ],
)
def test_a_row_that_is_none_says_why(row: str, says: str) -> None:
    told = record(row, 7)
    assert isinstance(told, Problem)
    assert told.line == 7
    assert says in told.because


def test_a_name_may_hold_a_comma() -> None:
    told = record('1,a,b,"get {a,b}",0.1,answered')
    assert isinstance(told, Record)
    assert told.operation == "get {a,b}"


def test_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = rows()
    told[10] = "broken"
    told[20] = "9" * 10_000
    path = tmp_path / "calls.csv.gz"
    path.write_bytes(gzip.compress("\n".join([HEADER, *told]).encode()))
    assert main(["replay", str(path), "--json"]) == 0
    out, error = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[0]["state"] == "HEALTHY"
    assert lines[-1]["state"] == "CRASHED"
    keys = "t_seconds target operation before state kind extent onset_seconds because"
    assert " ".join(lines[1]) == keys
    assert "line 12: it has 1 fields" in error
    assert "line 22: longer than" in error


def test_a_damaged_archive_is_told_and_what_came_before_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "calls"
    path.write_bytes(gzip.compress("\n".join([HEADER, *rows()]).encode())[:-2000])
    assert main(["replay", str(path), "--json"]) == 0
    out, error = capsys.readouterr()
    assert "HEALTHY" in out
    assert "damaged" in error


@pytest.mark.parametrize(
    ("text", "says"), [("", "empty"), ("a,b\n1,2\n", "first line"), (HEADER + "\n", "no call")]
)
def test_a_file_that_is_none_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    path = tmp_path / "calls.csv"
    path.write_text(text, "utf-8")
    assert main(["replay", str(path)]) == 2
    assert says in capsys.readouterr().err
    with pytest.raises(ConfigurationError):
        list(read(tmp_path / "none.csv"))


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("25%+1ms", (0.25, 0.001)),
        ("50%", (0.5, 0.0)),
        ("0.5", (0.5, 0.0)),
        ("5ms", (0.0, 0.005)),
    ],
)
def test_a_dead_band_is_written_as_people_write_it(text: str, band: tuple[float, float]) -> None:
    assert dead_band(text) == pytest.approx(band)


@pytest.mark.parametrize("text", ["x", "%", "x%", "25%+1"])
def test_what_is_no_dead_band(text: str) -> None:
    with pytest.raises(ValueError, match=r"dead band|duration"):
        dead_band(text)
