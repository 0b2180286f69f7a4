"""A mount of ours: made, found by its source, which only we name so, and taken away for good."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from typing import NamedTuple

from brownout.fault.record import PREFIX

__all__ = ["Mounted", "find", "mount", "ours", "unmount", "unmount_idle"]

_NOSUID_NODEV = 2 | 4
_FORCE, _DETACH, _NOFOLLOW = 1, 2, 8  # by force: the connection is aborted, whoever still uses it
_OCTAL = re.compile(rb"\\([0-7]{3})")


class Mounted(NamedTuple):
    """One mount: where, and of what."""

    path: str
    source: str


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def mount(device: int, path: str, source: str, mode: int) -> None:
    """Mount an open /dev/fuse over a folder of this mode. Raises OSError."""
    options = f"fd={device},rootmode={mode:o},user_id=0,group_id=0,default_permissions,allow_other"
    failed = _libc().mount(
        source.encode(), os.fsencode(path), b"fuse.brownout", _NOSUID_NODEV, options.encode()
    )
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def ours() -> list[Mounted]:
    """Every mount of ours, as this process sees them; the last one made first."""
    found: list[Mounted] = []
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            place, _, rest = line.partition(b" - ")
            kind, source = rest.split()[:2]
            if kind == b"fuse.brownout":
                fields = place.split()
                path = _OCTAL.sub(lambda code: bytes([int(code[1], 8)]), fields[4])
                found.append(Mounted(os.fsdecode(path), source.decode()))
    return found[::-1]


def find(source: str) -> list[Mounted]:
    """Every mount of that source."""
    if not source.startswith(PREFIX):
        raise ValueError(
            f'{source} is left alone: an undo unmounts only what is named "{PREFIX}..."'
        )
    return [each for each in ours() if each.source == source]


def unmount(source: str) -> None:
    """Take it away, also with open files, with hung reads, and with a server that has died.

    The files that others have open fail from then on; what hangs is answered, with ECONNABORTED.
    """
    libc = _libc()
    for each in find(source):
        path = os.fsencode(each.path)
        if libc.umount2(path, _FORCE | _DETACH | _NOFOLLOW):
            number = ctypes.get_errno()
            if number not in (errno.EINVAL, errno.ENOENT):  # another process was faster
                raise OSError(number, os.strerror(number), each.path)


def unmount_idle(path: str) -> bool:
    """Take it away if nothing in it is open, with all that is yet to be written; whether that went."""
    return not _libc().umount2(os.fsencode(path), _NOFOLLOW)
