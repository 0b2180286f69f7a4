"""The ledger's table holds in every order of events, and none of its rules can be left out."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from brownout._core.ledger import TABLE, Event, HandlerClass, Move, Says, Standing, look
from tests.models.ledger import ATOMIC, OPAQUE, RESUMABLE, Model, Verdict, explore

A, R, D, V, Q = (
    Standing.ABSENT, Standing.RUNNING, Standing.DONE, Standing.VOID, Standing.DOUBT,
)  # fmt: skip
Changes = dict[tuple[Standing, Event], Move | Mapping[HandlerClass, Move]]


def verdict(model: Model) -> Verdict:
    found = explore(model)
    assert not found.broken, f"{found.broken}: {' | '.join(found.path)}"
    return found


def test_atomic_holds_and_always_ends_in_a_fact() -> None:
    found = verdict(Model(ATOMIC))
    assert found.states > 5_000
    assert set(found.rest) == {"fact", "too old"}


def test_atomic_holds_over_a_failover() -> None:
    assert set(verdict(Model(ATOMIC, failover=True)).rest) == {"fact", "too old", "doubt"}


@pytest.mark.timeout(120)
def test_resumable_holds_and_is_never_in_doubt() -> None:
    """With replies that tell who gave them; downstream it is done once."""
    found = verdict(Model(RESUMABLE, local=True))
    assert found.states > 20_000
    assert set(found.rest) == {"fact", "too old", "goes on"}


@pytest.mark.timeout(120)
def test_resumable_holds_over_a_failover() -> None:
    verdict(Model(RESUMABLE, failover=True))


@pytest.mark.timeout(120)
def test_opaque_holds_or_is_in_doubt() -> None:
    found = verdict(Model(OPAQUE, failover=True))
    assert set(found.rest) == {"fact", "too old", "doubt"}


MUTANTS: dict[str, tuple[str, Model, Changes]] = {
    "void only what is absent: opaque": (
        "I4", Model(OPAQUE), {(R, Event.VOID_OVER): Move(V, Says.NEVER)}),
    "void only what is absent: resumable": (
        "I4", Model(RESUMABLE), {(R, Event.VOID_OVER): Move(V, Says.NEVER)}),
    "a running lease is not voided": (
        "I4", Model(OPAQUE), {(R, Event.VOID): Move(V, Says.NEVER)}),
    "a status read is no failure: atomic": (
        "I4", Model(ATOMIC, without=frozenset({"ask is no answer"})), {}),
    "a status read is no failure: resumable": (
        "I4", Model(RESUMABLE, without=frozenset({"ask is no answer"})), {}),
    "a void leaves a tombstone": ("I4", Model(ATOMIC), {(A, Event.VOID): Move(A, Says.NEVER)}),
    "a void leaves a tombstone past the horizon": (
        "I4", Model(ATOMIC), {(A, Event.VOID_OLD): Move(A, Says.NEVER)}),
    "what is too old is not called void": (
        "I4", Model(OPAQUE), {(A, Event.VOID_FORGOTTEN): Move(V, Says.NEVER)}),
    "the horizon is checked before it starts: atomic": (
        "I4", Model(ATOMIC), {(A, Event.REQUEST_OLD): TABLE[A, Event.REQUEST]}),
    "the horizon is checked before it starts: opaque": (
        "I", Model(OPAQUE), {(A, Event.REQUEST_OLD): TABLE[A, Event.REQUEST]}),
    "what is kept outlives the horizon by the margin": (
        "I", Model(ATOMIC, without=frozenset({"collect after the margin"})), {}),
    "the margin is above the longest transaction": (
        "I4", Model(ATOMIC, without=frozenset({"margin above transactions"})), {}),
    "business write and row are one commit": (
        "I4", Model(ATOMIC, without=frozenset({"one commit"})), {}),
    "the primary key decides at the commit": (
        "I1", Model(ATOMIC), {(D, Event.COMMIT): Move(D, Says.KEPT)}),
    "a claim is one step": ("I1", Model(OPAQUE, without=frozenset({"one step"})), {}),
    "an opaque handler is never run again": (
        "I1", Model(OPAQUE), {(R, Event.REQUEST_OVER): Move(R, Says.RUN)}),
    "no row is deleted because of an exception": (
        "I4", Model(OPAQUE), {(R, Event.RAISE): Move(A, Says.KEPT)}),
    "no other row is deleted by NoEffect": (
        "I", Model(RESUMABLE), {(R, Event.NO_EFFECT): Move(A, Says.KEPT)}),
    "a probe is no fact while an owner may live": (
        "I4", Model(OPAQUE, without=frozenset({"a probe is no fact"})), {}),
    "child keys go downstream": ("I1", Model(RESUMABLE, without=frozenset({"child keys"})), {}),
    "a late owner is refused": (
        "I2", Model(RESUMABLE, local=True), {
            (R, Event.COMPLETE_LATE): Move(D, Says.KEPT), (D, Event.COMPLETE_LATE): Move(D, Says.KEPT)}),
    "what is done is not run again": (
        "I1", Model(OPAQUE), {(D, Event.REQUEST): Move(R, Says.RUN)}),
    "what is void is not run": ("I4", Model(OPAQUE), {(V, Event.REQUEST): Move(R, Says.RUN)}),
    "what is in doubt is not run": ("I1", Model(OPAQUE), {(Q, Event.REQUEST): Move(R, Says.RUN)}),
    "what is in doubt is not voided": (
        "I4", Model(OPAQUE), {(Q, Event.VOID): Move(V, Says.NEVER)}),
    "after a failover nothing old starts: opaque": (
        "I", Model(OPAQUE, failover=True), {(A, Event.REQUEST_LOST): TABLE[A, Event.REQUEST]}),
    "after a failover nothing old starts: resumable": (
        "I4", Model(RESUMABLE, failover=True), {(A, Event.REQUEST_LOST): TABLE[A, Event.REQUEST]}),
    "after a failover absent is no fact": (
        "I4", Model(OPAQUE, failover=True), {(A, Event.VOID_LOST): Move(V, Says.NEVER)}),
    "after a failover an older transaction is refused": (
        "I4", Model(ATOMIC, failover=True, without=frozenset({"failovers end transactions"})), {}),
}  # fmt: skip


# what may happen only once a rule is left out
AFTER: Changes = {(V, Event.COMPLETE): Move(V, Says.FENCED)}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_that_is_left_out_breaks_a_promise(name: str) -> None:
    breaks, model, changes = MUTANTS[name]
    found = explore(model._replace(table={**TABLE, **AFTER, **changes}))
    assert found.broken.startswith(breaks), found
    assert found.path


def test_the_late_truth_of_an_opaque_handler_is_precision_and_not_safety() -> None:
    """Noted as what it is: without it nothing breaks, and what was in doubt stays so."""
    verdict(Model(OPAQUE, {**TABLE, (Q, Event.COMPLETE): Move(Q, Says.FENCED)}))


def test_what_ended_never_changes() -> None:
    for (standing, event), found in TABLE.items():
        for move in [found] if isinstance(found, Move) else found.values():
            if standing in {D, V} and event is not Event.COLLECT:
                assert move.to is standing
            if move.says is Says.RUN:
                assert (standing, event) in {(A, Event.REQUEST), (R, Event.REQUEST_OVER)}


def test_what_the_table_does_not_hold_can_not_happen() -> None:
    with pytest.raises(KeyError):
        look(D, Event.NO_EFFECT, OPAQUE)
    with pytest.raises(KeyError):
        look(R, Event.REQUEST_OVER, ATOMIC)
