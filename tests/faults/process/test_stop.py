"""Pause and Kill: what callers of a stopped process see, and that it runs again."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from brownout.errors import ConfigurationError, FaultRefused
from brownout.fault import Kill, Latency, Pause, Process, Schedule
from brownout.fault.identity import Identity
from brownout.fault.process.stop import resume
from brownout.fault.process.subject import look
from tests.seen import within

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.process.conftest import Victim


def test_a_stopped_server_is_connected_to_and_says_nothing(server: Victim) -> None:
    with Process(server.process).make(Pause()):
        assert server.state == "T"
        caller = server.connect(0.3)  # the kernel does that
        caller.send("echo late")
        with pytest.raises(TimeoutError):
            caller.lines.readline()
    assert server.state != "T"
    again = caller.socket.makefile("r")  # the queue is answered
    caller.socket.settimeout(10)
    with caller, again:
        assert again.readline() == "late\n"


def test_a_pause_ends_by_itself(server: Victim) -> None:
    made = Process(server.pid).make(Pause(seconds=0.3))
    assert server.ask("echo back") == "back"
    assert within(lambda: not made.active)


def test_who_was_stopped_before_stays_so(server: Victim) -> None:
    os.kill(server.pid, signal.SIGSTOP)
    assert within(lambda: server.state == "T")
    with Process(server.pid).make(Pause()):
        assert server.state == "T"
    assert server.state == "T"
    os.kill(server.pid, signal.SIGCONT)
    assert server.ask("echo on") == "on"


SPAWNS = """
import os, sys
print(os.getpid(), flush=True)
at = os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0
os.waitpid(os.posix_spawn("/bin/true", ["true"], {}, file_actions=[at]), 0)
print("on", flush=True)
"""


def test_a_stop_that_has_not_come_yet_is_taken_back(tmp_path: Path) -> None:
    os.mkfifo(gate := tmp_path / "gate")
    # Until its child has opened the gate, it is in the kernel, and no stop comes to it.
    command = [sys.executable, "-c", SPAWNS, str(gate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as spawner:
        try:
            assert spawner.stdout is not None
            assert int(spawner.stdout.readline()) == spawner.pid
            members = [Identity.of(spawner.pid)]
            assert within(lambda: members[0].state() == "D")
            spawner.send_signal(signal.SIGSTOP)
            resume(members, descend=False, spared=())
            gate.write_bytes(b"")
            assert spawner.stdout.readline() == "on\n"
        finally:
            spawner.kill()


def test_it_may_die_while_it_is_stopped(server: Victim) -> None:
    with Process(server.pid).make(Pause()):
        server.process.kill()
        server.process.wait()


def test_it_is_made_in_a_loop_too() -> None:
    async def main() -> None:
        code = "import time; print(flush=True); time.sleep(60)"
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        await child.stdout.readline()
        place = Process(child)
        async with place.make(Pause()):
            stopped = look(child.pid)
            assert stopped
            assert stopped.state == "T"
        async with place.make(Kill()):
            assert await child.wait() == -signal.SIGKILL

    asyncio.run(main())


def test_a_killed_server_refuses(server: Victim) -> None:
    caller = server.connect()
    assert caller.ask("echo in") == "in"  # not accepted yet, it would be reset
    with Process(server.process).make(Kill()):
        with caller:
            assert caller.lines.readline() == ""  # the kernel has closed its connections
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), 1)
    assert server.process.wait() == -signal.SIGKILL


def test_a_schedule_stops_and_continues(server: Victim) -> None:
    flap = Schedule(on=0.05, off=0.05)
    with Process(server.pid).make(Pause(schedule=flap)) as made:
        for _ in range(2):
            assert within(lambda: server.state == "T")
            assert within(lambda: server.state != "T")
    assert server.ask("echo on") == "on"
    done = [decision.what for decision in made.log]
    assert done[:4] == ["in force", "lifted", "in force", "lifted"]


def test_a_fault_that_others_have_cleared_does_not_come_back(server: Victim) -> None:
    flap = Schedule(on=0.05, off=0.2)
    made = Process(server.pid).make(Pause(schedule=flap))
    os.unlink(f"{made.folder}/{made.id}.json")
    assert within(lambda: len(made.log) >= 1)
    before = len(made.log)
    assert not within(lambda: len(made.log) > before, 0.5)
    made.undo()
    assert server.ask("echo on") == "on"


# ------------------------------------------------------------------------------- whom it may hit


def test_a_stranger_is_never_hit() -> None:
    for whom, told in [
        (1, "process 1"),
        (os.getpid(), "is this one"),
        (os.getppid(), "an ancestor" if os.getppid() != 1 else "process 1"),
        (2**22 - 3, "has ended"),
        (0, "names no process"),
        (True, "names no process"),
        ("nginx", "names no process"),
    ]:
        with pytest.raises(FaultRefused, match=told):
            Process(whom)  # type: ignore[arg-type]


def test_a_thread_of_the_kernel_is_not_hit() -> None:
    try:
        with open("/proc/2/comm") as comm:
            if comm.read().strip() != "kthreadd":
                pytest.skip("no thread of the kernel is seen here")
    except FileNotFoundError:
        pytest.skip("no thread of the kernel is seen here")
    with pytest.raises(FaultRefused, match="thread of the kernel"):
        Process(2)


def test_the_id_of_a_thread_is_none_of_a_process(server: Victim) -> None:
    with server.connect() as caller:
        assert caller.ask("echo x") == "x"  # a thread answers
        thread = max(int(name) for name in os.listdir(f"/proc/{server.pid}/task"))
        assert thread != server.pid
        with pytest.raises(FaultRefused, match="id of a thread"):
            Process(thread)


def test_who_has_ended_is_not_mistaken_for_another(victim: Callable[..., Victim]) -> None:
    gone = victim("serve")
    place = Process(gone.process)
    gone.process.kill()
    gone.process.wait()
    with pytest.raises(FaultRefused, match="has ended"):
        place.make(Pause())
    with pytest.raises(FaultRefused, match="has ended"):
        Process(gone.process)


def test_a_kind_of_the_wire_is_not_made_at_a_process(server: Victim) -> None:
    with pytest.raises(ConfigurationError, match="no fault of a process"):
        Process(server.pid).make(Latency(seconds=1))
    with pytest.raises(ConfigurationError, match="done to the process, so to everyone"):
        Pause(share=0.5)
