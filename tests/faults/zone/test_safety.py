"""No packet leaves: zones have no way out, and nothing starts where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.faults.zone import caller

if TYPE_CHECKING:
    from tests.faults.zone.conftest import Ground

# In a network namespace of its own, whose one way out is a device that leads nowhere.
WITH_A_WAY_OUT = """
    import os, subprocess, sys
    from brownout.errors import FaultRefused
    from brownout.fault.zone import enter, ground

    ground.dig()
    assert enter.leaks() == ""
    def ip(words):
        subprocess.run(["ip", *words.split()], check=True)
    ip("link set lo up")
    kind = sys.argv[1]
    if kind == "device":
        ip("tuntap add out0 mode tun")
        assert enter.leaks() == ""  # it is down: some kernels have such in every namespace
        ip("link set out0 up")
    elif kind == "IPv4":
        ip("route add default dev lo")
    else:
        ip("tuntap add bo0123456789ab mode tun")
        ip("link set bo0123456789ab up")
        ip("-6 route add default dev bo0123456789ab")
    try:
        ground.check()
    except FaultRefused as refused:
        print(refused)
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    tell = os.dup(1)
    start = open("/proc/self/stat").read().rpartition(")")[2].split()[19]
    command = [sys.executable, enter.__file__, str(os.getpid()), start, str(here), "0", str(tell)]
    ran = subprocess.run([*command, "echo", "it was started"], pass_fds=(tell,))
    print(ran.returncode)
"""


@pytest.mark.usefixtures("_allowed")
@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("device", "the devices out0"),
        ("IPv4", "an IPv4 default route"),
        ("IPv6", "an IPv6 default route"),
    ],
)
def test_nothing_starts_where_a_packet_could_leave(way: str, why: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITH_A_WAY_OUT), way],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert told.stderr == ""
    assert f"zones are only where no packet can leave: here is {why}" in told.stdout
    assert f"no process is started where a packet could leave: there is {why}" in told.stdout
    assert "it was started" not in told.stdout
    assert told.stdout.endswith("125\n")


def test_a_zone_reaches_zones_and_nothing_else(ground: Ground) -> None:
    routes = [line.split()[1:3] for line in ground.a.run(caller.routes)]
    assert routes == [["0000E77F", "00000000"]]  # 127.231.0.0, by no gateway
    nowhere = "OSError: [Errno 101] Network is unreachable"
    for address in ("192.0.2.1", "10.0.0.1", "8.8.8.8"):  # no route, so no packet
        assert ground.a.run(caller.reach, address, 80) == nowhere
    assert ground.a.run(caller.reach, "::1", 9).startswith(("ConnectionRefused", "OSError"))
    silent = ground.zones["a"].address.rpartition(".")[0] + ".200"
    assert ground.a.run(caller.reach, silent, 80) == "TimeoutError: timed out"


def test_an_address_of_a_zone_taken_outside_by_mistake_stays_on_this_machine(
    ground: Ground,
) -> None:
    assert (
        caller.reach(ground.host, caller.LINES)
        == "ConnectionRefusedError: [Errno 111] Connection refused"
    )


def test_the_outside_is_not_changed(ground: Ground) -> None:
    """Neither a device nor a route nor a name of a namespace is seen from where we are."""
    with open("/proc/self/net/dev", encoding="ascii") as file:
        assert "bo" not in {line.strip()[:2] for line in file}
    with open("/proc/self/net/route", encoding="ascii") as file:
        assert "E77F" not in file.read()
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert "nsfs" not in {line.rpartition(" - ")[2].split()[0] for line in file}
    assert os.readlink("/proc/self/ns/net") == os.readlink(f"/proc/{os.getppid()}/ns/net")
