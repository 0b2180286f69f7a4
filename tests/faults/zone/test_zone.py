"""A zone: what runs in it, how it is reached, and what it is refused for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from brownout.errors import BrownoutError, ConfigurationError, FaultRefused
from brownout.fault import Partition, Zones
from tests.faults.zone import caller
from tests.seen import within

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.zone.conftest import Ground

PYTHON = [sys.executable, "-S", "-c"]


def test_each_process_is_in_its_zone_and_we_stay_where_we_are(ground: Ground) -> None:
    mine = os.readlink("/proc/self/ns/net")
    a, a_thread, a_name = ground.a.run(caller.network)
    b, _, b_name = ground.b.run(caller.network)
    assert (a_name, b_name) == ("a", "b")
    assert len({a, b, mine}) == 3
    assert a == a_thread == ground.a.run(caller.child_namespace)
    assert {
        os.readlink(f"/proc/self/task/{task}/ns/net") for task in os.listdir("/proc/self/task")
    } == {mine}
    assert ground.a.run(caller.local_echo) == "here"


def test_popen_is_subprocess_popen(ground: Ground) -> None:
    code = "import os, sys; print(os.environ['BROWNOUT_ZONE'], os.environ['MORE']); sys.exit(7)"
    environment = {**os.environ, "MORE": "yes"}
    process = ground.zones["a"].popen(
        [*PYTHON, code], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.communicate(timeout=10)[0] == "a yes\n"
    assert process.returncode == 7


def test_a_process_that_can_not_be_started(ground: Ground, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\0\1")
    garbage.chmod(0o755)
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        ground.zones["a"].popen(["no-such-program"])
    with pytest.raises(FaultRefused, match="is not started in zone a: OSError"):
        ground.zones["a"].popen([garbage])
    with pytest.raises(ConfigurationError, match="list of arguments"):
        ground.zones["a"].popen("ls")
    with pytest.raises(ConfigurationError, match="no shell"):
        ground.zones["a"].popen(["ls"], shell=True)


def test_a_worker_keeps_what_it_has_and_runs_calls_side_by_side(ground: Ground) -> None:
    with ground.zones["a"].worker() as worker:
        calls = [worker.submit(caller.together, 5) for _ in range(5)]
        assert len({call.result(15) for call in calls}) == 5


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("value", ValueError, "no"),
        ("unfit", RuntimeError, "Unfit: ab"),
        ("answer", TypeError, "pickle"),
    ],
)
def test_a_function_that_fails(
    how: str, error: type[Exception], words: str, ground: Ground
) -> None:
    with pytest.raises(error, match=words):
        ground.a.run(caller.fail, how)
    assert ground.a.run(caller.fail, "not") == "not"


def test_a_worker_that_dies(ground: Ground) -> None:
    with ground.zones["a"].worker() as worker:
        with pytest.raises(ConnectionResetError, match=r"zone a .* has ended"):
            worker.run(caller.fail, "exit")
        with pytest.raises(ConnectionResetError, match="has ended"):
            worker.run(caller.fail, "not")


def ask(address: str, line: str = "get") -> str:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 5) as one:
        one.sendall(f"{line}\n".encode())
        one.shutdown(socket.SHUT_WR)
        said = b""
        while part := one.recv(65_536):
            said += part
        return said.decode()


def test_it_is_reached_from_outside(ground: Ground) -> None:
    past_the_links = ground.zones["shared"].forward(caller.LINES)
    through_a = ground.zones["a"].forward(caller.LINES, to=ground.zones["shared"])
    assert ask(past_the_links).strip().isdecimal()
    assert len(ask(through_a, "much 3000000")) == 3_000_000
    with ground.zones.between("a", "shared").make(Partition(how="refuse")):
        assert ask(past_the_links).strip().isdecimal()
        with pytest.raises(ConnectionResetError):
            ask(through_a)
    assert ask(through_a).strip().isdecimal()


@pytest.mark.parametrize(
    ("names", "mtu", "why"),
    [
        ((), 1500, "1 to 64 zones"),
        (("a", "a"), 1500, "a name of its own"),
        (("a:1",), 1500, "is no name"),
        (("a",), 100, "mtu=100"),
    ],
)
def test_zones_that_can_not_be(names: tuple[str, ...], mtu: int, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Zones(*names, mtu=mtu)


def test_links_that_can_not_be(ground: Ground) -> None:
    with pytest.raises(LookupError, match=r'no zone is called "c"; there are: a, b, shared'):
        ground.zones.between("a", "c")
    with pytest.raises(ConfigurationError, match="not within one"):
        ground.zones.between("a", "a")
    with pytest.raises(ConfigurationError, match="a zone and a port"):
        ground.zones.between("a", "shared:http")
    ground.zones.between("a", "b").make(Partition(), name="mine").undo()
    with (
        ground.zones.between("a", "b").make(Partition(), name="mine"),
        pytest.raises(ConfigurationError, match='"mine" is in force'),
    ):
        ground.zones.between("a", "shared").make(Partition(), name="mine")


def test_zones_that_are_not_up() -> None:
    zones = Zones("a", "b")
    with pytest.raises(LookupError, match="not up"):
        zones["a"]
    with zones:
        link = zones.between("a", "b")
        made = link.make(Partition())
    assert not made.active  # it ended with them
    with pytest.raises(BrownoutError, match="not up"):
        link.make(Partition())
    with pytest.raises(FaultRefused, match="up once"):
        zones.__enter__()


def test_a_small_mtu(ground: Ground) -> None:
    from tests.faults.zone.conftest import serve

    with Zones("a", "b", mtu=1500) as zones:
        host = serve(zones, "b")
        with zones["a"].worker() as worker:
            assert worker.run(caller.download, host, 2_000_000) > 1e6


def test_all_in_them_ends_with_them(ground: Ground) -> None:
    with Zones("a") as zones:
        stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
        first = zones["a"].popen([*PYTHON, stubborn], stdout=subprocess.PIPE)
        second = zones["a"].popen(["sleep", "60"])
        assert first.stdout
        with first.stdout as said:
            said.readline()
    assert (first.returncode, second.returncode) == (-9, -15)
    assert within(lambda: not os.path.exists(f"/proc/{first.pid}"))
