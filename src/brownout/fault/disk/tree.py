"""The files below a folder as the kernel names them: a number for each inode that it knows of.

Each is held open by an O_PATH descriptor, so that it is found again whatever becomes of its name, of the
folder's own path, and of what is mounted over it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import TYPE_CHECKING

from brownout.fault.disk import wire
from brownout.fault.disk.wire import Set

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Node", "Tree"]

ROOT = 1
_HOLD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Node:
    """One inode."""

    __slots__ = ("backing", "direct", "fd", "handles", "key", "lookups", "number", "path", "seen")

    def __init__(self, number: int, fd: int, key: tuple[int, int]) -> None:
        self.number = number
        self.fd = fd
        self.key = key
        self.lookups = 1
        self.handles = 0  # how many times it is open
        self.direct = True  # and how
        self.backing = 0  # by which number the kernel has it itself
        self.path = b""
        self.seen = -1  # when that was its path

    @property
    def magic(self) -> str:
        """A name for it that always leads to it."""
        return f"/proc/self/fd/{self.fd}"


class Tree:
    """All inodes that the kernel knows of, and what is done by name."""

    def __init__(self, folder: str) -> None:
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        found = os.fstat(fd)
        root = Node(ROOT, fd, (found.st_dev, found.st_ino))
        self._nodes = {ROOT: root}
        self._numbers = {root.key: ROOT}
        self._next = ROOT + 1
        self._renames = 0
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._above = len(os.readlink(os.fsencode(root.magic)).rstrip(b"/")) + 1

    def node(self, number: int) -> Node:
        """The inode of that number. Raises OSError for one that the kernel should not know of."""
        try:
            return self._nodes[number]
        except KeyError:
            raise OSError(errno.ESTALE, "no such inode") from None

    def path(self, node: Node) -> bytes:
        """Its path below the folder, now; that of one of its names, and its last one if it has none."""
        if node.seen != self._renames:
            path = os.readlink(os.fsencode(node.magic))
            if not path.endswith(b" (deleted)") or not node.path:
                node.path = path[self._above :]
            node.seen = self._renames
        return node.path

    # ------------------------------------------------------------------------- known to the kernel

    def entry(self, folder: Node, name: bytes) -> bytes:
        """Look a name up, and answer with it: the kernel knows of its inode from now on."""
        fd = os.open(name, _HOLD, dir_fd=folder.fd)
        found = os.fstat(fd)
        key = found.st_dev, found.st_ino
        number = self._numbers.get(key)
        if number is not None:
            os.close(fd)
            self._nodes[number].lookups += 1
        else:
            number, self._next = self._next, self._next + 1
            self._nodes[number] = Node(number, fd, key)
            self._numbers[key] = number
        return wire.entry(number, found)

    def forget(self, number: int, times: int) -> None:
        """The kernel forgets so many of its lookups."""
        node = self._nodes.get(number)
        if node is None or number == ROOT:
            return
        node.lookups -= times
        if node.lookups <= 0 and not node.handles:
            del self._nodes[number], self._numbers[node.key]
            os.close(node.fd)

    # ------------------------------------------------------------------------------- attributes

    def change(self, node: Node, body: memoryview, truncate: Callable[[int], None]) -> None:
        """SETATTR."""
        valid, _, _, size, _, atime, mtime, _, anano, mnano, _, mode, _, uid, gid, _ = (
            wire.SETATTR.unpack_from(body)
        )
        if valid & (Set.UID | Set.GID):
            os.chown(node.magic, uid if valid & Set.UID else -1, gid if valid & Set.GID else -1)
        if valid & Set.MODE:
            os.chmod(node.magic, stat.S_IMODE(mode))
        if valid & Set.SIZE:
            truncate(size)
        if valid & (Set.ATIME | Set.MTIME):
            found = os.fstat(node.fd)
            now = _now() if valid & (Set.ATIME_NOW | Set.MTIME_NOW) else 0
            atime = now if valid & Set.ATIME_NOW else atime * 10**9 + anano
            mtime = now if valid & Set.MTIME_NOW else mtime * 10**9 + mnano
            os.utime(
                node.magic,
                ns=(
                    atime if valid & Set.ATIME else found.st_atime_ns,
                    mtime if valid & Set.MTIME else found.st_mtime_ns,
                ),
            )

    # ------------------------------------------------------------------------------ by name

    def create(self, folder: Node, name: bytes, flags: int, mode: int, who: tuple[int, int]) -> int:
        """Create a file and open it."""
        fd = os.open(
            name,
            flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            stat.S_IMODE(mode),
            dir_fd=folder.fd,
        )
        os.fchown(fd, *self._owner(folder, who))
        os.fchmod(fd, stat.S_IMODE(mode))
        return fd

    def mknod(
        self, folder: Node, name: bytes, mode: int, device: int, who: tuple[int, int]
    ) -> None:
        """MKNOD."""
        os.mknod(name, mode, wire.device(device), dir_fd=folder.fd)
        self._give(folder, name, who)

    def mkdir(self, folder: Node, name: bytes, mode: int, who: tuple[int, int]) -> None:
        """MKDIR."""
        os.mkdir(name, stat.S_IMODE(mode), dir_fd=folder.fd)
        self._give(folder, name, who)

    def symlink(self, folder: Node, name: bytes, target: bytes, who: tuple[int, int]) -> None:
        """SYMLINK."""
        os.symlink(target, name, dir_fd=folder.fd)
        self._give(folder, name, who)

    def _give(self, folder: Node, name: bytes, who: tuple[int, int]) -> None:
        uid, gid = self._owner(folder, who)
        os.chown(name, uid, gid, dir_fd=folder.fd, follow_symlinks=False)

    def _owner(self, folder: Node, who: tuple[int, int]) -> tuple[int, int]:
        above = os.fstat(folder.fd)
        return (who[0], above.st_gid) if above.st_mode & stat.S_ISGID else who

    def link(self, node: Node, folder: Node, name: bytes) -> None:
        """LINK."""
        os.link(os.fsencode(node.magic), name, dst_dir_fd=folder.fd, follow_symlinks=True)
        self._renames += 1

    def unlink(self, folder: Node, name: bytes) -> None:
        """UNLINK."""
        os.unlink(name, dir_fd=folder.fd)
        self._renames += 1

    def rmdir(self, folder: Node, name: bytes) -> None:
        """RMDIR."""
        os.rmdir(name, dir_fd=folder.fd)

    def rename(self, folder: Node, name: bytes, to: Node, new: bytes, flags: int) -> None:
        """RENAME and RENAME2."""
        if not flags:
            os.rename(name, new, src_dir_fd=folder.fd, dst_dir_fd=to.fd)
        elif self._libc.renameat2(folder.fd, name, to.fd, new, flags):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._renames += 1

    def fallocate(self, fd: int, mode: int, offset: int, size: int) -> None:
        """FALLOCATE."""
        long = ctypes.c_int64
        if self._libc.fallocate64(fd, mode, long(offset), long(size)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def listed(node: Node) -> list[bytes]:
    """Every name of a folder, ready to be sent: with where the next one is, its inode and its type."""
    found = os.fstat(node.fd)
    rows = [(found.st_ino, stat.S_IFDIR, b"."), (found.st_ino, stat.S_IFDIR, b"..")]
    fd = os.open(node.magic, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with os.scandir(fd) as names:
            for each in names:
                kind = (
                    stat.S_IFLNK
                    if each.is_symlink()
                    else stat.S_IFDIR
                    if each.is_dir(follow_symlinks=False)
                    else stat.S_IFREG
                    if each.is_file(follow_symlinks=False)
                    else 0
                )
                rows.append((each.inode(), kind, os.fsencode(each.name)))
    finally:
        os.close(fd)
    return [
        wire.dirent(inode, number, kind >> 12, name)
        for number, (inode, kind, name) in enumerate(rows, 1)
    ]


def _now() -> int:
    import time

    return time.time_ns()
