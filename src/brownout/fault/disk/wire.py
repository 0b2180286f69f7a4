"""The messages of /dev/fuse, as bytes: what `include/uapi/linux/fuse.h` of Linux says (7.31 and later)."""

from __future__ import annotations

import os
from enum import IntEnum, IntFlag
from struct import Struct

__all__ = ["Init", "Op", "Open", "Set", "attributes", "entry", "names"]


class Op(IntEnum):
    """What the kernel asks for. What is not here is answered with ENOSYS, and the kernel does without."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    RENAME2 = 45
    LSEEK = 46


class Init(IntFlag):
    """What the two sides can do; the kernel offers, we choose."""

    ASYNC_READ = 1 << 0
    BIG_WRITES = 1 << 5
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    INIT_EXT = 1 << 30
    DIRECT_IO_ALLOW_MMAP = 1 << 36
    PASSTHROUGH = 1 << 37


class Open(IntFlag):
    """How an open file is treated by the kernel."""

    DIRECT_IO = 1 << 0  # each read and write comes to us
    KEEP_CACHE = 1 << 1
    PASSTHROUGH = 1 << 7  # none does


class Set(IntFlag):
    """What SETATTR sets."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8


HEADER = Struct("<IIQQIIIHH")  # length, op, unique, node, uid, gid, pid, extension, padding
ANSWER = Struct("<IiQ")  # length, -errno, unique
ATTR = Struct("<QQQQQQIIIIIIIIII")
ENTRY = Struct("<QQQQII")
VALID = Struct("<QII")  # of GETATTR and SETATTR, before the attributes
SETATTR = Struct("<IIQQQqqqIIIIIIII")  # times may lie before 1970
READ = Struct("<QQIIQII")  # handle, offset, size; WRITE too, before the data
SIZE = Struct("<II")
HANDLE = Struct("<QII")  # handle, flags: FSYNC, RELEASE, and the answers of OPEN and OPENDIR
OPENED = Struct("<QIi")
CREATE = Struct("<IIII")  # flags, mode, umask, more
PAIR = Struct("<II")
LONG = Struct("<Q")
RENAME2 = Struct("<QII")
FALLOCATE = Struct("<QQQII")
LSEEK = Struct("<QQII")
FORGOTTEN = Struct("<QQ")
DIRENT = Struct("<QQII")
STATFS = Struct("<QQQQQIIII24x")
INIT = Struct("<IIII")
INITED = Struct("<IIIIHHIIHHII24x")

VALID_SECONDS = (
    1  # for the kernel to believe names and attributes: others may write to the real folder
)


def attributes(found: os.stat_result) -> bytes:
    """The attributes of a file."""
    return ATTR.pack(
        found.st_ino,
        found.st_size,
        found.st_blocks,
        *(at // 10**9 & (1 << 64) - 1 for at in _times(found)),
        *(at % 10**9 for at in _times(found)),
        found.st_mode,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        _device(found.st_rdev),
        4096,
        0,
    )


def _times(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns


def _device(number: int) -> int:
    """As the kernel writes one into 32 bits (`new_encode_dev`)."""
    major, minor = os.major(number), os.minor(number)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def device(encoded: int) -> int:
    """The other way round."""
    return os.makedev((encoded & 0xFFF00) >> 8, (encoded & 0xFF) | ((encoded >> 12) & 0xFFF00))


def entry(node: int, found: os.stat_result) -> bytes:
    """A name's file, with its attributes."""
    head = ENTRY.pack(node, 0, VALID_SECONDS, VALID_SECONDS, 0, 0)
    return head + attributes(found)


def attributed(found: os.stat_result) -> bytes:
    """The answer to GETATTR."""
    return VALID.pack(VALID_SECONDS, 0, 0) + attributes(found)


def names(body: memoryview, at: int = 0) -> list[bytes]:
    """The names that a message ends in."""
    return bytes(body[at:]).split(b"\0")[:-1]


def dirent(inode: int, offset: int, kind: int, name: bytes) -> bytes:
    """One name of a folder."""
    head = DIRENT.pack(inode, offset, len(name), kind)
    return head + name + bytes(-len(name) % 8)
