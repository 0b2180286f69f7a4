"""What callers see of faults of HTTP: the table of docs/reference/faults.md, played row by row.

In each of the three forms, by each of four clients, over real sockets.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from brownout import fault as faults

if TYPE_CHECKING:
    from tests.faults.http.conftest import Caller

PAGE = Path(__file__).parents[3] / "docs/reference/faults.md"
ROW = re.compile(r"^\| `(\w+\(.*?\))` \| `(.*?)`(.*?) \| (.*) \|$", re.MULTILINE)
EXECUTED = {"no": 0, "yes": 1, "twice": 2}
IMPATIENT_SECONDS = 0.3


def rows() -> list[Any]:
    section = PAGE.read_text("utf-8").partition("## HTTP")[2].partition("\n## ")[0]
    return [pytest.param(*row, id=row[0]) for row in ROW.findall(section)]


def test_the_table_has_every_kind() -> None:
    from brownout.fault.http.plan import MAKES

    named = {str(each.values[0]).partition("(")[0] for each in rows()}
    assert named == {kind.__name__ for kind in MAKES}


@pytest.mark.parametrize(("row", "seen", "more", "executed"), rows())
def test_callers_see(callers: list[Caller], row: str, seen: str, more: str, executed: str) -> None:
    fault = eval(row, vars(faults))
    seconds = IMPATIENT_SECONDS if seen.startswith("ReadTimeout") else 10.0
    late = re.search(r"after ([\d.]+) s", more)

    def called(caller: Caller) -> None:
        began = time.monotonic()
        got = caller.saw(method="POST", path="/pay", content=b"card", seconds=seconds)
        assert got.startswith(seen), (caller.library.__name__, got)
        if late:
            assert time.monotonic() - began >= float(late[1])

    places = {id(each.place): each.place for each in callers}.values()
    with ExitStack() as made, ThreadPoolExecutor(len(callers)) as threads:
        for place in places:
            made.enter_context(place.make(fault))
        list(threads.map(called, callers))
    shop, wanted = callers[0].shop, len(callers) * EXECUTED[re.split("[,:]", executed)[0]]
    assert shop.until(lambda: len(shop.executed) >= wanted)
    assert shop.executed == [b"card"] * wanted
    assert [each.saw() for each in callers] == ["200"] * len(callers)  # undone
