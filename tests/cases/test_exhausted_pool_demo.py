"""The demo itself, for real, as far as a test has time for it; and what it says when it can't be played."""

import importlib.util
import io
import json
from pathlib import Path

import pytest

from brownout.cases.exhausted_pool import demo
from brownout.cases.exhausted_pool.schedule import PHASES

pytestmark = pytest.mark.alone


def test_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert demo(faults=True, json_path=None, out=io.StringIO(), live=False) == 2
    said = capsys.readouterr().err
    assert (
        said == 'brownout demo: the demo needs httpx2 and uvicorn: pip install "brownout[demo]"\n'
    )


def test_it_refuses_a_file_that_cannot_be_written_before_it_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("uvicorn")
    pytest.importorskip("httpx2")
    path = str(tmp_path / "nowhere" / "run.json")
    assert demo(faults=True, json_path=path, out=io.StringIO(), live=False) == 2
    assert "can't be written" in capsys.readouterr().err


def test_the_exhausted_pool_is_seen_named_and_survived(tmp_path: Path) -> None:
    """The case alone, 25 s: two chains of real processes, one of which does without brownout."""
    pytest.importorskip("uvicorn")
    pytest.importorskip("httpx2")
    out = io.StringIO()
    path = tmp_path / "run.json"
    code = demo(faults=True, json_path=str(path), out=out, live=False, phases=PHASES[:1])
    assert code == 0, out.getvalue()
    told = json.loads(path.read_text("utf-8"))
    assert told["held"] is True
    assert [found["target"] for found in told["detections"]] == ["shop", "downstream"]
    assert told["calls"]["exhausted-pool"]["without"]["served"] < 0.9
    assert told["health_checks"]["without"]["asked"] == told["health_checks"]["without"]["ok"]
    assert "expectations hold" in out.getvalue()
    assert "H → D ◐ DEGRADED ≠" in out.getvalue()
