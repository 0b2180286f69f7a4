"""The heartbeat's thread beats for every claim of this process: no failure of one may end it."""

from __future__ import annotations

from brownout._core.ledger import Claim, HandlerClass
from brownout.ledger.beat import Heartbeat
from tests.seen import until


def test_what_is_no_error_of_ours_is_tried_again_too() -> None:
    beats: list[Claim] = []

    def renew(claim: Claim) -> bool:
        beats.append(claim)
        if len(beats) == 1:
            raise ValueError("I/O operation on closed file")
        return True

    claim = Claim("pay", "a key", b"", HandlerClass.OPAQUE, 1, 0.03)
    heartbeat = Heartbeat(renew)
    heartbeat.start(claim)
    try:
        until(lambda: len(beats) > 2)
        assert not claim.over
    finally:
        heartbeat.stop(claim)
