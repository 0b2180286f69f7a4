"""The server of one mount: reads what the kernel asks for, answers it, or lets it hang.

One thread. What hangs waits in a heap until it is due, and keeps nothing else from being answered.
"""

from __future__ import annotations

import errno
import heapq
import os
import threading
import time
from contextlib import suppress
from itertools import count
from math import inf
from queue import SimpleQueue
from typing import TYPE_CHECKING

from brownout.fault.disk import wire
from brownout.fault.disk.handle import Handle, kept
from brownout.fault.disk.names import Names
from brownout.fault.disk.rules import Access, Fate, Rules
from brownout.fault.disk.tree import ROOT, Tree, listed
from brownout.fault.disk.wire import Init, Op, Open

if TYPE_CHECKING:
    import re
    from collections.abc import Callable

    from brownout.fault.disk.tree import Node

__all__ = ["Session"]

MOST_BYTES = 1 << 20  # of one read or write
AT_ONCE = 64  # messages, before timers and commands are looked at
BACKGROUND = (4096, 4096)
_WANTED = (
    Init.ASYNC_READ
    | Init.BIG_WRITES
    | Init.ASYNC_DIO
    | Init.PARALLEL_DIROPS
    | Init.MAX_PAGES
    | Init.INIT_EXT
    | Init.DIRECT_IO_ALLOW_MMAP
    | Init.PASSTHROUGH
)
Answer = bytes | None  # None: nothing is answered, or not yet


class Waiting:
    """An operation that hangs."""

    __slots__ = ("fate", "message")

    def __init__(self, message: bytes, fate: Fate) -> None:
        self.message = message
        self.fate = fate


class Session:
    """Answers the kernel for one folder. `only` says which files faults can reach; None is all."""

    def __init__(self, device: int, folder: str, only: re.Pattern[bytes] | None) -> None:
        self.device = device
        self.tree = Tree(folder)
        self._names = Names(self.tree).does
        self.rules = Rules()
        self.waiting: dict[int, Waiting] = {}
        self.messages = 0
        self.ready = False  # the kernel and we have agreed
        self.passthrough = False
        self.mmap = False
        self._only = only
        self._handles: dict[int, Handle | list[bytes]] = {}
        self._next = count(1)
        self._slow: SimpleQueue[tuple[int, int, Callable[[int], None]]] | None = None
        self._due: list[tuple[float, int]] = []
        self._buffer = bytearray(MOST_BYTES + 4096)
        self._buffers = [self._buffer]
        self._view = memoryview(self._buffer)
        self._does: dict[int, Callable[[Node, memoryview, int], Answer]] = {
            Op.GETATTR: lambda node, _, __: wire.attributed(os.fstat(node.fd)),
            Op.SETATTR: self._setattr,
            Op.OPEN: self._open,
            Op.READ: self._read,
            Op.WRITE: self._write,
            Op.STATFS: self._statfs,
            Op.RELEASE: self._release,
            Op.FSYNC: self._fsync,
            Op.INIT: self._init,
            Op.OPENDIR: self._opendir,
            Op.READDIR: self._readdir,
            Op.RELEASEDIR: self._release,
            Op.FSYNCDIR: self._fsyncdir,
            Op.CREATE: self._create,
            Op.INTERRUPT: self._interrupt,
            Op.DESTROY: lambda _, __, ___: b"",
            Op.FALLOCATE: self._fallocate,
            Op.LSEEK: self._lseek,
        }

    # --------------------------------------------------------------------------------- the turns

    def serve(self) -> bool:
        """Answer what there is, without waiting; False once the mount is gone."""
        for _ in range(AT_ONCE):
            try:
                size = os.readv(self.device, self._buffers)
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return False
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue  # it was interrupted before we could read it
                raise
            self.messages += 1
            self._answer(self._view[:size], fated=False)
        return True

    def wake(self) -> float | None:
        """Let what is due go on; seconds until the next is, None if none will be."""
        now = time.monotonic()
        while self._due:
            due, unique = self._due[0]
            if unique not in self.waiting:
                heapq.heappop(self._due)
            elif due <= now:
                heapq.heappop(self._due)
                self._go_on(unique)
            else:
                return due - now
        return None

    def release(self, name: str | None = None) -> None:
        """What hangs by this fault (None: by any) is done, at once and rightly."""
        for unique, waiting in list(self.waiting.items()):
            if name is None or name in waiting.fate.rules:
                waiting.fate = Fate()
                self._go_on(unique)

    def _go_on(self, unique: int) -> None:
        waiting = self.waiting.pop(unique)
        if waiting.fate.errno:
            self._reply(unique, error=waiting.fate.errno)
        else:
            self._answer(memoryview(waiting.message), fated=True, fate=waiting.fate)

    def _reply(self, unique: int, body: bytes = b"", *, error: int = 0) -> None:
        head = wire.ANSWER.pack(wire.ANSWER.size + len(body), -error, unique)
        try:
            os.writev(self.device, (head, body))
        except OSError as failed:  # the caller has died, or the mount is gone
            if failed.errno not in (errno.ENOENT, errno.ENODEV, errno.ENOTCONN, errno.EPERM):
                raise

    def _answer(self, message: memoryview, *, fated: bool, fate: Fate | None = None) -> None:
        _, op, unique, number, uid, gid, *_ = wire.HEADER.unpack_from(message)
        self._message, self._fated, self._fate, self._who = message, fated, fate, (uid, gid)
        try:
            node, body = self.tree.node(number or ROOT), message[wire.HEADER.size :]
            if (does := self._does.get(op)) is not None:
                answer = does(node, body, unique)
            elif (names := self._names.get(op)) is not None:
                answer = names(node, body, self._who)
            else:
                raise OSError(errno.ENOSYS, "not ours")  # noqa: TRY301
        except _Held:
            pass
        except OSError as error:
            self._reply(unique, error=error.errno or errno.EIO)
        except Exception:  # a fault of ours must not take the whole mount with it
            self._reply(unique, error=errno.EIO)
        else:
            if answer is not None:
                self._reply(unique, answer)

    def _hangs(self, access: Access, unique: int) -> Fate | None:
        """Decide; put it aside if it waits, raise if it fails. None: there is nothing to it."""
        if self._fated:
            return self._fate
        now = time.monotonic()
        fate = self.rules.decide(access, now)
        if fate is None:
            return None
        if fate.seconds > 0:
            self.waiting[unique] = Waiting(bytes(self._message), fate)
            if fate.seconds < inf:
                heapq.heappush(self._due, (now + fate.seconds, unique))
            raise _Held
        if fate.errno:
            raise OSError(fate.errno, "made")
        return fate

    # --------------------------------------------------------------------------------- the bytes

    def _handle(self, number: int) -> Handle:
        found = self._handles.get(number)
        if not isinstance(found, Handle):
            raise OSError(errno.EBADF, "no such handle")
        return found

    def _read(self, node: Node, body: memoryview, unique: int) -> Answer:
        number, offset, size, *_ = wire.READ.unpack_from(body)
        handle = self._handle(number)
        if not self.rules or not handle.node.direct:
            return os.pread(handle.fd, size, offset)
        access = handle.access("read", self.tree.path(node), offset, size)
        fate = self._hangs(access, unique)
        if fate and fate.old:
            return fate.old.past(access, handle.read)
        return os.pread(handle.fd, size, offset)

    def _write(self, node: Node, body: memoryview, unique: int) -> Answer:
        number, offset, size, *_ = wire.READ.unpack_from(body)
        handle = self._handle(number)
        data = body[wire.READ.size : wire.READ.size + size]
        if not self.rules or not handle.node.direct:
            return wire.SIZE.pack(os.pwrite(handle.fd, data, offset), 0)
        access = handle.access("write", self.tree.path(node), offset, size)
        self._hangs(access, unique)
        now = time.monotonic()
        self.rules.before_write(access, now, handle.read)
        done = os.pwrite(handle.fd, data, offset)
        self.rules.after_write(access._replace(size=done), now)
        return wire.SIZE.pack(done, 0)

    def _fsync(self, node: Node, body: memoryview, unique: int) -> Answer:
        number, flags, *_ = wire.HANDLE.unpack_from(body)
        handle = self._handle(number)
        if self.rules and handle.node.direct:
            self._hangs(handle.access("fsync", self.tree.path(node), 0, 0), unique)
        if self._slow is None:
            self._slow = SimpleQueue()
            threading.Thread(target=self._sync, args=(self._slow,), daemon=True).start()
        self._slow.put((unique, handle.fd, os.fdatasync if flags & 1 else os.fsync))
        return None

    def _sync(self, asked: SimpleQueue[tuple[int, int, Callable[[int], None]]]) -> None:
        """The one thing that truly waits for the disk below: on a thread of its own, one at a time."""
        while True:
            unique, fd, sync = asked.get()
            try:
                sync(fd)  # the kernel keeps the file open until it is answered
            except OSError as error:
                self._reply(unique, error=error.errno or errno.EIO)
            else:
                self._reply(unique)

    def _fallocate(self, node: Node, body: memoryview, unique: int) -> Answer:
        number, offset, size, mode, _ = wire.FALLOCATE.unpack_from(body)
        handle = self._handle(number)
        if self.rules and handle.node.direct:
            access = handle.access("write", self.tree.path(node), offset, size)
            self._hangs(access, unique)
            self.rules.before_write(access, time.monotonic(), handle.read)
        self.tree.fallocate(handle.fd, mode, offset, size)
        return b""

    def _lseek(self, __: Node, body: memoryview, ___: int) -> Answer:
        number, offset, whence, *_ = wire.LSEEK.unpack_from(body)
        return self._handle(number).seek(offset, whence)

    def _setattr(self, node: Node, body: memoryview, _: int) -> Answer:
        def truncate(size: int) -> None:
            length = os.fstat(node.fd).st_size
            if self.rules and size < length:
                access = Access("write", node.key, b"", size, length - size, length)
                with open(node.magic, "rb", buffering=0) as file:
                    self.rules.before_write(
                        access,
                        time.monotonic(),
                        lambda at, many: os.pread(file.fileno(), many, at),
                    )
            os.truncate(node.magic, size)

        self.tree.change(node, body, truncate)
        return wire.attributed(os.fstat(node.fd))

    # --------------------------------------------------------------------------------- opening

    def _open(self, node: Node, body: memoryview, _: int) -> Answer:
        flags, _ = wire.PAIR.unpack_from(body)
        return self._opened(node, _reopened(node, flags))

    def _create(self, folder: Node, body: memoryview, _: int) -> Answer:
        flags, mode, _, _ = wire.CREATE.unpack_from(body)
        name = wire.names(body, wire.CREATE.size)[0]
        try:
            fd = self.tree.create(folder, name, kept(flags), mode, self._who)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            fd = -1
        entry = self.tree.entry(folder, name)
        node = self.tree.node(wire.LONG.unpack_from(entry)[0])
        return entry + self._opened(node, fd if fd >= 0 else _reopened(node, flags))

    def _opened(self, node: Node, fd: int) -> bytes:
        if not node.handles:  # the kernel wants all handles of a file to be of one sort
            node.direct = self._only is None or bool(self._only.match(self.tree.path(node)))
        handle, number = Handle(node, fd), next(self._next)
        flags = (
            int(Open.DIRECT_IO)
            if node.direct
            else handle.through(self.device, kernel=self.passthrough)
        )
        self._handles[number] = handle
        return wire.OPENED.pack(number, flags, node.backing)

    def _release(self, _: Node, body: memoryview, __: int) -> Answer:
        handle = self._handles.pop(wire.LONG.unpack_from(body)[0], None)
        if isinstance(handle, Handle):
            handle.close(self.device)
            self.tree.forget(handle.node.number, 0)
        return b""

    # --------------------------------------------------------------------------------- folders

    def _opendir(self, node: Node, *_: object) -> Answer:
        number = next(self._next)
        self._handles[number] = listed(node)
        return wire.OPENED.pack(number, 0, 0)

    def _readdir(self, node: Node, body: memoryview, __: int) -> Answer:
        number, offset, size, *_ = wire.READ.unpack_from(body)
        names = self._handles[number]
        if isinstance(names, Handle):
            raise OSError(errno.ENOTDIR, "no folder")
        if not offset:
            names[:] = listed(node)
        told = b""
        for name in names[offset:]:
            if len(told) + len(name) > size:
                break
            told += name
        return told

    def _fsyncdir(self, node: Node, _: memoryview, __: int) -> Answer:
        fd = os.open(node.magic, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        return b""

    # --------------------------------------------------------------------------------- the rest

    def _init(self, _: Node, body: memoryview, __: int) -> Answer:
        major, minor, ahead, low = wire.INIT.unpack_from(body)
        if major < 7 or minor < 31:
            raise OSError(errno.EPROTO, "a kernel older than 5.4")
        high = wire.LONG.unpack_from(body, 12)[0] >> 32 if low & Init.INIT_EXT else 0
        flags = (low | high << 32) & _WANTED
        self.passthrough = bool(flags & Init.PASSTHROUGH) and self._only is not None
        if not self.passthrough:
            flags &= ~Init.PASSTHROUGH
        self.ready = True
        self.mmap = bool(flags & Init.DIRECT_IO_ALLOW_MMAP)
        return wire.INITED.pack(
            *(7, min(minor, 40), ahead, flags & 0xFFFFFFFF, *BACKGROUND, MOST_BYTES, 1),
            *(MOST_BYTES >> 12, 0, flags >> 32, int(self.passthrough)),
        )

    def _statfs(self, node: Node, _: memoryview, __: int) -> Answer:
        found = os.statvfs(node.magic)
        return wire.STATFS.pack(
            *(found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree),
            *(found.f_bsize, found.f_namemax, found.f_frsize),
        )

    def _interrupt(self, _: Node, body: memoryview, __: int) -> Answer:
        unique = wire.LONG.unpack_from(body)[0]
        waiting = self.waiting.get(unique)
        if waiting is not None and waiting.fate.killable:
            del self.waiting[unique]
            self._reply(unique, error=errno.EINTR)
        return None


class _Held(Exception):
    """It hangs: nothing is answered now."""


def _reopened(node: Node, flags: int) -> int:
    try:
        return os.open(node.magic, kept(flags))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS, errno.ETXTBSY):
            with suppress(OSError):
                return os.open(node.magic, flags & os.O_ACCMODE | os.O_CLOEXEC)
        raise
