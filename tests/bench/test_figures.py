"""Every figure of the bench is measured: finite, above zero, and on the page; what isn't is named."""

from __future__ import annotations

import asyncio
import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from bench import __main__ as bench
from bench import peers
from bench.cost import GUARDED, TIMEOUT, full, own
from bench.figures import with_figures
from bench.peers import Peer
from brownout import remaining

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OWN_CASES = 17
BROKEN = Peer("broken", ("pytest",), lambda fn: None)
WRONG = Peer("wrong", ("pytest",), lambda fn: lambda x: 2 * x)
ABSENT = Peer("absent", ("no-such-package-anywhere",), lambda fn: fn)


def guarded(fn: Any) -> Any:
    return full("peer")(fn)


GUARD = Peer("a guard", ("pytest",), guarded)


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def test_one_round_measures_everything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "SYNC", [GUARD, BROKEN, ABSENT])
    monkeypatch.setattr(peers, "ASYNC", [GUARD])
    bench.main(["--rounds", "1", "--seconds", "0.0005", "--many", "8", "--json"])
    out, err = capsys.readouterr()
    figures: dict[str, Any] = json.loads(out)
    rows = figures["rows"]
    assert len(rows) == OWN_CASES + 2
    assert len({(row["name"], row["colour"]) for row in rows}) == len(rows)
    measured = {f"{row['colour']} {row['name']}": row["us"] for row in rows}
    measured.update(figures["bytes"])
    measured["import"] = figures["import_of_asyncio"]
    wrong = {name: value for name, value in measured.items() if not 0 < value < math.inf}
    assert wrong == {}
    assert all(math.isfinite(row["of_timeout"]) for row in rows)
    assert set(figures["bytes_of_peers"]) == {"a guard, async"}
    assert "absent, sync" in figures["missing"]
    assert figures["missing"]["absent, sync"] == "no-such-package-anywhere is not installed"
    assert "NOT MEASURED: broken, sync: it does not work here" in err


def test_the_page_has_every_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "SYNC", [ABSENT])
    monkeypatch.setattr(peers, "ASYNC", [])
    figures = bench.run(1, 0.0002, 4)
    page = f"before\n\n{bench.BEGIN}\nold\n{bench.END}\nafter\n"
    new = with_figures(page, figures, bench.BEGIN, bench.END)
    assert new.startswith(f"before\n\n{bench.BEGIN}\n")
    assert new.endswith(f"{bench.END}\nafter\n")
    assert "old" not in new
    for name in [GUARDED, TIMEOUT, "refusal: breaker open", *figures.bytes]:
        assert f"| {name} |" in new
    assert "| absent, sync | no-such-package-anywhere is not installed |" in new
    with pytest.raises(ValueError, match="the page needs a line"):
        with_figures("before\nafter\n", figures, bench.BEGIN, bench.END)


def test_the_cases_leave_no_deadline_behind() -> None:
    own()
    assert remaining() == math.inf


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (GUARD, ""),
        (ABSENT, "no-such-package-anywhere is not installed"),
        (BROKEN, "it does not work here: TypeError: 'NoneType' object is not callable"),
        (WRONG, "it does not work here: 1 became 2"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_peer_that_does_not_work_is_not_measured(
    peer: Peer, reason: str, loop: asyncio.Runner
) -> None:
    assert peers.working(peer, loop, is_async=False) == reason


@pytest.mark.filterwarnings("default")  # they are others'
def test_every_peer_works_or_is_told_not_to_be_installed(loop: asyncio.Runner) -> None:
    works, missing, _ = peers.found(loop)  # `make bench` installs them
    reasons = [one.reason for one in missing]
    assert [reason for reason in reasons if "does not work" in reason] == []
    assert len(works) + len(missing) == len(peers.ASYNC + peers.SYNC + peers.ONE_COLOUR)
