"""A folder that is shadowed, and readers that are processes of their own."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from brownout.fault import Disk
from brownout.fault.disk import mount
from brownout.fault.disk.serving import unfit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WAIT_SECONDS = 20.0
BLOCK = 4096


@pytest.fixture(scope="session")
def fuse() -> None:
    if problem := unfit():
        pytest.skip(f"no file system can be mounted here: {problem}")


@pytest.fixture
def folder(fuse: None, tmp_path: Path) -> Path:
    """With a file of 100 numbered blocks."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "blocks").write_bytes(b"".join(b"%04d" % n * (BLOCK // 4) for n in range(100)))
    return data


@pytest.fixture
def disk(folder: Path) -> Iterator[Disk]:
    with Disk(folder) as disk:
        assert not disk.weaker
        yield disk
    assert not os.path.ismount(folder)
    assert [each for each in mount.ours() if each.path == str(folder)] == []


class Outsider:
    """Another process, which runs a piece of code and says what came of it."""

    def __init__(self, code: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-SE", "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def hear(self, seconds: float = WAIT_SECONDS) -> str:
        """The next line of its output; "" once it has ended."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], seconds)[0], "it says nothing"
        return self.process.stdout.readline().decode().strip()

    def says_nothing(self, seconds: float) -> bool:
        assert self.process.stdout is not None
        return not select.select([self.process.stdout], [], [], seconds)[0]

    def end(self) -> None:
        self.process.kill()
        self.process.wait(WAIT_SECONDS)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


READ = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
print("open", flush=True)
began = time.monotonic()
try:
    said = len(os.pread(fd, int(sys.argv[3]), int(sys.argv[2])))
except OSError as error:
    said = type(error).__name__ + " " + str(error.errno)
print(f"{time.monotonic() - began:.3f} {said}", flush=True)
"""


@pytest.fixture
def outsider(disk: Disk) -> Iterator[Callable[..., Outsider]]:
    """They end before the disk does."""
    started: list[Outsider] = []

    def start(code: str, *arguments: object) -> Outsider:
        started.append(Outsider(code, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.end()
