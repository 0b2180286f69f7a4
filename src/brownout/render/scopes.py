"""Who suffers from which target, as it changes: what `watch` tells beside the changes of states."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from brownout._core.view import blame_sentence, scope_sentence
from brownout.render.cells import PLAIN, Style, fit, plain
from brownout.render.json import blame, scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brownout._core.view import Row

__all__ = ["Scopes", "as_json", "line"]


class Scopes:
    """What was told last of each target that is ill."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, ...]] = {}

    @property
    def open(self) -> bool:
        """Whether some target is ill: who suffers may be decided, or change, at any time."""
        return bool(self._known)

    def look(self, rows: Sequence[Row]) -> list[Row]:
        """Those of which it is known by now who suffers, or what is to blame, and was not before."""
        ill = [row for row in rows if row.ill]
        now = {row.target: _gist(row) for row in ill}
        news = [
            row
            for row in ill
            if any(now[row.target]) and now[row.target] != self._known.get(row.target)
        ]
        self._known = now
        return news


def _gist(row: Row) -> tuple[object, ...]:
    alone = row.scope.observers if row.scope.kind == "observer" else ()
    return row.scope.kind, row.scope.zones, alone, row.blame, bool(row.strained)


def line(row: Row, at: float, *, style: Style = PLAIN) -> str:
    """Who suffers, and what is to blame, as one line."""
    clock = time.strftime("%H:%M:%S", time.localtime(at))
    told = [scope_sentence(row) if row.scope.kind else "", blame_sentence(row)]
    text = "; ".join(sentence for sentence in told if sentence)
    return plain(f"{clock} {fit(row.target, 16)} {'scope':16}  {text}", style)


def as_json(row: Row, at: float) -> dict[str, Any]:
    """The same: `at target scope blame`; the last two as in `brownout explain --json`."""
    return {"at": at, "target": row.target, "scope": scope(row), "blame": blame(row)}
