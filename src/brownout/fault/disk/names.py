"""What the kernel asks for by name: to look up, to make, to move and to remove."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from brownout.fault.disk import wire
from brownout.fault.disk.wire import Op

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout.fault.disk.tree import Node, Tree

    Who = tuple[int, int]

__all__ = ["Names"]


class Names:
    """Takes the messages apart, and has the tree do what they say. `does` has what does each."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.does: dict[int, Callable[[Node, memoryview, Who], bytes | None]] = {
            Op.LOOKUP: lambda node, body, _: tree.entry(node, wire.names(body)[0]),
            Op.FORGET: self._forget,
            Op.BATCH_FORGET: self._batch_forget,
            Op.READLINK: lambda node, _, __: os.fsencode(os.readlink("", dir_fd=node.fd)),
            Op.SYMLINK: self._symlink,
            Op.MKNOD: self._mknod,
            Op.MKDIR: self._mkdir,
            Op.UNLINK: self._unlink,
            Op.RMDIR: self._rmdir,
            Op.RENAME: self._rename,
            Op.RENAME2: self._rename2,
            Op.LINK: self._link,
        }

    def _forget(self, node: Node, body: memoryview, _: Who) -> None:
        self._tree.forget(node.number, wire.LONG.unpack_from(body)[0])

    def _batch_forget(self, _: Node, body: memoryview, __: Who) -> None:
        many = wire.PAIR.unpack_from(body)[0]
        for number in range(many):
            at = wire.PAIR.size + number * wire.FORGOTTEN.size
            self._tree.forget(*wire.FORGOTTEN.unpack_from(body, at))

    def _symlink(self, folder: Node, body: memoryview, who: Who) -> bytes:
        name, target = wire.names(body)[:2]
        self._tree.symlink(folder, name, target, who)
        return self._tree.entry(folder, name)

    def _mknod(self, folder: Node, body: memoryview, who: Who) -> bytes:
        mode, device = wire.PAIR.unpack_from(body)
        name = wire.names(body, wire.CREATE.size)[0]
        self._tree.mknod(folder, name, mode, device, who)
        return self._tree.entry(folder, name)

    def _mkdir(self, folder: Node, body: memoryview, who: Who) -> bytes:
        mode, _ = wire.PAIR.unpack_from(body)
        name = wire.names(body, wire.PAIR.size)[0]
        self._tree.mkdir(folder, name, mode, who)
        return self._tree.entry(folder, name)

    def _unlink(self, folder: Node, body: memoryview, _: Who) -> bytes:
        self._tree.unlink(folder, wire.names(body)[0])
        return b""

    def _rmdir(self, folder: Node, body: memoryview, _: Who) -> bytes:
        self._tree.rmdir(folder, wire.names(body)[0])
        return b""

    def _link(self, folder: Node, body: memoryview, _: Who) -> bytes:
        name = wire.names(body, wire.LONG.size)[0]
        self._tree.link(self._tree.node(wire.LONG.unpack_from(body)[0]), folder, name)
        return self._tree.entry(folder, name)

    def _rename(self, folder: Node, body: memoryview, _: Who) -> bytes:
        return self._renamed(folder, body, wire.LONG.size, 0)

    def _rename2(self, folder: Node, body: memoryview, _: Who) -> bytes:
        return self._renamed(folder, body, wire.RENAME2.size, wire.RENAME2.unpack_from(body)[1])

    def _renamed(self, folder: Node, body: memoryview, at: int, flags: int) -> bytes:
        name, new = wire.names(body, at)[:2]
        to = self._tree.node(wire.LONG.unpack_from(body)[0])
        self._tree.rename(folder, name, to, new, flags)
        return b""
