"""Unknown outcomes of a guard: written down, asked for, settled."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from math import inf
from typing import TYPE_CHECKING, Any

import pytest

from brownout import (
    Certainty,
    ConfigurationError,
    Guard,
    Key,
    Outcome,
    OutcomeUnknown,
    Phase,
    Retry,
    TimedOut,
    _unknown,
    deadline,
    remaining,
)
from brownout.errors import Voided
from brownout.ledger import Answer, Find, Ledger, Reply, Standing
from brownout.testing import FakeClock, Script, answer, fail, hang
from tests.seen import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from brownout.ledger import Entry

KEY = Key.of("order", 7, at=1_790_000_000)
OK = Reply(201, (), b"paid")


def nothing(key: str) -> None:
    """A look-up that finds nothing."""


class Pages:
    """A journal in memory, which says what it was told."""

    def __init__(self, *, trouble: bool = False) -> None:
        self.trouble = trouble
        self.held: dict[tuple[str, str, int], Entry] = {}
        self.told: list[str] = []
        self.leased: set[str] = set()

    def _done(self, what: bool) -> Future[bool]:
        future: Future[bool] = Future()
        future.set_result(what)
        return future

    def begin(self, entry: Entry, seconds: float) -> Future[bool]:
        assert 0 < seconds < inf
        self.told.append("begin")
        self.held[entry.target, entry.key, entry.call] = entry._replace(held=True)
        return self._done(not self.trouble)

    def unknown(self, entry: Entry) -> None:
        self.told.append("unknown")
        if entry.call:
            self.held[entry.target, entry.key, entry.call] = entry

    def settle(self, key: str, target: str, call: int = 0) -> None:
        self.told.append("settle one" if call else "settle all")
        for at in [at for at in self.held if at[:2] == (target, key) and call in {0, at[2]}]:
            del self.held[at]

    def lease(self, key: str, target: str, seconds: float) -> Future[bool]:
        self.told.append("lease")
        return self._done(key not in self.leased)

    def unsettled(self, target: str | None = None) -> list[Entry]:
        return [entry for entry in self.held.values() if target in {None, entry.target}]


class Desk:
    """Answers by a script of standings, the last one again and again; says how it was asked."""

    def __init__(self, *script: Standing | Exception) -> None:
        self._script = script
        self.asked: list[bool] = []
        self.at_once = self.most_at_once = 0
        self.seconds = 0.0
        self._lock = threading.Lock()

    def ask(self, key: str, *, void: bool, seconds: float) -> Answer:
        assert key == KEY
        assert remaining() <= seconds + 0.001
        with self._lock:
            self.asked.append(void)
            found = self._script[min(len(self.asked), len(self._script)) - 1]
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.seconds)
        with self._lock:
            self.at_once -= 1
        if isinstance(found, Exception):
            raise found
        if void and found is Standing.ABSENT:
            found = Standing.VOID
        return Answer(found, OK if found is Standing.DONE else None)


class AsyncDesk(Desk):
    async def aask(self, key: str, *, void: bool, seconds: float) -> Answer:
        return self.ask(key, void=void, seconds=seconds)


ABSENT, RUNNING, DONE, DOUBT = Standing.ABSENT, Standing.RUNNING, Standing.DONE, Standing.DOUBT


def lost(guard: Guard, key: str | None = KEY) -> Outcome[Any]:
    def work() -> None:
        raise TimeoutError("no answer")

    outcome: Outcome[Any] = guard.outcome(work, key=key)
    assert outcome.unknown
    return outcome


# ------------------------------------------------------------------------------------- it is settled


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_done_is_succeeded_with_the_reply(clock: FakeClock, colour: str) -> None:
    asked = AsyncDesk(RUNNING, DONE)
    guard = Guard("pay", ask=asked)
    outcome = lost(guard)
    new = guard.resolve(outcome) if colour == "sync" else clock.run(guard.aresolve(outcome))
    assert (new.succeeded, new.value, new.key) == (True, OK, KEY)
    assert asked.asked == [False, False]
    assert clock.now() < 1001.1


def test_what_never_happened_is_voided_and_failed(clock: FakeClock) -> None:
    guard = Guard("pay", ask=(desk := Desk(ABSENT)))
    new = guard.resolve(lost(guard), within=2.0)
    assert new.failed
    assert isinstance(new.error, Voided)
    assert str(new.error) == f"pay: {KEY} never happened, and never will"
    assert (desk.asked[0], desk.asked[-1], sum(desk.asked)) == (False, True, 1)
    assert 1001.0 < clock.now() <= 1002.0


def test_keep_voids_nothing(clock: FakeClock) -> None:
    guard = Guard("pay", ask=(desk := Desk(ABSENT)))
    new = guard.resolve(lost(guard), give_up="keep")
    assert new.unknown
    assert not any(desk.asked)


@pytest.mark.parametrize(
    ("standing", "says"), [(RUNNING, "it still runs"), (DOUBT, "look for its effect")], ids=str
)
def test_what_stays_unknown_says_why(clock: FakeClock, standing: Standing, says: str) -> None:
    guard = Guard("pay", ask=Desk(standing))
    outcome = lost(guard)
    new = guard.resolve(outcome)
    assert new.unknown
    assert isinstance(new.error, OutcomeUnknown)
    assert (new.error.key, new.error.__cause__) == (KEY, outcome.error)
    assert says in str(new.error)


def test_a_desk_that_is_down_is_asked_until_the_time_is_over(clock: FakeClock) -> None:
    guard = Guard("pay", ask=(desk := Desk(ConnectionRefusedError(111, "refused"))))
    new = guard.resolve(lost(guard), within=3.0)
    assert new.unknown
    assert "ConnectionRefusedError" in str(new.error)
    assert 3 <= len(desk.asked) < 20
    assert clock.now() <= 1003.0


def test_the_budget_bounds_how_often_is_asked(clock: FakeClock) -> None:
    """Many unknowns at once: the first question each, then no more than one a second."""
    guard = Guard("pay", ask=(desk := Desk(RUNNING)))
    guard.resolve(lost(guard), within=20.0, give_up="keep")
    first = len(desk.asked)
    for _ in range(3):
        guard.resolve(lost(guard), within=20.0, give_up="keep")
    each = (len(desk.asked) - first) / 3
    assert 15 <= each <= 24


def test_the_ambient_deadline_holds(clock: FakeClock) -> None:
    guard = Guard("pay", ask=(desk := Desk(RUNNING)))
    outcome = lost(guard)
    with deadline(1.0):
        assert guard.resolve(outcome, within=60.0).unknown
    assert clock.now() <= 1001.0
    asked = len(desk.asked)
    with deadline(0.0):
        new = guard.resolve(outcome)
    assert len(desk.asked) == asked
    assert "outside of the deadline" in str(new.error)


def test_what_is_certain_is_not_asked_for(clock: FakeClock) -> None:
    guard = Guard("pay", ask=(desk := Desk(RUNNING)))
    done: Outcome[Any] = guard.outcome(lambda: "ok", key=KEY)
    assert guard.resolve(done) is done
    assert clock.run(guard.aresolve(done)) is done
    assert desk.asked == []


def test_with_a_real_ledger(clock: FakeClock) -> None:
    ledger = Ledger("memory:")
    ledger.create()
    guard = Guard("pay", timeout=1.0, ask=ledger)

    def charge(key: str) -> None:
        claim = ledger.claim(key, b"x", "opaque")
        ledger.complete(claim, OK)  # type: ignore[arg-type]
        raise TimeoutError("the reply is lost")

    done, never = Key.new(), Key.new()
    assert guard.resolve(guard.outcome(charge, done, key=done)).value == OK
    assert isinstance(guard.resolve(lost(guard, never)).error, Voided)
    assert ledger.claim(never, b"x", "opaque").standing is Standing.VOID  # type: ignore[union-attr]


# ------------------------------------------------------------------------------- one asks at a time


def test_one_thread_at_a_time_asks_for_a_key() -> None:
    desk = Desk(RUNNING, RUNNING, DONE)
    desk.seconds = 0.05
    guard = Guard("pay", ask=desk)
    outcome, told = lost(guard), list[Outcome[Any]]()
    threads = [
        threading.Thread(target=lambda: told.append(guard.resolve(outcome))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [new.value for new in told] == [OK] * 5
    assert desk.most_at_once == 1


def test_who_waits_in_vain_says_who_settles_it(clock: FakeClock) -> None:
    pages = Pages()
    pages.leased.add(KEY)
    guard = Guard("pay", ask=(desk := Desk(DONE)), journal=pages)
    new = guard.resolve(lost(guard), within=1.0)
    assert "in another process" in str(new.error)
    assert desk.asked == []
    assert pages.told[-1] == "lease"  # it is not ours to change
    pages.leased.clear()
    assert guard.resolve(new).succeeded


def test_a_task_waits_for_a_thread(clock: FakeClock) -> None:
    async def both(guard: Guard, outcome: Outcome[Any]) -> list[Outcome[Any]]:
        return list(await asyncio.gather(*(guard.aresolve(outcome) for _ in range(3))))

    guard = Guard("pay", ask=(desk := AsyncDesk(RUNNING, DONE)))
    told = clock.run(both(guard, lost(guard)))
    assert [new.value for new in told] == [OK] * 3
    assert desk.most_at_once == 1


# ------------------------------------------------------------------------------------------ look-ups


def test_found_is_done_and_not_found_is_nothing_before_the_horizon(clock: FakeClock) -> None:
    found: dict[str, str] = {}
    guard = Guard("bank", ask=Find(found.get, horizon_seconds=60.0))
    outcome = lost(guard)
    assert guard.resolve(outcome).unknown  # though give_up is "void": a look-up can't
    clock.advance(60.0)
    assert isinstance(guard.resolve(outcome).error, Voided)
    found[KEY] = "transfer 7"
    assert guard.resolve(outcome).value == "transfer 7"


def test_a_plain_look_up_never_proves_an_absence(clock: FakeClock) -> None:
    guard = Guard("bank", ask=nothing)
    outcome = lost(guard)
    clock.advance(1e6)
    assert "proves nothing" in str(guard.resolve(outcome).error)


def test_an_async_look_up_is_awaited_and_bounded(clock: FakeClock) -> None:
    async def find(key: str) -> str | None:
        left.append(remaining())
        await asyncio.sleep(100)
        return None

    left: list[float] = []
    guard = Guard("bank", ask=find)
    new = clock.run(guard.aresolve(lost(guard), within=2.0))
    assert "TimeoutError" in str(new.error)
    assert clock.now() <= 1002.1
    assert all(0 < each <= 2.0 for each in left)
    with pytest.raises(TypeError, match=r"is async: use `await guard\.aresolve"):
        guard.resolve(new)


def test_a_def_look_up_does_not_stop_the_loop() -> None:
    async def main() -> int:
        ticks = 0
        task = asyncio.ensure_future(guard.aresolve(lost(guard)))
        while not task.done():
            ticks += 1
            await asyncio.sleep(0.01)
        assert (await task).value == "found"
        return ticks

    def find(key: str) -> str:
        time.sleep(0.3)
        return "found"

    guard = Guard("bank", ask=find)
    assert asyncio.run(main()) > 5


def test_a_look_up_that_fails_has_not_found() -> None:
    def find(key: str) -> str:
        raise LookupError(key)

    guard = Guard("bank", ask=find)
    with FakeClock():
        assert "LookupError" in str(guard.resolve(lost(guard), within=1.0).error)


# ------------------------------------------------------------------------------------- bad requests


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"within": 0}, "within=0"), ({"within": inf}, "within=inf"), ({"within": "5"}, "within='5'"),
        ({"within": True}, "within=True"), ({"give_up": "drop"}, 'write "void" or "keep"'),
    ],
    ids=str,
)  # fmt: skip
def test_a_bad_request_is_refused(clock: FakeClock, how: dict[str, Any], says: str) -> None:
    guard = Guard("pay", ask=(desk := Desk(DONE)))
    with pytest.raises(ValueError, match=says):
        guard.resolve(lost(guard), **how)
    assert desk.asked == []


def test_nobody_to_ask_and_nothing_to_ask_for(clock: FakeClock) -> None:
    alone, pages = Guard("pay"), Guard("pay", journal=Pages())
    with pytest.raises(ConfigurationError, match="has nobody to ask"):
        alone.resolve(lost(alone))
    with pytest.raises(ConfigurationError, match="it stays in the journal"):
        pages.resolve(lost(pages))
    with pytest.raises(ConfigurationError, match="has no journal"):
        alone.unknowns()
    guard = Guard("pay", ask=Desk(DONE))
    with pytest.raises(ValueError, match="an outcome without a key"):
        guard.resolve(lost(guard, None))


class Odd:
    ask = 7


class AsyncAsk:
    async def ask(self, key: str, *, void: bool, seconds: float) -> Answer:
        return Answer(DONE)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        ("http://user:secret@pay", "ask is a text"), (Ledger, "is a class"), (7, "can't be asked"),
        (Odd(), "must be a `def`"), (AsyncAsk(), "must be a `def`"),
    ],
    ids=["url", "class", "number", "odd", "async"],
)  # fmt: skip
def test_what_can_not_be_asked_is_refused_when_the_guard_is_built(ask: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        Guard("pay", timeout=-1, ask=ask, journal="unknown.db")
    for other in ("timeout=-1", "sqlite:///unknown.db"):  # all at once
        assert other in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("horizon", [0, -1.0, True, "60"])
def test_a_horizon_is_a_span(horizon: Any) -> None:
    with pytest.raises(ConfigurationError, match="seconds above 0"):
        Find(nothing, horizon_seconds=horizon)


def test_an_asker_that_answers_nonsense_is_found_out(clock: FakeClock) -> None:
    class Nonsense:
        def ask(self, key: str, *, void: bool, seconds: float) -> Any:
            return "done"

    guard = Guard("pay", ask=Nonsense())
    assert "give an Answer" in str(guard.resolve(lost(guard)).error)


# ---------------------------------------------------------------------------------------- the journal


def calls(guard: Guard, pages: Pages) -> dict[str, Callable[[], Any]]:
    def seen(error: BaseException | None = None) -> str:
        pages.told.append("sent")
        if error is not None:
            raise error
        return "ok"

    async def aseen(error: BaseException | None = None) -> str:
        return seen(error)

    return {"sync": seen, "async": aseen}


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (None, "settle all"),
        (ConnectionRefusedError(111, "refused"), "settle one"),
        (TimeoutError("lost"), "unknown"),
        (KeyError("an answer"), "settle one"),
    ],
    ids=["done", "refused", "lost", "answered"],
)
@pytest.mark.parametrize("form", ["outcome", "call"])
def test_a_keyed_call_is_written_down_before_it_is_sent(
    clock: FakeClock, colour: str, error: Exception | None, ends: str, form: str
) -> None:
    pages = Pages()
    guard = Guard("pay", journal=pages, answers=(KeyError,), breaker=None)
    fn = calls(guard, pages)[colour]
    how: Any = {"outcome": guard.outcome, "call": guard.call if colour == "sync" else guard.acall}[
        form
    ]

    async def main() -> Any:
        return await how(fn, error, key=KEY)

    raised: list[Exception] = []
    try:
        told = how(fn, error, key=KEY) if colour == "sync" else clock.run(main())
        assert form == "outcome" or told == "ok"
    except Exception as one:
        raised.append(one)
    assert raised == ([error] if form == "call" and error is not None else [])
    assert pages.told == ["begin", "sent", ends]
    assert [outcome.key for outcome in guard.unknowns()] == ([KEY] if ends == "unknown" else [])


def test_a_call_without_a_key_is_not_written_down(clock: FakeClock) -> None:
    pages = Pages()
    guard = Guard("pay", journal=pages)
    lost(guard, None)
    guard.call(lambda: 1)
    clock.run(guard.acall(asyncio.sleep, 0))
    assert pages.told == []


@pytest.mark.parametrize("left", [KeyboardInterrupt, SystemExit])
def test_who_leaves_leaves_an_unknown(clock: FakeClock, left: type[BaseException]) -> None:
    pages = Pages()
    guard = Guard("pay", journal=pages)
    with pytest.raises(left):
        guard.outcome(Script(clock, fail(left())).call, key=KEY)
    assert [outcome.key for outcome in guard.unknowns()] == [KEY]


def test_a_cancelled_call_is_unknown_and_settled_later(clock: FakeClock) -> None:
    pages = Pages()
    guard = Guard("pay", journal=pages, ask=AsyncDesk(DONE))

    async def main() -> None:
        task = asyncio.ensure_future(guard.outcome(Script(clock, hang()).acall, key=KEY))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (outcome,) = guard.unknowns()
        assert (await guard.aresolve(outcome)).value == OK

    clock.run(main())
    assert guard.unknowns() == []
    assert pages.told == ["begin", "unknown", "lease", "settle all"]


def test_a_refused_call_strikes_out_no_earlier_unknown(clock: FakeClock) -> None:
    """The same key again, and this time it is certain that nothing was sent: the first is still unknown."""
    guard = Guard("pay", journal=Pages())
    lost(guard)
    with deadline(0.0):
        assert guard.outcome(lambda: "ok", key=KEY).failed
    assert [outcome.key for outcome in guard.unknowns()] == [KEY]


def test_a_fallback_does_not_hide_what_is_unknown(clock: FakeClock) -> None:
    pages = Pages()
    guard = Guard("pay", journal=pages, fallback=lambda: "spare")
    assert guard.call(Script(clock, fail(TimeoutError())).call, key=KEY) == "spare"
    assert [outcome.key for outcome in guard.unknowns()] == [KEY]


def test_trouble_with_the_journal_fails_and_delays_no_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard = Guard("pay", journal=f"sqlite:///{tmp_path}/nowhere/unknown.db", ask=Desk(DONE))
    with caplog.at_level(logging.WARNING, "brownout"):
        began = time.monotonic()
        for _ in range(20):
            assert guard.call(lambda: "ok", key=KEY) == "ok"
        assert time.monotonic() - began < 2.0
        assert guard.resolve(lost(guard)).value == OK
    assert caplog.text.count("can't be written") == 1


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_journal_that_says_nothing_holds_a_call_up_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch, colour: str
) -> None:
    class Silent(Pages):
        def _done(self, what: bool) -> Future[bool]:
            return Future()

    async def both() -> int:
        ticks = 0
        task = asyncio.ensure_future(guard.outcome(asyncio.sleep, 0, key=KEY))
        while not task.done():
            ticks += 1
            await asyncio.sleep(0.01)
        assert (await task).succeeded
        assert (await guard.aresolve(lost(guard))).succeeded
        return ticks

    monkeypatch.setattr(_unknown, "WRITE_SECONDS", 0.1)
    guard = Guard("pay", journal=Silent(), ask=AsyncDesk(DONE))
    began = time.monotonic()
    if colour == "async":
        assert asyncio.run(both()) > 3
    else:
        assert guard.call(lambda: "ok", key=KEY) == "ok"
        with deadline(0.05):
            assert guard.call(lambda: "ok", key=KEY) == "ok"
        assert guard.resolve(lost(guard)).succeeded
    assert time.monotonic() - began < 2.0


FORKS = """
import os, sys
from brownout import Guard, Key
guard = Guard("pay", journal="sqlite:///" + sys.argv[1])
parent, key = os.getpid(), Key.new()
def forks():
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        raise TimeoutError("no answer")
    return "the child comes back from a call of its parent's"
outcome = guard.outcome(forks, key=key)
if os.getpid() != parent:
    assert outcome.succeeded
    os._exit(0)
assert [one.key for one in guard.unknowns()] == [key]
"""


def test_a_child_that_comes_back_from_a_call_strikes_nothing_out(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKS, f"{tmp_path}/unknown.db"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_what_a_guard_wrote_is_settled_by_the_next_one(tmp_path: Path, colour: str) -> None:
    url = f"sqlite:///{tmp_path}/unknown.db"
    lost(Guard("pay", journal=url))
    lost(Guard("mail", journal=url))
    guard = Guard("pay", journal=url, ask=AsyncDesk(DONE))
    (outcome,) = guard.unknowns()
    assert (outcome.key, outcome.unknown, outcome.phase) == (KEY, True, Phase.SENDING)
    assert "as the journal has it" in str(outcome.error)
    if colour == "sync":
        assert guard.resolve(outcome).succeeded
    else:
        assert asyncio.run(guard.aresolve(outcome)).succeeded
    until(lambda: guard.unknowns() == [])
    assert len(Guard("mail", journal=url).unknowns()) == 1


def test_a_horizon_counts_from_what_the_journal_says(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/unknown.db"
    lost(Guard("bank", journal=url))
    time.sleep(0.3)
    guard = Guard("bank", journal=url, ask=Find(nothing, horizon_seconds=0.5))
    (outcome,) = guard.unknowns()
    began = time.monotonic()
    assert isinstance(guard.resolve(outcome).error, Voided)
    assert 0.1 < time.monotonic() - began < 3.0


def test_a_part_of_a_target_asks_and_writes_down_as_well(clock: FakeClock) -> None:
    guard = Guard("pay", journal=Pages(), ask=Desk(DONE)).per("host-1")
    lost(guard)
    (outcome,) = guard.unknowns()
    assert guard.resolve(outcome).value == OK


# ------------------------------------------------------------------------------------- the attempts


def test_a_retry_of_a_keyed_unknown_has_the_same_key_and_the_furthest_phase_is_kept(
    clock: FakeClock,
) -> None:
    guard = Guard("pay", retry=Retry(attempts=3, budget=1.0), timeout=1.0, breaker=None)
    seen: list[tuple[Any, Any]] = []

    def work(attempt: Any) -> None:
        seen.append((attempt.key, attempt))
        if len(seen) == 1:
            attempt.receiving()
            raise TimeoutError("lost")
        attempt.waiting()
        attempt.waited(0.0)
        if len(seen) == 2:
            attempt.sent()
            raise TimeoutError("lost")
        raise ConnectionRefusedError(111, "refused")

    with pytest.raises(ConnectionRefusedError):
        guard.call(work, key=KEY, with_attempt=True)
    assert [key for key, _ in seen] == [KEY] * 3


def test_the_furthest_phase_of_all_attempts_is_kept(clock: FakeClock) -> None:
    def unknown(phase: Phase) -> OutcomeUnknown:
        return OutcomeUnknown("no answer", target="inner", sent_at=0.0, phase=phase)

    refused = fail(ConnectionRefusedError(111, "refused"))
    script = Script(clock, fail(unknown(Phase.RECEIVING)), fail(unknown(Phase.SENT)), refused)
    retry = Retry(attempts=3, budget=1.0)
    guard = Guard("pay", retry=retry, timeout=1.0, breaker=None)
    guard.call(lambda: "ok")  # its share of the budget
    outcome = guard.outcome(script.call, key=KEY)
    assert (outcome.unknown, outcome.attempts, outcome.phase) == (True, 3, Phase.RECEIVING)
    assert isinstance(outcome.error, ConnectionRefusedError)


def test_the_furthest_phase_is_told(clock: FakeClock) -> None:
    guard = Guard("pay", timeout=1.0)
    with guard.attempt() as attempt:
        assert attempt.phase is Phase.SENDING
    outcome = clock.run(guard.outcome(Script(clock, hang()).acall, key=KEY))
    assert isinstance(outcome.error, TimedOut)
    assert (outcome.certainty, outcome.phase) == (Certainty.UNKNOWN, Phase.SENDING)
    assert outcome.ended_at == clock.now()
    done = guard.outcome(Script(clock, answer("ok")).call, key=KEY)
    assert (done.phase, done.ended_at) == (None, inf)
