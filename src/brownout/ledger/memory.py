"""A ledger in this process's memory: for tests, and for what no other process takes part in."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from brownout._core.ledger import SKEW_SECONDS, Seen, Standing, born, drive

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from brownout._core.ledger import Claim, Reply, Row

T = TypeVar("T")

SKEW = int(SKEW_SECONDS * 1000)


class MemoryStore:
    """Rows in a dictionary. `now` is its clock, in seconds since 1970."""

    atomic = False

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self.keep = 0
        self._now = now
        self._rows: dict[tuple[str, str], Row] = {}
        self._collected = 0
        self._lock = threading.Lock()

    def _clock(self) -> int:
        return int(self._now() * 1000)

    def _seen(self, scope: str, key: str, *, mine: bool = False) -> Seen:
        return Seen(self._rows.get((scope, key)), self._clock(), self._collected, 0, mine)

    def create(self) -> None:
        """Nothing is needed."""

    def get(self, scope: str, key: str) -> Generator[Any, Any, Seen]:
        """Read a row."""
        return (yield lambda: self._seen(scope, key))  # type: ignore[no-any-return]

    def put(
        self, row: Row, born: int, *, lease: int, age: int, lost: bool, wait: float
    ) -> Generator[Any, Any, Seen]:
        """Put a row where there is none."""

        def put() -> Seen:
            now = self._clock()
            there = self._rows.get((row.scope, row.key))
            young = now - age <= born <= now + SKEW and born > self._collected
            if there is None and young:
                new = row._replace(lease_until=now + lease if lease else 0, made=now)
                self._rows[row.scope, row.key] = new
                return self._seen(row.scope, row.key, mine=True)
            mine = there is not None and there.fence == row.fence
            return self._seen(row.scope, row.key, mine=mine)

        return (yield put)  # type: ignore[no-any-return]

    def swap(
        self, old: Row, new: Row | None, *, lease: int = 0, steady: bool = False
    ) -> Generator[Any, Any, bool]:
        """Put a row in the place of another."""

        def swap() -> bool:
            there = self._rows.get((old.scope, old.key))
            if there is None or (there.standing, there.fence) != (old.standing, old.fence):
                return False
            if steady and there.lease_until != old.lease_until:
                return False
            if new is None:
                del self._rows[old.scope, old.key]
            else:
                until = self._clock() + lease
                self._rows[old.scope, old.key] = new._replace(lease_until=until, made=there.made)
            return True

        return (yield swap)  # type: ignore[no-any-return]

    def keep_reply(self, claim: Claim, reply: Reply) -> Generator[Any, Any, bool]:
        """No transaction brings rows here."""
        yield from ()
        return False

    def collect(self, horizon: int, most: int) -> Generator[Any, Any, int]:
        """Delete what is done or void, and older than `horizon`."""

        def collect() -> int:
            until = self._clock() - horizon
            ended = {Standing.DONE, Standing.VOID}
            old = [
                at
                for at, row in self._rows.items()
                if row.standing in ended and born(at[1]) < until
            ]
            for at in old[:most]:
                del self._rows[at]
            self._collected = max(self._collected, until - 1)
            return len(old[:most])

        return (yield collect)  # type: ignore[no-any-return]

    def list(self, standing: Standing | None, most: int) -> Generator[Any, Any, Sequence[Row]]:
        """Rows that stand so, the oldest first."""

        def rows() -> list[Row]:
            found = [row for row in self._rows.values() if standing in {None, row.standing}]
            found.sort(key=lambda row: row.key)
            return [row._replace(reply=None) for row in found[:most]]

        return (yield rows)  # type: ignore[no-any-return]

    def run(self, op: Generator[Any, Any, T]) -> T:
        """Carry an operation out."""
        return drive(op, self._answer)

    async def arun(self, op: Generator[Any, Any, T]) -> T:
        """The same: it waits for nothing."""
        return drive(op, self._answer)

    def _answer(self, what: Callable[[], Any]) -> Any:
        with self._lock:
            return what()

    def close(self) -> None:
        """Nothing is held."""
