"""Start a process in a zone: `enter.py PID START NAMESPACE USER TELL COMMAND...`, run by its path.

It enters the zone that the router PID holds as its descriptor NAMESPACE, sees that no packet can leave, and
becomes the command. What is wrong it says on the descriptor TELL, which ends once the command runs.
It imports nothing of brownout, since it runs for every process: the front door would take 0.1 s.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import sys

__all__ = ["CLONE_NEWNET", "CLONE_NEWUSER", "DEVICE", "leaks", "setns"]

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
DEVICE = re.compile(r"bo[0-9a-f]{12}")  # of every zone, and nobody else's
_SIOCGIFFLAGS, _IFF_UP = 0x8913, 1
_ROUTES = (("IPv4", "/proc/thread-self/net/route"), ("IPv6", "/proc/thread-self/net/ipv6_route"))


def setns(namespace: int, kind: int = CLONE_NEWNET) -> None:
    """Enter a namespace, given by its descriptor, with this thread. Raises OSError."""
    import ctypes  # the watchdog knows this module too, and has no need of it

    if ctypes.CDLL(None, use_errno=True).setns(namespace, kind):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def leaks() -> str:
    """By what a packet could leave the network namespace that this thread is in; empty: it can't."""
    strange = [
        name for _, name in socket.if_nameindex() if name != "lo" and not DEVICE.fullmatch(name)
    ]
    # Some kernels put devices for tunnels into every namespace ("tunl0", "sit0"): they are down.
    if strange := [name for name in strange if _up(name)]:
        return f"the devices {', '.join(strange)}"
    for family, path in _ROUTES:
        try:
            with open(path, encoding="ascii") as file:
                if any(_default(line.split()) for line in file):
                    return f"an {family} default route"
        except FileNotFoundError:
            continue  # no such family
    return ""


def _up(name: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_:
        found = fcntl.ioctl(any_, _SIOCGIFFLAGS, struct.pack("16s16x8x", name.encode()))
    return bool(struct.unpack_from("=H", found, 16)[0] & _IFF_UP)


def _default(route: list[str]) -> bool:
    """Whether it leads anywhere. IPv6 has "nowhere" as a route too: a reject, on the loopback."""
    if len(route) == 11:  # Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
        return route[1] == route[7] == "00000000"
    return len(route) == 10 and route[0] == "0" * 32 and route[1] == "00" and route[9] != "lo"


def _start(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def main(arguments: list[str]) -> None:
    """Become the command, or end with 125 and a word why not."""
    pid, start, namespace, user, tell = map(int, arguments[:5])
    os.set_inheritable(tell, False)  # noqa: FBT003  os' own
    try:
        _enter(pid, start, namespace, user)
        os.execvp(arguments[5], arguments[5:])  # noqa: S606  from a list, without a shell
    except BaseException as error:
        os.write(tell, f"{type(error).__name__}: {error}".encode()[:4000])
        os._exit(125)


def _enter(pid: int, start: int, namespace: int, user: int) -> None:
    zone = os.open(f"/proc/{pid}/fd/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    above = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC) if user else -1
    if _start(pid) != start:
        raise ProcessLookupError(f"the router of the zones, process {pid}, has died")
    if user:
        setns(above, CLONE_NEWUSER)
    setns(zone)
    if way := leaks():
        raise PermissionError(f"no process is started where a packet could leave: there is {way}")


if __name__ == "__main__":
    main(sys.argv[1:])
