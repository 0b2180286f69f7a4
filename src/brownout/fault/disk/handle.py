"""An open file, and what is done to its bytes."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from brownout.fault.disk import wire
from brownout.fault.disk.rules import Access
from brownout.fault.disk.wire import Open

if TYPE_CHECKING:
    from brownout.fault.disk.tree import Node

__all__ = ["Handle"]

# What is the kernel's part, or ours: it says where an appending write goes, and our buffers are not aligned.
_NOT_OURS = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_APPEND | os.O_DIRECT | os.O_TRUNC
_BACKING_OPEN, _BACKING_CLOSE = 0x4010E501, 0x4004E502  # linux/fuse.h


def kept(flags: int) -> int:
    """The flags of an open as we take them. What is only written must be read too, for old content."""
    flags = flags & ~_NOT_OURS | os.O_CLOEXEC
    return flags & ~os.O_ACCMODE | os.O_RDWR if flags & os.O_ACCMODE == os.O_WRONLY else flags


class Handle:
    """A file as it was opened once."""

    __slots__ = ("fd", "node")

    def __init__(self, node: Node, fd: int) -> None:
        self.node = node
        self.fd = fd
        node.handles += 1

    def through(self, device: int, *, kernel: bool) -> int:
        """The flags of a file that no fault reaches; where it can, the kernel serves it alone.

        It wants one backing file for all handles of an inode, and all of them to be of one sort.
        """
        if kernel and self.node.handles == 1:
            asked = bytearray(struct.pack("<iIQ", self.fd, 0, 0))
            with suppress(OSError):  # a file system that can't be passed through to
                self.node.backing = fcntl.ioctl(device, _BACKING_OPEN, asked, True)  # noqa: FBT003
        return Open.PASSTHROUGH if self.node.backing else 0

    def close(self, device: int) -> None:
        """Close it."""
        self.node.handles -= 1
        if self.node.backing and not self.node.handles:
            fcntl.ioctl(device, _BACKING_CLOSE, struct.pack("<I", self.node.backing))
            self.node.backing = 0
        os.close(self.fd)

    def read(self, offset: int, size: int) -> bytes:
        """Some of its bytes."""
        return os.pread(self.fd, size, offset)

    def access(self, operation: str, path: bytes, offset: int, size: int) -> Access:
        """An operation on it, for the rules."""
        length = os.fstat(self.fd).st_size if operation == "write" else 0
        return Access(operation, self.node.key, path, offset, size, length)

    def seek(self, offset: int, whence: int) -> bytes:
        """LSEEK, for holes and data."""
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(errno.EINVAL, "whence")
        return wire.LONG.pack(os.lseek(self.fd, offset, whence))
