"""A SQLite file of ours: made with mode 0600 whatever the umask, for this user only, and known by its header.

SQLite gives its -wal and -shm the same mode. A symlink, somebody else's file and a database that is not
ours are refused; nothing here deletes a file.
"""

from __future__ import annotations

import os
import stat

_HEADER_BYTES = 100
_SIDES = ("-wal", "-shm", "-journal")


class Trouble(Exception):
    """A file can't be used now. The message says what is wrong and what to do.

    `passing` is true for what mends itself in a moment, when another writer is done.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


def claim(path: str, application: int, what: str) -> tuple[int, int]:
    """Make the file if there is none, check that it is ours to write, and tell which it is (device, inode).

    `application` is its SQLite application id, `what` what it is to be ("a fleet file"). Raises Trouble for
    what is not ours, OSError for what the machine refuses.
    """
    _refuse_symlinks(path)
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a FIFO may not hang us
    descriptor = os.open(path, flags, 0o600)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Trouble("it is not a regular file; give another path")
        if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
            raise Trouble(f"it belongs to user {found.st_uid}, not to this one; give another path")
        header = os.read(descriptor, _HEADER_BYTES)
        if header and not is_ours(header, application):
            raise Trouble(
                f"it is not {what}, and is left alone; give another path, or move it away"
            )
        if hasattr(os, "fchmod") and found.st_mode & 0o777 != 0o600:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    return found.st_dev, found.st_ino


def _refuse_symlinks(path: str) -> None:
    for name in (path, *(path + side for side in _SIDES)):
        try:
            found = os.lstat(name)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(found.st_mode):
            kind = "a symlink" if stat.S_ISLNK(found.st_mode) else "not a regular file"
            raise Trouble(f"{_which(name, path)} is {kind}; remove it, or give another path")
        if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
            raise Trouble(
                f"{_which(name, path)} belongs to user {found.st_uid}, not to this one; give another path"
            )


def _which(name: str, path: str) -> str:
    return "it" if name == path else f"its {name[len(path) + 1 :]} file"


def is_ours(header: bytes, application: int) -> bool:
    """Whether a file begins as a SQLite file of that application does."""
    if header[:16] != b"SQLite format 3\0":
        return False
    return int.from_bytes(header[68:72], "big") == application
