"""One contract for all stores, by threads and by asyncio: the same questions, the same answers."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from brownout._core.ledger import SKEW_SECONDS
from brownout.errors import (
    InDoubt,
    KeyFromTheFuture,
    KeyMalformed,
    KeyTooOld,
    OtherPayload,
    StillRunning,
    Voided,
)
from brownout.ledger import Answer, Claim, Found, Ledger, Reply, Standing
from tests.ledger.conftest import HORIZON, LEASE, MARGIN, key

if TYPE_CHECKING:
    from tests.ledger.conftest import Now, Ways

FINGERPRINT = b"f" * 16
REPLY = Reply(201, (("content-type", "text/plain"),), b"paid")


def claimed(ways: Ways | Ledger, name: str, handler: str = "opaque") -> Claim:
    claim = ways.claim(name, FINGERPRINT, handler)
    assert isinstance(claim, Claim)
    return claim


def found(ways: Ways | Ledger, name: str, handler: str = "opaque") -> Found:
    other = ways.claim(name, FINGERPRINT, handler)
    assert isinstance(other, Found)
    return other


def test_one_runs_and_all_get_its_reply(ways: Ways, now: Now) -> None:
    name = key(now())
    claim = claimed(ways, name)
    running = found(ways, name)
    assert (running.standing, running.retry_after) == (Standing.RUNNING, LEASE)
    assert ways.complete(claim, REPLY) == REPLY
    assert found(ways, name)[:2] == (Standing.DONE, REPLY)
    assert ways.ask(name, void=True) == Answer(Standing.DONE, REPLY, None, "it is done")
    assert ways.ask(name, void=False).fact


def test_who_completes_twice_is_told_the_same(ways: Ways, now: Now) -> None:
    claim = claimed(ways, key(now()))
    assert ways.complete(claim, REPLY) == REPLY
    assert ways.complete(claim, Reply(500)) == REPLY


def test_other_payload_is_refused_wherever_the_key_stands(ways: Ways, now: Now) -> None:
    name = key(now())
    claim = claimed(ways, name)
    for then in (lambda: ways.doubt(claim), lambda: ways.complete(claim, REPLY), lambda: None):
        with pytest.raises(OtherPayload, match="another payload") as caught:
            ways.claim(name, b"other", "opaque")
        assert (caught.value.key, caught.value.scope) == (name, "pay")
        then()
    assert found(ways, name).reply == REPLY


def test_other_scopes_see_nothing(ways: Ways, now: Now) -> None:
    name = key(now())
    ways.complete(claimed(ways, name), REPLY)
    foreign = ways.ledger.of("somebody else")
    assert foreign.ask(name, void=False).standing is Standing.ABSENT
    assert isinstance(foreign.claim(name, FINGERPRINT, "opaque"), Claim)
    assert found(ways, name).reply == REPLY


@pytest.mark.parametrize("handler", ["atomic", "resumable", "opaque"])
def test_what_is_void_never_runs(ways: Ways, now: Now, handler: str) -> None:
    name = key(now())
    assert ways.ask(name, void=False).standing is Standing.ABSENT
    assert not ways.ask(name, void=False).fact
    assert ways.ask(name, void=True)[:2] == (Standing.VOID, None)
    assert ways.ask(name, void=True).fact
    assert found(ways, name, handler).standing is Standing.VOID


def test_what_runs_can_not_be_voided(ways: Ways, now: Now) -> None:
    name = key(now())
    claim = claimed(ways, name)
    assert ways.ask(name, void=True).standing is Standing.RUNNING
    assert ways.complete(claim, REPLY) == REPLY


def test_a_lease_that_is_over_leaves_an_opaque_one_in_doubt(ways: Ways, now: Now) -> None:
    name = key(now())
    claim = claimed(ways, name)
    now.seconds += LEASE
    assert ways.ask(name, void=True).standing is Standing.DOUBT
    assert found(ways, name).standing is Standing.DOUBT
    assert [row.key for row in ways.ledger.doubts()] == [name]
    assert ways.complete(claim, REPLY) == REPLY  # the only one that ever ran it, late
    assert found(ways, name).reply == REPLY
    assert ways.ledger.doubts() == []


def test_a_request_after_the_lease_does_not_run_an_opaque_one_again(ways: Ways, now: Now) -> None:
    name = key(now())
    claimed(ways, name)
    now.seconds += LEASE
    assert found(ways, name).standing is Standing.DOUBT


def test_a_resumable_one_is_taken_over_and_its_owner_told(ways: Ways, now: Now) -> None:
    name = key(now())
    first = claimed(ways, name, "resumable")
    now.seconds += LEASE
    answer = ways.ask(name, void=True)
    assert answer.standing is Standing.RUNNING
    assert "goes on with it" in answer.because
    second = claimed(ways, name, "resumable")
    assert second.fence != first.fence
    assert second.child("charge") == first.child("charge") != first.child("ship")
    with pytest.raises(StillRunning, match="taken over"):
        ways.complete(first, Reply(500))
    assert not ways.renew(first)
    ways.doubt(first)
    ways.release(first)
    assert ways.complete(second, REPLY) == REPLY
    assert ways.complete(first, Reply(500)) == REPLY


def test_a_heartbeat_keeps_the_lease(ways: Ways, now: Now) -> None:
    name = key(now())
    claim = claimed(ways, name)
    for _ in range(3):
        now.seconds += LEASE * 0.9
        assert ways.renew(claim)
    assert found(ways, name).standing is Standing.RUNNING
    now.seconds += LEASE
    assert ways.renew(claim)  # late, and nobody has asked meanwhile
    assert ways.ask(name, void=True).standing is Standing.RUNNING


def test_an_opaque_handler_that_raised_is_in_doubt(ways: Ways, now: Now) -> None:
    name = key(now())
    ways.doubt(claimed(ways, name))
    assert found(ways, name).standing is Standing.DOUBT


def test_a_resumable_handler_that_raised_is_run_again_at_once(ways: Ways, now: Now) -> None:
    name = key(now())
    ways.doubt(claimed(ways, name, "resumable"))
    assert ways.complete(claimed(ways, name, "resumable"), REPLY) == REPLY


def test_no_effect_frees_the_key(ways: Ways, now: Now) -> None:
    name = key(now())
    ways.release(claimed(ways, name))
    assert ways.ask(name, void=False).standing is Standing.ABSENT
    again = claimed(ways, name)
    now.seconds += LEASE
    assert ways.ask(name, void=False).standing is Standing.DOUBT
    ways.release(again)  # late, and as true
    assert ways.ask(name, void=True).standing is Standing.VOID
    with pytest.raises(Voided):
        ways.complete(again, REPLY)


def test_a_completion_after_its_row_has_gone_is_in_doubt(ways: Ways, now: Now) -> None:
    claim = claimed(ways, key(now()))
    ways.release(claim)
    with pytest.raises(InDoubt, match="lost"):
        ways.complete(claim, REPLY)


@pytest.mark.parametrize(
    "bad",
    ["", "x", "0" * 36, "01a22207-b351-4c60-bb92-a1bc3cbefc6f", "01a22207-b351-7c60-cb92-a1bc3cbefc6f",
     "01a22207-b351-7c60-bb92-a1bc3cbefc6f0", "01a22207b3517c60bb92a1bc3cbefc6f",
     "g1a22207-b351-7c60-bb92-a1bc3cbefc6f", "é" * 36],
)  # fmt: skip
def test_malformed_keys_are_refused(ledger: Ledger, bad: str) -> None:
    with pytest.raises(KeyMalformed, match="UUID of version 7"):
        ledger.claim(bad, b"", "opaque")
    with pytest.raises(KeyMalformed):
        ledger.ask(bad, void=True)


def test_a_key_in_capitals_is_the_same_key(ledger: Ledger, now: Now) -> None:
    name = key(now())
    claimed(ledger, name.upper())
    assert found(ledger, name).standing is Standing.RUNNING


@pytest.mark.parametrize("handler", ["atomic", "resumable", "opaque"])
def test_keys_past_the_horizon_do_not_start(ways: Ways, now: Now, handler: str) -> None:
    old = key(now() - HORIZON - 0.001)
    with pytest.raises(KeyTooOld, match="horizon"):
        ways.claim(old, FINGERPRINT, handler)
    assert ways.ask(old, void=True).standing is Standing.VOID  # a transaction may be under way
    edge = key(now() - HORIZON)
    assert isinstance(ways.claim(edge, FINGERPRINT, handler), Claim)


def test_nothing_is_known_of_keys_past_horizon_and_margin(ways: Ways, now: Now) -> None:
    name = key(now() - HORIZON - MARGIN - 0.001)
    answer = ways.ask(name, void=True)
    assert answer.standing is Standing.ABSENT
    assert "forgotten" in answer.because
    assert ways.ledger.rows() == []


@pytest.mark.parametrize("handler", ["atomic", "resumable", "opaque"])
def test_keys_from_the_future_are_refused(ways: Ways, now: Now, handler: str) -> None:
    ahead = key(now() + SKEW_SECONDS + 0.001)
    with pytest.raises(KeyFromTheFuture, match="ahead"):
        ways.claim(ahead, FINGERPRINT, handler)
    with pytest.raises(KeyFromTheFuture):
        ways.ask(ahead, void=True)
    assert isinstance(ways.claim(key(now() + SKEW_SECONDS), FINGERPRINT, handler), Claim)


def test_a_done_key_is_told_past_the_horizon(ways: Ways, now: Now) -> None:
    name = key(now())
    ways.complete(claimed(ways, name), REPLY)
    now.seconds += HORIZON + MARGIN
    assert found(ways, name).reply == REPLY
    assert ways.ask(name, void=True).reply == REPLY


def test_collection_goes_by_age_and_by_no_count(ways: Ways, now: Now) -> None:
    names = [key(now() + i * 0.001) for i in range(30)]
    for name in names[:10]:
        ways.complete(claimed(ways, name), REPLY)
    for name in names[10:20]:
        ways.ask(name, void=True)
    claims = [claimed(ways, name) for name in names[20:]]
    for claim in claims[:5]:
        ways.doubt(claim)
    assert ways.collect() == 0
    now.seconds += HORIZON + MARGIN
    assert ways.collect() == 0
    if type(ways.ledger.store).__name__ == "RedisStore":
        return  # the server's own clock ends them: `test_redis`
    now.seconds += 0.006  # more than `horizon` and `margin` for the first six
    assert ways.collect() == 6
    now.seconds += 1
    assert ways.collect(most=10) == 10
    assert ways.collect() == 4
    assert ways.collect() == 0
    assert [row.key for row in ways.ledger.rows()] == names[20:]  # who knows how those ended?


def test_what_was_collected_stays_refused_when_the_clock_goes_back(ways: Ways, now: Now) -> None:
    if type(ways.ledger.store).__name__ == "RedisStore":
        return  # rows end by its own clock, and a clock that was wrong has ended them
    name = key(now())
    ways.complete(claimed(ways, name), REPLY)
    now.seconds += HORIZON + MARGIN + 60  # a clock that was set wrong
    assert ways.collect() == 1
    now.seconds -= HORIZON + MARGIN + 60
    with pytest.raises(KeyTooOld):
        ways.claim(name, FINGERPRINT, "opaque")
    with pytest.raises(KeyTooOld):
        ways.claim(name, FINGERPRINT, "atomic")
    assert ways.ask(name, void=True).standing is Standing.ABSENT
    claimed(ways, key(now() + 61))  # what is newer than what was collected is as before


def test_a_clock_that_jumps_costs_no_effect(ways: Ways, now: Now) -> None:
    name = key(now())
    claim = claimed(ways, name)
    now.seconds -= 3600
    assert found(ways, name).standing is Standing.RUNNING
    assert ways.renew(claim)
    now.seconds += 7200
    assert found(ways, name).standing is Standing.DOUBT
    assert ways.complete(claim, REPLY) == REPLY


def test_large_bodies_are_kept_as_a_digest(ways: Ways, now: Now) -> None:
    name = key(now())
    small = Reply(200, (), os.urandom(65_536))
    assert ways.complete(claimed(ways, name), small) == small
    assert found(ways, name).reply == small
    name = key(now())
    large = Reply(200, (("a", "b"),), b"x" * 65_537)
    assert ways.complete(claimed(ways, name), large) == large
    reply = found(ways, name).reply
    assert reply is not None
    assert (reply.whole, len(reply.body), reply.headers) == (False, 32, (("a", "b"),))


def test_rows_tell_no_bodies(ways: Ways, now: Now) -> None:
    names = [key(now() + i) for i in range(3)]
    for name in names:
        ways.complete(claimed(ways, name), REPLY)
    rows = ways.ledger.rows(Standing.DONE)
    assert [(row.key, row.scope, row.reply) for row in rows] == [(n, "pay", None) for n in names]
    assert len(ways.ledger.rows(most=2)) == 2


def test_sixteen_claimers_and_one_runs(ledger: Ledger, now: Now) -> None:
    barrier = threading.Barrier(16)

    def claim(name: str) -> Claim | Found:
        barrier.wait()
        return ledger.claim(name, FINGERPRINT, "opaque")

    with ThreadPoolExecutor(16) as pool:
        for _ in range(5):
            got = list(pool.map(claim, [key(now())] * 16))
            assert sum(isinstance(one, Claim) for one in got) == 1


def test_sixteen_take_over_and_one_does(ledger: Ledger, now: Now) -> None:
    name = key(now())
    claimed(ledger, name, "resumable")
    now.seconds += LEASE
    barrier = threading.Barrier(16)

    def claim(_: int) -> Claim | Found:
        barrier.wait()
        return ledger.claim(name, FINGERPRINT, "resumable")

    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(claim, range(16)))
    assert sum(isinstance(one, Claim) for one in got) == 1


def test_claims_and_voids_at_once_agree(ledger: Ledger, now: Now) -> None:
    barrier = threading.Barrier(16)

    def race(job: tuple[int, str]) -> Any:
        barrier.wait()
        if job[0] % 2:
            return ledger.ask(job[1], void=True).standing
        return ledger.claim(job[1], FINGERPRINT, "opaque")

    with ThreadPoolExecutor(16) as pool:
        for _ in range(5):
            name = key(now())
            got = list(pool.map(race, [(i, name) for i in range(16)]))
            runs = sum(isinstance(one, Claim) for one in got)
            voids = got.count(Standing.VOID)
            assert (runs, voids) in {(1, 0), (0, 8)}


def test_the_class_that_ran_decides_not_the_one_of_today(ways: Ways, now: Now) -> None:
    name = key(now())
    claimed(ways, name, "opaque")
    now.seconds += LEASE
    assert found(ways, name, "resumable").standing is Standing.DOUBT
