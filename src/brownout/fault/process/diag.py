"""What the kernel tells of sockets, and does to them: netlink SOCK_DIAG, in pure Python.

`ss` speaks the same; `destroy` is the mechanism of `ss -K` (SOCK_DESTROY). See sock_diag(7), and
linux/inet_diag.h for the layout.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, NamedTuple

from brownout.errors import FaultRefused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

__all__ = ["LISTEN", "OPEN", "Diag", "Socket", "inodes"]

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ASKED = struct.Struct("=BBBxI")  # family, protocol, extensions, states
TOLD = struct.Struct("=BBBB")  # family, state, timer, retransmits
QUEUES = struct.Struct("=IIIII")  # expires, receive queue, send queue, user, inode
ID_BYTES = 48  # ports, addresses, interface, cookie
CLONE_NEWNET = 0x40000000
WAIT_SECONDS = 3.0

LISTEN = 1 << 10
OPEN = 0xFFF & ~(LISTEN | 1 << 6 | 1 << 7)  # all but LISTEN, TIME_WAIT and CLOSE


class Socket(NamedTuple):
    """A TCP socket as the kernel knows it."""

    family: int
    id: bytes  # as the kernel wants to hear it again; a cookie in it makes it the very same
    local: tuple[str, int]
    peer: tuple[str, int]
    waiting: int  # of a listener: how many connections nobody has accepted
    room: int  # of a listener: its backlog; it is full with one more than that
    inode: int


def inodes(pid: int) -> dict[int, list[int]]:
    """The sockets that a process has open: inode -> its descriptors."""
    found: dict[int, list[int]] = {}
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            link = os.readlink(f"{folder}/{name}")
        except OSError:  # closed meanwhile
            continue
        if link.startswith("socket:["):
            found.setdefault(int(link[8:-1]), []).append(int(name))
    return found


class Diag:
    """A way to ask the kernel about the TCP sockets of one network namespace.

    It is the namespace of the process `pid`, or ours. Raises FaultRefused if there is no such way.
    """

    def __init__(self, pid: int | None = None) -> None:
        try:
            self._netlink = _opened() if pid is None or _same(pid) else _opened_in(pid)
        except OSError as error:
            raise FaultRefused(
                f"the kernel can't be asked about sockets (netlink SOCK_DIAG): {error.strerror}. In another "
                "network namespace it takes root"
            ) from error
        self._netlink.settimeout(WAIT_SECONDS)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Have done with it."""
        self._netlink.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def tcp(self, states: int) -> list[Socket]:
        """All TCP sockets in one of these states. Raises OSError."""
        return [
            _parsed(data)
            for family in (socket.AF_INET, socket.AF_INET6)
            for data in self._ask(
                SOCK_DIAG_BY_FAMILY,
                NLM_F_DUMP,
                ASKED.pack(family, socket.IPPROTO_TCP, 0, states) + bytes(ID_BYTES),
            )
        ]

    def destroy(self, one: Socket) -> bool:
        """Abort that connection: RST to its peer, ECONNABORTED to its owner; False if it is no more.

        Raises PermissionError without CAP_NET_ADMIN, OSError(EOPNOTSUPP) if the kernel was built without
        CONFIG_INET_DIAG_DESTROY.
        """
        return self._destroy(one.family, one.id)

    def destroys(self) -> str:
        """Why it can't `destroy`; empty if it can. No socket is on port 0, so nothing is hit."""
        try:
            self._destroy(socket.AF_INET, bytes(40) + b"\xff" * 8)
        except PermissionError:
            return "it takes CAP_NET_ADMIN"
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return "this kernel was built without CONFIG_INET_DIAG_DESTROY"
            return str(error.strerror)
        return ""

    def _destroy(self, family: int, id_: bytes) -> bool:
        request = ASKED.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + id_
        try:
            for _ in self._ask(SOCK_DESTROY, NLM_F_ACK, request):
                pass
        except FileNotFoundError:
            return False
        return True

    def _ask(self, kind: int, flags: int, request: bytes) -> Iterator[bytes]:
        self._sequence += 1
        length = HEADER.size + len(request)
        head = HEADER.pack(length, kind, NLM_F_REQUEST | flags, self._sequence, 0)
        self._netlink.send(head + request)
        while True:
            got = self._netlink.recv(1 << 18)
            while got:
                size, what, _, number, _ = HEADER.unpack_from(got)
                data, got = got[HEADER.size : size], got[(size + 3) & ~3 :]
                if number != self._sequence:  # left over from a question that was given up
                    continue
                if what == NLMSG_DONE:
                    return
                if what == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", data)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield data


def _parsed(data: bytes) -> Socket:
    family = TOLD.unpack_from(data)[0]
    id_ = data[TOLD.size : TOLD.size + ID_BYTES]
    ports = struct.unpack_from(">HH", id_)
    size = 4 if family == socket.AF_INET else 16
    ends = [
        (socket.inet_ntop(family, id_[at : at + size]), port)
        for at, port in zip((4, 20), ports, strict=True)
    ]
    _, waiting, room, _, inode = QUEUES.unpack_from(data, TOLD.size + ID_BYTES)
    return Socket(family, id_, ends[0], ends[1], waiting, room, inode)


def _opened() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)


def _same(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    except FileNotFoundError:
        return True


def _opened_in(pid: int) -> socket.socket:
    """Opened by a thread that is in the process' network namespace, and ends: a socket stays there."""
    made: list[socket.socket | OSError] = []

    def enter() -> None:
        try:
            namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(namespace, CLONE_NEWNET):
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code))
                made.append(_opened())
            finally:
                os.close(namespace)
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=enter, name="brownout-netns")
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]
