"""ExhaustFiles: a process that can open no more, and what its callers see."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from brownout.fault import ExhaustFiles, Process
from tests.seen import within

if TYPE_CHECKING:
    from tests.faults.process.conftest import Caller, Victim


def limit_of(pid: int) -> tuple[int, int]:
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    soft, hard = next(line for line in limits if "open files" in line).split()[3:5]
    return int(soft), int(hard)


def test_no_caller_is_accepted_and_all_are_connected(server: Victim) -> None:
    before = limit_of(server.pid)
    with server.connect() as old:
        assert old.ask("echo in") == "in"
        with Process(server.process).make(ExhaustFiles()):
            new = server.connect(0.3)  # the kernel does that
            new.send("echo late")
            with pytest.raises(TimeoutError):
                new.lines.readline()
            assert old.ask("last accept") == "EMFILE"  # who is in, is served
    assert limit_of(server.pid) == before
    new.socket.settimeout(10)
    with new, new.socket.makefile("r") as again:
        assert again.readline() == "late\n"


def test_so_many_are_left(server: Victim) -> None:
    served: list[Caller] = []
    with server.connect() as first:
        assert first.ask("echo in") == "in"
        with Process(server.pid).make(ExhaustFiles(left=2)):
            for _ in range(2):
                served.append(server.connect())
                assert served[-1].ask("echo in") == "in"
            server.connect()
            assert within(lambda: first.ask("last accept") == "EMFILE")


def test_holes_are_counted(server: Victim) -> None:
    """A limit bounds the number of a descriptor, not how many there are."""
    callers = [server.connect() for _ in range(4)]
    assert [caller.ask("echo in") for caller in callers] == ["in"] * 4
    files = f"/proc/{server.pid}/fd"
    count = len(os.listdir(files))
    callers[1].close()
    assert within(lambda: len(os.listdir(files)) < count)
    with Process(server.pid).make(ExhaustFiles(left=1)):
        taken = {int(name) for name in os.listdir(files)}
        assert len(set(range(limit_of(server.pid)[0])) - taken) == 1
        assert server.connect().ask("echo in") == "in"  # into the hole
        with pytest.raises(TimeoutError):
            server.connect(0.3).ask("echo out")


def test_who_is_forked_meanwhile_gets_the_limit_back(server: Victim) -> None:
    before = limit_of(server.pid)
    with server.connect() as caller:
        assert caller.ask("echo in") == "in"
        with Process(server.pid).make(ExhaustFiles()):
            child = int(caller.ask("fork"))
            assert limit_of(child) == limit_of(server.pid) != before
    assert limit_of(child) == limit_of(server.pid) == before


def test_a_limit_of_its_own_is_left_alone(server: Victim) -> None:
    with server.connect() as caller:
        assert caller.ask("echo in") == "in"
        with Process(server.pid).make(ExhaustFiles()):
            assert caller.ask("lower 123") == "lowered"
    assert limit_of(server.pid)[0] == 123


def test_it_may_die_meanwhile(server: Victim) -> None:
    with Process(server.process).make(ExhaustFiles()):
        server.process.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="to be another user takes root")
def test_a_process_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may lack CAP_SYS_RESOURCE (in a container): then it is done as that user."""
    refusals: list[int] = []

    def refused(pid: int, number: int, limits: object = None) -> object:
        refusals.append(pid)
        raise PermissionError

    with subprocess.Popen(["/bin/sleep", "60"], user=65534, group=65534, extra_groups=[]) as other:
        try:
            before = limit_of(other.pid)
            with monkeypatch.context() as patch:
                patch.setattr("resource.prlimit", refused)
                with Process(other.pid).make(ExhaustFiles()):
                    assert limit_of(other.pid)[0] < 20
            assert refusals
            assert limit_of(other.pid) == before
        finally:
            other.kill()
