"""One key's life, exhaustively: who may send, run, crash, pause and ask, in every order.

A network that loses, doubles and reorders; two attempts, a double of the first and one ask-or-void; three
workers that pause and crash anywhere; leases that are over at any moment; a key that ages; collection;
a failover that forgets. What the ledger does is looked up in its own table, by its own functions: the
proof is about them. A rule that is switched off must break something, else it is none.
"""

from __future__ import annotations

from collections import deque
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from brownout._core.ledger import (
    TABLE,
    Event,
    HandlerClass,
    Move,
    Row,
    Rules,
    Says,
    Seen,
    Standing,
    asked,
    look,
    requested,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from brownout._core.ledger import Table

BORN, HORIZON, MARGIN = 1000, 10, 10
CLOCKS = (BORN + 5, BORN + 15, BORN + 25)  # young; refused; may be collected
ATOMIC, RESUMABLE, OPAQUE = HandlerClass.ATOMIC, HandlerClass.RESUMABLE, HandlerClass.OPAQUE

Worker = tuple[str, int, int]  # where it is, its fence, the result that it has


class State(NamedTuple):
    """All there is. Slots of messages: attempt 1, attempt 2, a double of attempt 1, ask-or-void."""

    sent: str  # of each slot: '-' not yet, 'f' in flight, 'x' gone
    workers: tuple[Worker, Worker, Worker]
    row: tuple[Standing, int, int] | None  # with its fence and result
    effects: int
    result: int  # whose effect is in force
    client: str  # idle wait unknown done gone
    told: frozenset[int]  # results that the client was ever given
    failed: bool  # the client was ever told that it never happened and never will
    age: int
    lost: bool  # a failover has forgotten the row


START = State("----", (("-", 0, 0),) * 3, None, 0, 0, "idle", frozenset(), False, 0, False)


class Model(NamedTuple):
    """The rules of a run: the table, and what around it is switched off."""

    handler: HandlerClass
    table: Table = TABLE
    without: frozenset[str] = frozenset()
    local: bool = False  # the reply tells whose run it was
    failover: bool = False


class Verdict(NamedTuple):
    states: int
    broken: str
    path: tuple[str, ...]
    rest: dict[str, int]  # what one more question brings, when nobody is at work any more


def put(slots: str, at: int, what: str) -> str:
    return slots[:at] + what + slots[at + 1 :]


@cache
def event(standing: Standing | None, age: int, over: bool, lost: bool, kind: str) -> Event:
    """Which event it is, by the ledger's own judgement of what is seen."""
    now = CLOCKS[age]
    row = None
    if standing is not None:
        row = Row("", "", standing, 1, b"", OPAQUE, now if over else now + 1)
    seen = Seen(row, now, since=BORN + 1 if lost else 0)
    rules = Rules(HORIZON, MARGIN, 1)
    if kind == "request":
        return requested(rules, seen, BORN, b"")
    return asked(rules, seen, BORN, void=kind == "void")


def told(state: State, move: Move, result: int) -> Iterator[tuple[str, State]]:
    """An answer arrives, or is lost. Who has decided still listens, so that lies come out."""
    yield "answer lost", state
    if move.says in {Says.VALUE, Says.KEPT}:
        client = state.client if state.client == "gone" else "done"
        yield "answer", state._replace(client=client, told=state.told | {result})
    elif move.says is Says.NEVER:
        client = state.client if state.client == "done" else "gone"
        yield "answer", state._replace(client=client, failed=True)
    elif state.client == "wait":
        yield "answer", state._replace(client="unknown")


def leases(state: State) -> tuple[bool, ...]:
    """A lease may be over, or not yet."""
    return (False, True) if state.row and state.row[0] is Standing.RUNNING else (False,)


def standing_of(state: State) -> Standing:
    return state.row[0] if state.row else Standing.ABSENT


def successors(model: Model, state: State) -> Iterator[tuple[str, State]]:
    yield from _client(state)
    yield from _network(state)
    yield from _time(model, state)
    if state.sent[3] == "f":
        yield from _asked(model, state._replace(sent=put(state.sent, 3, "x")))
    for at, worker in enumerate(state.workers):
        yield from _worker(model, state, at, worker)


def _client(state: State) -> Iterator[tuple[str, State]]:
    if state.client == "idle":
        yield "send", state._replace(client="wait", sent=put(state.sent, 0, "f"))
    if state.client == "wait":
        yield "time-out", state._replace(client="unknown")
    if state.client == "unknown" and state.sent[1] == "-":
        yield "retry", state._replace(client="wait", sent=put(state.sent, 1, "f"))
    if state.client in {"unknown", "wait"} and state.sent[3] == "-" and state.sent[0] != "-":
        yield "ask-or-void", state._replace(sent=put(state.sent, 3, "f"))


def _network(state: State) -> Iterator[tuple[str, State]]:
    for slot in range(4):
        if state.sent[slot] == "f":
            yield f"lose {slot}", state._replace(sent=put(state.sent, slot, "x"))
    if state.sent[0] == "f" and state.sent[2] == "-":
        yield "double", state._replace(sent=put(state.sent, 2, "f"))
    for slot in range(3):
        if state.sent[slot] == "f" and state.workers[slot][0] == "-":
            yield (
                f"deliver {slot}",
                _at(state._replace(sent=put(state.sent, slot, "x")), slot, ("got", 0, 0)),
            )


def _time(model: Model, state: State) -> Iterator[tuple[str, State]]:
    held = state.age == 1 and any(worker[0] == "transaction" for worker in state.workers)
    if state.age < 2 and (not held or "margin above transactions" in model.without):
        yield "age", state._replace(age=state.age + 1)
    if (standing_of(state), Event.COLLECT) in model.table and (
        state.age == 2 or "collect after the margin" in model.without
    ):
        yield "collect", state._replace(row=None)
    # what is atomic is lost together with its effect; a tombstone has none
    forgets = model.handler is not ATOMIC or standing_of(state) is Standing.VOID
    if model.failover and state.row and forgets and not state.lost:
        yield "failover", state._replace(row=None, lost=True)


def _asked(model: Model, state: State) -> Iterator[tuple[str, State]]:
    if (
        state.row is None and "ask is no answer" in model.without
    ):  # "no such key", as if it were a fact
        yield from told(state, Move(Standing.ABSENT, Says.NEVER), 0)
        return
    for over in leases(state):
        row = state.row
        what = event(row[0] if row else None, state.age, over, state.lost, "void")
        move = look(standing_of(state), what, model.handler, model.table)
        after = state
        if move.to is not standing_of(state):
            after = state._replace(row=(move.to, row[1] if row else 0, row[2] if row else 0))
        for name, last in told(after, move, row[2] if row else 0):
            yield f"{what.value}: {name}", last
    if "a probe is no fact" in model.without and standing_of(state) is Standing.DOUBT:
        assert state.row is not None
        says = Says.VALUE if state.effects else Says.NEVER
        to = Standing.DONE if state.effects else Standing.VOID
        after = state._replace(row=(to, state.row[1], state.result))
        for name, last in told(after, Move(to, says), state.result):
            yield f"probe: {name}", last


def _at(state: State, at: int, worker: Worker) -> State:
    workers = (*state.workers[:at], worker, *state.workers[at + 1 :])
    return state._replace(workers=workers)  # type: ignore[arg-type]


DONE: Worker = ("done", 0, 0)


def _worker(model: Model, state: State, at: int, worker: Worker) -> Iterator[tuple[str, State]]:
    where, fence, result = worker
    if where in {"-", "done"}:
        return
    yield f"worker {at} crashes", _at(state, at, DONE)
    steps: dict[str, Callable[[], Iterator[tuple[str, State]]]] = {
        "got": lambda: _starts(model, state, at),
        "transaction": lambda: _commits(model, state, at),
        "business": lambda: _writes_late(state, at, result),
        "claimed": lambda: _acts(model, state, at, fence),
        "acted": lambda: _completes(model, state, at, fence, result),
    }
    for name, after in steps[where]():
        yield f"worker {at}: {name}", after


def _starts(model: Model, state: State, at: int) -> Iterator[tuple[str, State]]:
    if "one step" in model.without and standing_of(state) is Standing.RUNNING:
        claim = (Standing.RUNNING, at + 1, 0)  # it had read before that the key is absent
        yield "claim", _at(state._replace(row=claim), at, ("claimed", at + 1, 0))
    for over in leases(state):
        row = state.row
        what = event(row[0] if row else None, state.age, over, state.lost, "request")
        move = look(standing_of(state), what, model.handler, model.table)
        if move.says is not Says.RUN:
            after = _at(state, at, DONE)
            if move.to is not standing_of(state):
                after = after._replace(row=(move.to, row[1] if row else 0, row[2] if row else 0))
            for name, last in told(after, move, row[2] if row else 0):
                yield f"{what.value}: {name}", last
        elif move.to is Standing.RUNNING:
            claim = (Standing.RUNNING, at + 1, 0)
            yield what.value, _at(state._replace(row=claim), at, ("claimed", at + 1, 0))
        elif "one commit" in model.without:
            effects = state._replace(effects=min(3, state.effects + 1), result=at + 1)
            yield "business commit", _at(effects, at, ("business", 0, at + 1))
        else:
            yield "begin", _at(state, at, ("transaction", 0, 0))


def _commits(model: Model, state: State, at: int) -> Iterator[tuple[str, State]]:
    """The primary key decides."""
    if state.lost and state.row is None and "failovers end transactions" not in model.without:
        yield (
            "refused",
            _at(state, at, DONE),
        )  # it ended with the server, or is refused by the next one
        return
    move = look(standing_of(state), Event.COMMIT, ATOMIC, model.table)
    if move.says is Says.KEPT:
        done = state._replace(
            row=(Standing.DONE, at + 1, at + 1), effects=min(3, state.effects + 1), result=at + 1
        )
        for name, last in told(_at(done, at, DONE), move, at + 1):
            yield f"commit: {name}", last
        return
    assert state.row is not None
    answer = Move(state.row[0], Says.VALUE if state.row[0] is Standing.DONE else Says.NEVER)
    for name, last in told(_at(state, at, DONE), answer, state.row[2]):
        yield f"rolled back: {name}", last


def _writes_late(state: State, at: int, result: int) -> Iterator[tuple[str, State]]:
    done = state._replace(row=(Standing.DONE, at + 1, result))
    for name, last in told(_at(done, at, DONE), Move(Standing.DONE, Says.KEPT), result):
        yield f"ledger commit: {name}", last


def _acts(model: Model, state: State, at: int, fence: int) -> Iterator[tuple[str, State]]:
    if model.handler is RESUMABLE and state.effects and "child keys" not in model.without:
        result = at + 1 if model.local else state.result
        yield "downstream knows the child key", _at(state, at, ("acted", fence, result))
    else:
        acted = state._replace(effects=min(3, state.effects + 1), result=at + 1)
        yield "EFFECT", _at(acted, at, ("acted", fence, at + 1))
    for what in (Event.RAISE, Event.NO_EFFECT):
        yield from _ends(model, state, at, fence, what)


def _ends(
    model: Model, state: State, at: int, fence: int, what: Event
) -> Iterator[tuple[str, State]]:
    """The handler raises."""
    after = _at(state, at, DONE)
    if state.row and state.row[1] == fence and (state.row[0], what) in model.table:
        move = look(state.row[0], what, model.handler, model.table)
        gone = move.to is Standing.ABSENT
        after = after._replace(row=None if gone else (move.to, fence, state.row[2]))
    yield what.value, after


def _completes(
    model: Model, state: State, at: int, fence: int, result: int
) -> Iterator[tuple[str, State]]:
    same = state.row is not None and state.row[1] == fence
    what = Event.COMPLETE if same else Event.COMPLETE_LATE
    move = look(standing_of(state), what, model.handler, model.table)
    after = _at(state, at, DONE)
    if move.says is Says.KEPT:
        after = after._replace(row=(move.to, fence, result))
    elif state.row:
        result = state.row[2]
    for name, last in told(after, move, result):
        yield f"{what.value}: {name}", last
    yield from _ends(model, state, at, fence, Event.RAISE)  # after its effect


def broken(state: State) -> str:
    if state.effects > 1:
        return "I1: the effect happened twice"
    if len(state.told) > 1:
        return "I2: two results for one key"
    if state.told and not state.effects:
        return "I3: told that it is done, and nothing happened"
    if state.failed and state.effects:
        return "I4: told that it never happens, and it happened"
    if state.told and state.failed:
        return "I5: told both"
    return ""


def question(model: Model, state: State) -> str:
    """What one more ask-or-void brings, when every lease is over."""
    what = event(state.row[0] if state.row else None, state.age, True, state.lost, "void")
    move = look(standing_of(state), what, model.handler, model.table)
    if move.says is Says.RUNNING:
        return "goes on" if model.handler is RESUMABLE else "stuck"
    return {
        Says.VALUE: "fact",
        Says.NEVER: "fact",
        Says.DOUBT: "doubt",
        Says.TOO_OLD: "too old",
    }[move.says]


def at_rest(state: State) -> bool:
    return (
        "f" not in state.sent
        and state.client != "idle"
        and all(worker[0] in {"-", "done"} for worker in state.workers)
    )


def explore(model: Model) -> Verdict:
    """Every state that can be reached, the nearest first; it ends at the first one that is broken."""
    before: dict[State, tuple[State, str] | None] = {START: None}
    queue = deque([START])
    rest: dict[str, int] = {}
    while queue:
        state = queue.popleft()
        if wrong := broken(state):
            return Verdict(len(before), wrong, _path(before, state), rest)
        if at_rest(state):
            brings = question(model, state)
            rest[brings] = rest.get(brings, 0) + 1
        for name, after in successors(model, state):
            if after not in before:
                before[after] = state, name
                queue.append(after)
    return Verdict(len(before), "", (), rest)


def _path(before: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    names: list[str] = []
    while (step := before[state]) is not None:
        state, name = step
        names.append(name)
    return tuple(reversed(names))
