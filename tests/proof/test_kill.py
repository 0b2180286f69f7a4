"""Ten seconds of SIGKILL for each store, all at once; and that the test can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.ledger.servers import PostgresServer, RedisServer
from tests.proof.history import Told, violation
from tests.proof.killed import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 10.0
MOST_SECONDS = 100.0
STORES = ["sqlite", "postgres", "redis"]


class Run:
    """The kill test, in a process of its own."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "tests.proof.kill", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def verdict(self) -> dict[str, Any]:
        out, err = self.process.communicate(timeout=MOST_SECONDS)
        assert out, err
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        assert bool(found["wrong"]) == bool(self.process.returncode), err
        return found

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Run]]:
    started = {store: Run("--store", store, "--seconds", SECONDS) for store in STORES}
    yield started
    for run in started.values():
        run.end()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("store", STORES)
def test_no_double_effect_no_false_claim_and_nothing_unresolved(
    store: str, runs: dict[str, Run]
) -> None:
    if store != "sqlite":
        (PostgresServer if store == "postgres" else RedisServer).needed()
    verdict = runs[store].verdict()
    assert verdict["wrong"] == {}
    assert verdict["killed"] > 10
    for handler, told in verdict["told"].items():
        assert told["ok"] > 0
        assert handler == "opaque" or "doubt" not in told


@pytest.mark.timeout(120)
def test_a_rule_that_is_switched_off_shows() -> None:
    """One each for effects in the ledger's transaction and outside; the others die in tests/models."""
    off = ["one-commit", "opaque-runs-once"]
    assert {*off} < {*RULES}
    runs = [Run("--store", "sqlite", "--seconds", 60, "--without", rule) for rule in off]
    try:
        for run in runs:
            assert run.verdict()["wrong"]
    finally:
        for run in runs:
            run.end()


OK, RUNNING, DOUBT = Told(1, 2, "ok", "a"), Told(3, 4, "running"), Told(5, 6, "doubt")


@pytest.mark.parametrize(
    ("history", "says"),
    [
        ([OK, Told(3, 4, "ok", "a")], ""),
        ([OK, Told(3, 4, "ok", "b")], "two facts"),
        ([OK, Told(3, 4, "ok")], ""),  # the fact without its value
        ([OK, Told(1, 9, "void")], "two facts"),
        ([Told(1, 2, "ok"), Told(1, 9, "void")], "two facts"),
        ([OK, RUNNING], "ok was told, and then running"),
        ([OK, Told(1.5, 4, "running")], ""),  # they overlap
        ([RUNNING, DOUBT, Told(7, 8, "ok")], ""),
        ([DOUBT, Told(7, 8, "absent")], "doubt was told, and then absent"),
        ([Told(0, 1, "absent"), RUNNING], ""),
        ([], ""),
    ],
)
def test_histories(history: list[Told], says: str) -> None:
    assert violation(history).startswith(says)
    assert bool(violation(history)) == bool(says)
    assert violation(history[::-1]) == violation(history)


def test_a_key_that_may_be_freed_goes_back_but_not_from_a_fact() -> None:
    assert not violation([DOUBT, Told(7, 8, "absent")], back=True)
    assert violation([OK, RUNNING], back=True)
