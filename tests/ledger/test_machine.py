"""The real stores, driven by Hypothesis over a clock of the test's; and rules left out, which must show.

Requests, owners that pause, crash, raise and come back, questions, voids, the passing of time and
collection, in any order. What is counted is what happened; each answer is held against it.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from brownout._core.ledger import TABLE, Event, HandlerClass, Move, Says, Standing, minted
from brownout.errors import AlreadyTaken, InDoubt, KeyTooOld, OtherPayload, StillRunning, Voided
from brownout.ledger import Answer, Claim, Found, Ledger, Reply
from tests.ledger.conftest import HORIZON, KINDS, LEASE, MARGIN, Now, make_store
from tests.proof.killed import RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from hypothesis.stateful import RuleBasedStateMachine as Machine

ATOMIC, RESUMABLE, OPAQUE = HandlerClass.ATOMIC, HandlerClass.RESUMABLE, HandlerClass.OPAQUE
CLASSES = [ATOMIC, RESUMABLE, OPAQUE]
HOW = ["act", "act", "act", "end", "end", "raise", "none", "crash", "renew"]
PICK = st.integers(0, 1_000)


class Work:
    """One key: what happened to it, and what was told of it."""

    def __init__(self, key: str, handler: HandlerClass) -> None:
        self.key = key
        self.handler = handler
        self.effects = 0
        self.values: set[bytes] = set()
        self.void = False
        self.owners: list[tuple[Claim, bool]] = []  # with whether its effect is done

    def check(self) -> None:
        assert self.effects <= 1, "I1: the effect happened twice"
        assert len(self.values) <= 1, "I2: two results"
        assert not self.values or self.effects == 1, "I3: told that it is done, and it is not"
        assert not (self.void and self.effects), "I4: told never, and it happened"
        assert not (self.void and self.values), "I5: told both"

    def told(self, standing: Standing, reply: Reply | None) -> None:
        if standing is Standing.DONE:
            self.values.add(reply.body if reply else b"?")
        elif standing is Standing.VOID:
            self.void = True
        assert standing is not Standing.DOUBT or self.handler is OPAQUE, "doubt, and not opaque"
        self.check()


class Keys(RuleBasedStateMachine):
    """Its ledger, clock and transactions are set by whoever runs it."""

    ledger: Ledger
    clock: Now
    transaction: Callable[[], Any] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.works: list[Work] = []
        self.runs = 0

    def some(self, pick: int) -> Work:
        return self.works[-1 - pick % min(3, len(self.works))]

    @rule(handler=st.sampled_from(CLASSES), age=st.sampled_from([0.0, 1.0, HORIZON - 1]))
    def new(self, handler: HandlerClass, age: float) -> None:
        if handler is ATOMIC and self.transaction is None:
            handler = OPAQUE
        key = minted(int((self.clock() - age) * 1000), os.urandom(10))
        self.works.append(Work(key, handler))

    @precondition(lambda self: self.works)
    @rule(pick=PICK)
    def request(self, pick: int) -> None:
        work = self.some(pick)
        with contextlib.suppress(KeyTooOld):
            found = self.ledger.claim(work.key, b"payload", work.handler)
            if isinstance(found, Claim):
                work.owners.append((found, False))
            else:
                work.told(found.standing, found.reply)

    @precondition(lambda self: self.works)
    @rule(pick=PICK)
    def request_with_another_payload(self, pick: int) -> None:
        work = self.some(pick)
        try:
            found = self.ledger.claim(work.key, b"other", work.handler)
        except (OtherPayload, KeyTooOld):
            return
        if isinstance(found, Found):
            assert found.standing is Standing.VOID
            work.told(found.standing, found.reply)
        else:  # it is the first one: that is its payload then
            self.works.remove(work)

    @precondition(lambda self: any(work.owners for work in self.works))
    @rule(
        pick=PICK,
        how=st.sampled_from(["act", "act", "end", "end", "end", "raise", "none", "crash", "renew"]),
    )
    def owner(self, pick: int, how: str) -> None:
        works = [work for work in self.works if work.owners]
        work = works[pick % len(works)]
        claim, acted = work.owners.pop(pick // 7 % len(work.owners))
        if how == "renew":
            self.ledger.renew(claim)
        elif work.handler is ATOMIC:
            if how in {"act", "end"}:
                self.commit(work, claim)
            return
        elif how == "raise":
            self.ledger.doubt(claim)
            return
        elif how == "crash":
            return
        elif how == "none":
            if not acted:
                self.ledger.release(claim)
                return
        elif not acted:  # it acts before it ends
            work.effects += 1 if work.handler is OPAQUE or not work.effects else 0
            work.check()
            acted = True
        elif how == "end":
            self.complete(work, claim)
            return
        work.owners.append((claim, acted))

    def commit(self, work: Work, claim: Claim) -> None:
        assert self.transaction is not None
        try:
            with self.transaction() as connection, self.ledger.running(claim):
                self.ledger.enlist(connection)
        except AlreadyTaken:
            return
        work.effects += 1
        self.complete(work, claim)

    def complete(self, work: Work, claim: Claim) -> None:
        self.runs += 1
        try:
            reply = self.ledger.complete(claim, Reply(200, (), b"%d" % self.runs))
        except (StillRunning, InDoubt):
            return
        except Voided:
            work.told(Standing.VOID, None)
        else:
            work.told(Standing.DONE, reply)

    @precondition(lambda self: self.works)
    @rule(pick=PICK, void=st.booleans())
    def ask(self, pick: int, void: bool) -> None:
        work = self.some(pick)
        answer: Answer = self.ledger.ask(work.key, void=void)
        work.told(answer.standing, answer.reply)

    @rule(seconds=st.sampled_from([LEASE / 3, LEASE, LEASE, HORIZON, MARGIN]))
    def wait(self, seconds: float) -> None:
        self.clock.seconds += seconds

    @rule()
    def collect(self) -> None:
        self.ledger.collect()


def run(machine: type[Machine], *, examples: int, steps: int = 40) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],  # a failure is to be seen; to shrink it takes minutes
            suppress_health_check=[*HealthCheck],
        ),
    )


@contextlib.contextmanager
def committing(connection: Any) -> Iterator[Any]:
    try:
        yield connection
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def walk(machine: Keys, steps: int) -> None:
    """The same rules by chance alone: a hundred thousand steps take no longer than Hypothesis' hundred."""
    chance = random.Random(7)
    for _ in range(steps):
        pick = chance.randrange(1_000)
        what = chance.choice(
            ["new", "request", "request", "owner", "owner", "owner", "ask", "wait"]
        )
        if what == "new" and (not machine.works or chance.random() < 0.3):
            machine.new(chance.choice(CLASSES), 0.0)
        elif what == "request" and machine.works:
            machine.request(pick)
        elif what == "owner" and any(work.owners for work in machine.works[-3:]):
            machine.works = machine.works[-3:]
            machine.owner(pick, chance.choice(HOW))
        elif what == "ask" and machine.works:
            machine.ask(pick, chance.random() < 0.5)
        elif what == "wait" and chance.random() < 0.3:
            machine.wait(LEASE)


def machine_for(
    ledger: Ledger, now: Now, transaction: Callable[[], Any] | None = None
) -> type[Keys]:
    class Driven(Keys):
        pass

    Driven.ledger, Driven.clock = ledger, now
    if transaction is not None:
        Driven.transaction = staticmethod(transaction)
    return Driven


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(120)
def test_any_order_of_events(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, now: Now
) -> None:
    store = make_store(kind, request, tmp_path, now)
    now.seconds -= 10 * HORIZON
    store.create()
    now.seconds += 10 * HORIZON
    ledger = Ledger(store, horizon_seconds=HORIZON, margin_seconds=MARGIN, lease_seconds=LEASE)
    transaction = None
    with contextlib.ExitStack() as stack:
        if kind == "sqlite":
            lite = sqlite3.connect(tmp_path / "ledger.db")
            stack.callback(lite.close)
            transaction = partial(committing, lite)
        elif kind == "postgres":
            server = stack.enter_context(psycopg.connect(request.getfixturevalue("postgres").url))
            transaction = partial(committing, server)
        run(machine_for(ledger, now, transaction), examples=25)
    store.close()


A, R, D, V, Q = (
    Standing.ABSENT, Standing.RUNNING, Standing.DONE, Standing.VOID, Standing.DOUBT,
)  # fmt: skip
MUTANTS: dict[str, Mapping[tuple[Standing, Event], Any]] = {
    **{name: changes for name, changes in RULES.items() if changes},
    "a running lease is not voided": {
        (R, Event.VOID): Move(V, Says.NEVER), (V, Event.COMPLETE): Move(V, Says.FENCED)},
    "a void leaves a tombstone": {(A, Event.VOID): Move(A, Says.NEVER)},
    "what is void is not run": {(V, Event.REQUEST): Move(R, Says.RUN)},
    "what is in doubt is not run": {(Q, Event.REQUEST): Move(R, Says.RUN)},
    "what is in doubt is not voided": {
        (Q, Event.VOID): Move(V, Says.NEVER), (V, Event.COMPLETE): Move(V, Says.FENCED)},
    "what is done is not run again": {(D, Event.REQUEST): Move(R, Says.RUN)},
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.timeout(120)
def test_a_rule_that_is_left_out_of_the_real_thing_shows(name: str, now: Now) -> None:
    ledger = Ledger("memory:", horizon_seconds=HORIZON, margin_seconds=MARGIN, lease_seconds=LEASE)
    ledger.store._now = now  # type: ignore[attr-defined]
    ledger._rules = ledger._rules._replace(table={**TABLE, **MUTANTS[name]})
    with pytest.raises(AssertionError, match=r"I\d: |doubt, and"):
        walk(machine_for(ledger, now)(), 100_000)


def test_a_long_walk(now: Now) -> None:
    ledger = Ledger("memory:", horizon_seconds=HORIZON, margin_seconds=MARGIN, lease_seconds=LEASE)
    ledger.store._now = now  # type: ignore[attr-defined]
    walk(machine_for(ledger, now)(), 20_000)
