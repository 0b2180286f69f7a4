"""Abort the TCP connections that a process has: SOCK_DESTROY, or a disconnect of its own sockets.

Which sockets are the process' is told by their inodes in /proc/<pid>/fd; no other one is touched.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING

from brownout.errors import BrownoutError, FaultRefused
from brownout.fault.process.diag import OPEN, Diag, inodes
from brownout.fault.process.mechanism import Mechanism
from brownout.fault.process.stop import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout.fault.process.diag import Socket
    from brownout.fault.process.subject import Subject

    Chooser = Callable[[list[Socket]], list[Socket]]

__all__ = ["abort"]

PIDFD_GETFD = 438  # the same on every architecture
AF_UNSPEC = struct.pack("=H14x", 0)


def abort(subject: Subject, chosen: Chooser, *, weaker: bool = False) -> Mechanism:
    """Reset those of its connections that are chosen, once. There is nothing to undo."""
    with Diag(subject.pid) as diag:
        why = "it was asked for" if weaker else diag.destroys()
    by = f"pidfd_getfd and a disconnect, since {why}" if why else "SOCK_DESTROY"
    return Mechanism(name=by, enter=lambda: _enter(subject, chosen, why))


def _enter(subject: Subject, chosen: Chooser, why: str) -> None:
    with Diag(subject.pid) as diag:
        try:
            owned = inodes(subject.pid)
        except PermissionError as error:
            raise subject.foreign() from error
        except FileNotFoundError:
            return  # it has ended, and its connections with it
        victims = chosen([one for one in diag.tcp(OPEN) if one.inode in owned])
        for one in victims:
            if why:
                _disconnect(subject, owned[one.inode][0], one.inode)
            else:
                diag.destroy(one)
        ids = {one.id for one in victims}
        wait_for(
            lambda: not any(one.id in ids for one in diag.tcp(OPEN)),
            f"some of {len(victims)} connections of {subject} are still there",
        )


def _disconnect(subject: Subject, fd: int, inode: int) -> None:
    """Connect the process' own socket to nowhere (connect(2), AF_UNSPEC): the kernel sends RST.

    Weaker: its owner sees ECONNRESET, or EPIPE if it waits for data. It takes the right to trace the process.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    mine = libc.syscall(PIDFD_GETFD, subject.pidfd, fd, 0)
    if mine < 0:
        code = ctypes.get_errno()
        if code in (errno.EBADF, errno.ESRCH):  # closed meanwhile, or the process has ended
            return
        raise FaultRefused(
            f"the sockets of {subject} can't be had (pidfd_getfd): {os.strerror(code)}. It takes root, or a "
            "child of our own"
        )
    try:
        if os.fstat(mine).st_ino != inode:  # closed meanwhile, and the number used again
            return
        if libc.connect(mine, AF_UNSPEC, len(AF_UNSPEC)):
            code = ctypes.get_errno()
            raise BrownoutError(f"a connection of {subject} is not reset: {os.strerror(code)}")
    finally:
        os.close(mine)
