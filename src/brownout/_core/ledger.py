"""What a ledger decides about a key, what it keeps of it, and what a store has to do.

1. An answer is a fact only if nothing can change it any more.
2. A key is let to run only while it is young, and its row outlives that by the margin.
3. Times are milliseconds since 1970 on the store's own clock. A fence is a number that nobody else has.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from brownout._core.key import born, canonical, child_key, key_before, minted
from brownout._core.standing import (
    TABLE,
    Event,
    HandlerClass,
    Move,
    Says,
    Standing,
    Table,
    look,
)
from brownout._core.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Sequence

__all__ = [
    "MOST_KEPT_BYTES", "MOST_SCOPE_CHARACTERS", "SKEW_SECONDS", "TABLE", "Answer", "Asker", "Claim", "Event",
    "Found", "HandlerClass", "Move", "Reply", "Row", "Rules", "Says", "Seen", "Standing", "Store", "Table",
    "asked", "born", "canonical", "child_key", "drive", "key_before", "look", "minted",
    "requested",
]  # fmt: skip

T = TypeVar("T")

SKEW_SECONDS = 300.0  # how far a caller's clock may be ahead of the store's
MOST_KEPT_BYTES = 65_536
MOST_SCOPE_CHARACTERS = 512


# ------------------------------------------------------------------------------------- what is kept


class Reply(Value):
    """What a handler answered. `whole` is False if the body was too large: it is its SHA-256 then."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    whole: bool = True

    @property
    def pending(self) -> bool:
        """Whether only the fact is there, and the body is still being answered, or was lost."""
        return not self.whole and not self.body

    def kept(self, most_bytes: int = MOST_KEPT_BYTES) -> Reply:
        """As a ledger keeps it: with its body, or with the digest of one that is too large."""
        if len(self.body) <= most_bytes or not self.whole:
            return self
        return Reply(self.status, self.headers, hashlib.sha256(self.body).digest(), whole=False)


class Row(NamedTuple):
    """What a store holds of a key. Without a `handler` it is a tombstone, or what a failover left."""

    scope: str
    key: str
    standing: Standing
    fence: int
    fingerprint: bytes = b""
    handler: HandlerClass | None = None
    lease_until: int = 0
    reply: Reply | None = None
    made: int = 0


class Seen(NamedTuple):
    """A row, or None, with the store's clock; `mine`: it has just been put there by who looks.

    `collected`: keys up to this time may have been collected. `since`: what is older may have been
    forgotten in a failover. `waited`: a transaction that holds the key has not ended.
    """

    row: Row | None
    now: int
    collected: int = 0
    since: int = 0
    mine: bool = False
    waited: bool = False


class Rules(NamedTuple):
    """How long things last, in milliseconds; whether a failover forgets nothing; and the table."""

    horizon: int
    margin: int
    lease: int
    skew: int = int(SKEW_SECONDS * 1000)
    lossless: bool = False
    table: Table = TABLE


def requested(rules: Rules, seen: Seen, born: int, fingerprint: bytes) -> Event:
    """Which event a request for what was `seen` is; `born` is the time of its key."""
    row = seen.row
    if row is None:
        if born < seen.now - rules.horizon or born <= seen.collected:
            return Event.REQUEST_OLD
        lost = born < seen.since and not rules.lossless
        return Event.REQUEST_LOST if lost else Event.REQUEST
    if row.standing is not Standing.VOID and row.handler and row.fingerprint != fingerprint:
        return Event.REQUEST_OTHER
    if row.standing is Standing.RUNNING and row.lease_until <= seen.now:
        return Event.REQUEST_OVER
    return Event.REQUEST


def asked(rules: Rules, seen: Seen, born: int, *, void: bool) -> Event:
    """Which event a question is."""
    row = seen.row
    if row is None:
        if not void:
            return Event.ASK
        if born < seen.now - rules.horizon - rules.margin or born <= seen.collected:
            return Event.VOID_FORGOTTEN
        if born < seen.since and not rules.lossless:
            return Event.VOID_LOST
        return Event.VOID_OLD if born < seen.now - rules.horizon else Event.VOID
    if row.standing is Standing.RUNNING and row.lease_until <= seen.now:
        return Event.VOID_OVER if void else Event.ASK_OVER
    return Event.VOID if void else Event.ASK


# ------------------------------------------------------------------------------- what is handed out


class Answer(NamedTuple):
    """What a question about a key brought: where it stands, and what its handler replied.

    `retry_after` is in seconds. A plain ABSENT proves nothing; ABSENT to an ask-or-void is a key that is
    too old, of which nothing is known any more.
    """

    standing: Standing
    reply: Reply | None = None
    retry_after: float | None = None
    because: str = ""

    @property
    def fact(self) -> bool:
        """Whether nothing will change it any more."""
        return self.standing in {Standing.DONE, Standing.VOID}

    @property
    def pending(self) -> bool:
        """Whether it is done, and what it answered has not been written yet, or was lost."""
        return self.standing is Standing.DONE and (self.reply is None or self.reply.pending)


class Found(NamedTuple):
    """Somebody was first with a key: where it stands. `retry_after` is in seconds."""

    standing: Standing
    reply: Reply | None = None
    retry_after: float | None = None
    because: str = ""

    @property
    def pending(self) -> bool:
        """Whether it is done, and what it answered has not been written yet, or was lost."""
        return self.standing is Standing.DONE and (self.reply is None or self.reply.pending)


class Claim:
    """The permission to run what a key stands for.

    `enlisted` is what `Ledger.enlist` left: the transaction that the row was put into. `over` is set
    when a heartbeat found that somebody else has the key.
    """

    __slots__ = (
        "enlisted", "fence", "fingerprint", "handler", "key", "lease_seconds", "lossless", "over", "scope",
    )  # fmt: skip

    def __init__(
        self,
        scope: str,
        key: str,
        fingerprint: bytes,
        handler: HandlerClass,
        fence: int,
        lease_seconds: float,
        *,
        lossless: bool = False,
    ) -> None:
        self.scope = scope
        self.key = key
        self.fingerprint = fingerprint
        self.handler = handler
        self.fence = fence
        self.lease_seconds = lease_seconds
        self.lossless = lossless
        self.enlisted: Any = None
        self.over = False

    def __repr__(self) -> str:
        return f"Claim({self.scope!r}, {self.key!r}, {self.handler.value})"

    def child(self, step: str) -> str:
        """The key for the call that is `step` of this work: the same one whenever it is run again."""
        return child_key(self.scope, self.key, step)


class Asker(Protocol):
    """Who can be asked what became of a key. `aask`, the same for asyncio, is used where there is one."""

    def ask(self, key: str, *, void: bool, seconds: float) -> Answer:
        """Ask, for at most `seconds`; with `void` see to it that what has not begun never does.

        Raises whatever kept it from asking.
        """
        ...


class Store(Protocol):
    """Where rows are kept: operations of which each is one step for everybody else.

    An operation is a generator of what the store's own `run` and `arun` carry out.
    """

    atomic: bool  # can a row be part of somebody's transaction?
    keep: int  # milliseconds that a row is kept after its end, where the store itself forgets

    def create(self) -> None:
        """Make or migrate what it needs. Raises WrongSchema for what a later version made."""
        ...

    def get(self, scope: str, key: str) -> Generator[Any, Any, Seen]:
        """Read a row, without waiting for anybody."""
        ...

    def put(
        self, row: Row, born: int, *, lease: int, age: int, lost: bool, wait: float
    ) -> Generator[Any, Any, Seen]:
        """Put `row` where there is none, if its key's time `born` is at most `age` before now.

        `lost`: also if it is from before a failover. `lease` is added to the store's clock. Waits up to
        `wait` seconds for a transaction that holds the key.
        """
        ...

    def swap(
        self, old: Row, new: Row | None, *, lease: int = 0, steady: bool = False
    ) -> Generator[Any, Any, bool]:
        """Put `new` (None: nothing) in the place of a row that stands as `old` does, with its fence.

        `steady`: only if its lease is the same, too.
        """
        ...

    def keep_reply(self, claim: Claim, reply: Reply) -> Generator[Any, Any, bool]:
        """Add a reply to the row that came with an atomic handler's commit; False: there is none."""
        ...

    def collect(self, horizon: int, most: int) -> Generator[Any, Any, int]:
        """Delete rows DONE and VOID of keys older than `horizon`, at most so many; tell how many."""
        ...

    def list(self, standing: Standing | None, most: int) -> Generator[Any, Any, Sequence[Row]]:
        """Rows that stand so, the oldest first, without their replies."""
        ...

    def run(self, op: Generator[Any, Any, T]) -> T:
        """Carry an operation out. Raises LedgerUnavailable."""
        ...

    def arun(self, op: Generator[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """The same, for asyncio."""
        ...

    def close(self) -> None:
        """Let go of connections and threads."""
        ...


def drive(op: Generator[Any, Any, T], answer: Callable[[Any], Any], first: Any = None) -> T:
    """Carry an operation out: whatever it asks for, `answer` tells; what that raises, it gets to see.

    `first` is what it has asked for already.
    """
    try:
        wanted = next(op) if first is None else first
        while True:
            try:
                told = answer(wanted)
            except Exception as error:
                wanted = op.throw(error)
            else:
                wanted = op.send(told)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
