"""`brownout unknown`: what a caller's journal holds, and settling it from a shell."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from brownout import Guard, Key, Phase
from brownout._core.journal import Entry
from brownout.cli import main
from brownout.ledger import Ledger, Reply
from brownout.ledger.journal import opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY, OTHER = Key.of("order", 7, at=time.time()), Key.of("order", 8, at=time.time())
SECRET = b"card 4000 0000"


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("BROWNOUT_JOURNAL", "BROWNOUT_ASK", "BROWNOUT_ASK_HEADER"):
        monkeypatch.delenv(name, raising=False)
    return f"sqlite:///{tmp_path}/unknown.db"


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """The ledger that the command is told to ask: one in memory, by a URL of a place."""
    ledger = Ledger("memory:")
    ledger.create()
    monkeypatch.setattr("brownout.ledger.front.Ledger", lambda url, scope="": ledger)
    yield ledger
    ledger.close()


def write(
    url: str, key: str, *, target: str = "pay", held: bool = False, operation: str = "charge"
) -> None:
    journal = opened(url)
    entry = Entry(key, target, operation, Phase.SENT, time.time() - 180, 1)
    journal.begin(entry, 60.0)
    if not held:
        journal.unknown(entry)
    journal.unsettled()  # it is written


def done(ledger: Ledger, key: str) -> None:
    claim = ledger.claim(key, b"x", "opaque")
    ledger.complete(claim, Reply(201, (("x-secret", "yes"),), SECRET))  # type: ignore[arg-type]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["unknown", *arguments])
    told = capsys.readouterr()
    assert "4000" not in told.out + told.err
    return code, told.out, told.err


def test_list_shows_what_is_unknown(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(url, KEY)
    write(url, OTHER, held=True)
    code, out, _ = run(capsys, "list", "--journal", url)
    lines = sorted(line.split() for line in out.splitlines()[1:])
    assert code == 0
    assert lines == sorted(
        [[KEY, "pay", "charge", "sent", "3m", "ago", "free"],
         [OTHER, "pay", "charge", "sent", "3m", "ago", "held"]]
    )  # fmt: skip


def test_list_as_json_and_by_target(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(url, KEY)
    write(url, OTHER, target="mail")
    monkeypatch.setenv("BROWNOUT_JOURNAL", url)
    code, out, _ = run(capsys, "list", "--json", "--target", "mail")
    told: dict[str, Any] = json.loads(out)
    (one,) = told["unknown"]
    assert one.pop("since") == pytest.approx(time.time() - 180, abs=30)
    assert (code, one) == (
        0,
        {"key": OTHER, "target": "mail", "operation": "charge", "phase": "SENT", "held": False},
    )


def test_a_hostile_name_reaches_no_terminal(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(url, "\x1b[2Jkey", target="\x1b]0;x\x07", operation="a\nb")
    for form in ([], ["--json"]):
        _, out, _ = run(capsys, "list", "--journal", url, *form)
        assert "\x1b" not in out
        assert "\x07" not in out
        assert len(out.splitlines()) == (1 if form else 2)


def test_nothing_is_unknown(url: str, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    opened(url).begin(Entry(KEY, "pay", "charge", Phase.SENT, time.time(), 1), 1.0).result(5)
    opened(url).settle(KEY, "pay")
    opened(url).unsettled()
    assert run(capsys, "list", "--journal", url) == (0, "nothing is unknown\n", "")
    assert run(capsys, "resolve", "--journal", url, "--ask", "x:")[:2] == (
        0,
        "nothing is unknown\n",
    )


def test_resolve_asks_and_changes_nothing(
    url: str, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    done(ledger, KEY)
    write(url, KEY)
    write(url, OTHER)
    code, out, _ = run(capsys, "resolve", "--journal", url, "--ask", "x:", "--within", "100ms")
    assert code == 1
    assert f"{KEY}  pay  succeeded  done; it answered 201" in out
    assert f"{OTHER}  pay  unknown" in out
    assert "proves nothing" in out
    assert [entry.key for entry in opened(url).unsettled()] == [OTHER]
    done(ledger, OTHER)  # it was not voided
    code, out, _ = run(capsys, "resolve", OTHER, "--journal", url, "--ask", "x:", "--json")
    assert (code, json.loads(out)["settled"][0]["outcome"]) == (0, "succeeded")


def test_void_sees_to_it_that_it_never_happens(
    url: str, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    write(url, KEY)
    code, out, _ = run(
        capsys, "void", KEY, "--journal", url, "--ask", "x:", "--scope", "", "--within", "200ms"
    )
    assert (code, out) == (0, f"{KEY}  pay  failed     never happened, and never will\n")
    assert opened(url).unsettled() == []
    with pytest.raises(AssertionError):  # it is void
        done_or_void(ledger, KEY)


def done_or_void(ledger: Ledger, key: str) -> None:
    assert type(ledger.claim(key, b"x", "opaque")).__name__ == "Claim"


def test_a_key_out_of_a_log_needs_no_journal(
    url: str, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "void", KEY, "--ask", "x:", "--scope", "", "--within", "200ms")
    assert (code, out.split()[2]) == (0, "failed")
    code, _, err = run(capsys, "void", "order-7", "--ask", "x:", "--scope", "")
    assert (code, "no UUID of version 7" in err) == (2, True)


def test_what_somebody_has_found_out_is_forgotten(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(url, KEY)
    write(url, OTHER)
    assert run(capsys, "forget", KEY, "--journal", url) == (0, "forgotten: 1\n", "")
    assert [entry.key for entry in opened(url).unsettled()] == [OTHER]
    code, out, err = run(capsys, "forget", OTHER, KEY, "--journal", url)
    assert (code, out, len(opened(url).unsettled())) == (2, "", 1)
    assert "see: brownout unknown list" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list"], "--journal URL, or set BROWNOUT_JOURNAL"),
        (["list", "--journal", "postgresql://u:secret@h/x"], "it is a local file"),
        (["list", "--journal", "sqlite:////nowhere/x.db"], "no guard has written one there"),
        (["resolve", "--journal", "JOURNAL"], "--ask URL, or set BROWNOUT_ASK"),
        (["resolve", "--ask", "x:"], "--journal URL"),
        (
            ["resolve", "no-such-key", "--journal", "JOURNAL", "--ask", "x:"],
            "see: brownout unknown list",
        ),
        (["void", str(KEY), "--journal", "JOURNAL", "--ask", "x:"], "in which scope?"),
        (["void", "--journal", "JOURNAL", "--ask", "x:"], "each KEY, or --all"),
        (["void", str(KEY), "--all", "--journal", "JOURNAL", "--ask", "x:"], "each KEY, or --all"),
    ],
    ids=lambda x: " ".join(x).replace(KEY, "KEY") if isinstance(x, list) else "",
)
def test_what_is_wrong_is_one_line_that_says_what_to_do(
    url: str, ledger: Ledger, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    write(url, KEY)
    code, out, err = run(capsys, *[url if one == "JOURNAL" else one for one in arguments])
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1
    assert "secret" not in err


def test_one_place_is_not_asked_for_several_targets(
    url: str, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    write(url, KEY)
    write(url, OTHER, target="mail")
    code, _, err = run(capsys, "void", "--all", "--journal", url, "--ask", "x:")
    assert code == 2
    assert "name one by --target: mail, pay" in err
    everything = [
        "void",
        "--all",
        "--journal",
        url,
        "--ask",
        "x:",
        "--scope",
        "",
        "--within",
        "200ms",
    ]
    code, out, _ = run(capsys, *everything, "--target", "mail")
    assert (code, out.split()[:3]) == (0, [OTHER, "mail", "failed"])


def test_what_a_guard_wrote_is_what_is_listed(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    def charge() -> None:
        raise TimeoutError("no answer")

    guard = Guard("pay", journal=url)
    guard.outcome(charge, key=KEY)
    guard.unknowns()
    _, out, _ = run(capsys, "list", "--journal", url)
    assert out.splitlines()[1].split() == [KEY, "pay", "charge", "sending", "0s", "ago", "free"]
