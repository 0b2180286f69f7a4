"""That the bench of the ledger measures what it says, on a few turns; its figures are nobody's here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import ledger

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_each_line_stands_beside_the_first_of_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "WARM", 1)
    lines = ledger.on_sqlite(tmp_path, 3)
    assert lines[0].ratio == 1.0
    assert len({line.name for line in lines}) == 6
    assert all(line.microseconds > 0 for line in lines)


def test_all_that_was_kept_is_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "KEPT", 50)
    assert all(value > 0 for value in ledger.kept(tmp_path).values())
