"""The ground that zones stand on: network namespaces of our own, joined by nothing but a TUN device each.

No packet leaves: a zone has no default route, no device but its loopback and one TUN, and what is written
to that is read by our own process and handed to another zone, or to nobody. The addresses are out of
127.0.0.0/8, so that even a caller outside who takes one by mistake stays on this machine.

Namespaces are made by `unshare`, entered by `setns` and held by a descriptor: nothing is mounted, and they
end with the process that holds them.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

from brownout.errors import FaultRefused
from brownout.fault.zone.enter import CLONE_NEWNET, CLONE_NEWUSER, leaks, setns
from brownout.fault.zone.residents import device_name

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["MOST_ZONES", "NETWORK", "address", "check", "dig", "new_zone"]

MOST_ZONES = 64
NETWORK = bytes([127, 231, 0])
PREFIX = 24
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_LIBC = ctypes.CDLL(None, use_errno=True)


def address(number: int) -> str:
    """The address of a zone, counted from 1."""
    return socket.inet_ntoa(NETWORK + bytes([number]))


# ---------------------------------------------------------------------------------- namespaces


def _unshare(flags: int) -> None:
    if _LIBC.unshare(flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def dig() -> bool:
    """Enter a network namespace of our own, without a route; whether that took a user namespace of our own.

    Users have the right to it in there, if they may make one. Raises FaultRefused.
    """
    uid, gid = os.geteuid(), os.getegid()
    user = False
    try:
        _unshare(CLONE_NEWNET)
    except PermissionError:
        try:
            _unshare(CLONE_NEWUSER | CLONE_NEWNET)
        except OSError as error:
            raise FaultRefused(
                f"zones need a network namespace, and this user may make none ({error.strerror}). It takes "
                "root (CAP_SYS_ADMIN), or user namespaces for everyone (sysctl user.max_user_namespaces)"
            ) from error
        _map(uid, gid)
        user = True
    check()
    return user


def _map(uid: int, gid: int) -> None:
    """Be who we are in the new user namespace too: nobody in it is more than that."""
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(line)


def check() -> None:
    """That no packet can leave the network namespace we are in. Raises FaultRefused if one might."""
    if way := leaks():
        raise FaultRefused(f"zones are only where no packet can leave: here is {way}")


@contextmanager
def new_zone(number: int, id_: str, mtu: int) -> Generator[tuple[int, int]]:
    """A zone with its address and its device; the block is inside it, and gets descriptors of both."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _unshare(CLONE_NEWNET)
        namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        name = device_name(id_)
        device = _tun(name)
        _furnish(name, address(number), mtu)
        check()
        yield namespace, device
    finally:
        setns(home)
        os.close(home)


def _tun(name: str) -> int:
    """It stays when we die, without a carrier, while anybody is in the zone: it tells whose zone it is."""
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FaultRefused(
            f"zones are joined by TUN devices, and /dev/net/tun can't be opened ({error.strerror}). In a "
            "container it takes `--device /dev/net/tun`; who is not root needs the right to write to it"
        ) from error
    try:
        flags = _IFF_TUN | _IFF_NO_PI
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(device, _TUNSETPERSIST, 1)
    except OSError as error:
        os.close(device)
        raise FaultRefused(f"a zone's TUN device can't be made: {error.strerror}") from error
    return device


# ------------------------------------------------------------------------------------- rtnetlink

_NEWLINK, _NEWADDR, _DELADDR = 16, 20, 21
_REQUEST_ACK, _CREATE = 0x1 | 0x4, 0x400
_IFF_UP = 1
_IFLA_MTU, _IFLA_AF_SPEC = 4, 26
_INET_CONF, _ROUTE_LOCALNET = 1, 26
_INET6_ADDR_GEN_MODE, _GEN_NONE = 8, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_NESTED = 0x8000


def _furnish(name: str, own: str, mtu: int) -> None:
    """Bring up the loopback, 127.0.0.0/16 of it, and the device with its address; the rest is behind it."""
    lo, device = socket.if_nametoindex("lo"), socket.if_nametoindex(name)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(3)
        _say(netlink, _NEWLINK, _link(lo))  # which gives it 127.0.0.1/8
        _say(netlink, _DELADDR, _addr(lo, "127.0.0.1", 8))
        _say(netlink, _NEWADDR, _addr(lo, "127.0.0.1", 16))
        local = _attribute(_INET_CONF | _NESTED, _attribute(_ROUTE_LOCALNET, struct.pack("=I", 1)))
        quiet = _attribute(_INET6_ADDR_GEN_MODE, struct.pack("=B", _GEN_NONE))
        specs = _attribute(socket.AF_INET | _NESTED, local)
        if os.path.exists("/proc/sys/net/ipv6"):
            specs += _attribute(socket.AF_INET6 | _NESTED, quiet)
        more = _attribute(_IFLA_MTU, struct.pack("=I", mtu)) + _attribute(
            _IFLA_AF_SPEC | _NESTED, specs
        )
        _say(netlink, _NEWLINK, _link(device, up=False) + more)
        _say(netlink, _NEWADDR, _addr(device, own, PREFIX))
        _say(netlink, _NEWLINK, _link(device))


def _link(index: int, *, up: bool = True) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, _IFF_UP if up else 0, _IFF_UP)


def _addr(index: int, own: str, prefix: int) -> bytes:
    packed = socket.inet_aton(own)
    head = struct.pack("=BBBBI", socket.AF_INET, prefix, 0, 0, index)
    return head + _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)


def _attribute(kind: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + bytes(-size % 4)


def _say(netlink: socket.socket, kind: int, body: bytes) -> None:
    """One request, and the kernel's answer to it. Raises OSError with what it says."""
    flags = _REQUEST_ACK | (_CREATE if kind == _NEWADDR else 0)
    netlink.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
    answer = netlink.recv(65536)
    code = -int(struct.unpack_from("=i", answer, 16)[0])
    if code:
        raise OSError(code, f"rtnetlink: {os.strerror(code)}")
