"""Through the mount all is as in the bare folder: the same operations give the same, errors too."""

from __future__ import annotations

import errno
import mmap
import os
import random
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from brownout.fault import Disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMES = ["a", "b", "ä", "sub", "sub/a", "sub/b", "other", "other/a", "other/deep", "x" * 200]


class Player:
    """Does random things in a folder; the same ones for the same seed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.files: list[int] = []
        self.does: list[Callable[[], object]] = [
            *[self.write, self.read, self.append, self.truncate, self.open, self.close] * 2,
            *(self.mkdir, self.rmdir, self.unlink, self.rename, self.exchange, self.link),
            *(self.symlink, self.readlink, self.chmod, self.chown, self.utime, self.fifo),
            *(self.listdir, self.stat, self.fsync, self.allocate, self.seek, self.access),
        ]

    def path(self) -> Path:
        return self.folder / self.chance.choice(NAMES)

    def file(self) -> int:
        if not self.files:
            raise OSError(errno.EBADF, "none is open")
        return self.chance.choice(self.files)

    def step(self) -> object:
        does = self.chance.choice(self.does)
        try:
            return does.__name__, does()
        except OSError as error:
            return does.__name__, errno.errorcode[error.errno or 0]

    def data(self) -> bytes:
        return self.chance.randbytes(1) * self.chance.randrange(20_000)

    def open(self) -> int:
        extra = self.chance.choice([0, os.O_TRUNC, os.O_EXCL, os.O_APPEND, os.O_NOFOLLOW])
        self.files.append(os.open(self.path(), os.O_RDWR | os.O_CREAT | extra, 0o640))
        return len(self.files)

    def close(self) -> None:
        fd = self.file()
        self.files.remove(fd)
        os.close(fd)

    def write(self) -> int:
        return os.pwrite(self.file(), self.data(), self.chance.randrange(30_000))

    def append(self) -> int:
        data = self.data()
        with open(self.path(), "ab", buffering=0) as file:
            return file.write(data)

    def read(self) -> bytes:
        return os.pread(self.file(), self.chance.randrange(40_000), self.chance.randrange(20_000))

    def truncate(self) -> None:
        size = self.chance.randrange(30_000)
        if self.chance.random() < 0.5:
            os.truncate(self.path(), size)
        else:
            os.ftruncate(self.file(), size)

    def mkdir(self) -> None:
        self.path().mkdir(0o750)

    def rmdir(self) -> None:
        self.path().rmdir()

    def unlink(self) -> None:
        self.path().unlink()

    def rename(self) -> None:
        os.rename(self.path(), self.path())

    def exchange(self) -> None:
        subprocess.run(["mv", "-nT", self.path(), self.path()], check=False, capture_output=True)

    def link(self) -> None:
        os.link(self.path(), self.path())

    def symlink(self) -> None:
        self.path().symlink_to(self.chance.choice(NAMES))

    def readlink(self) -> str:
        return os.readlink(self.path())

    def chmod(self) -> None:
        os.chmod(self.path(), self.chance.choice([0o600, 0o644, 0o4755, 0o2770]))

    def chown(self) -> None:
        os.chown(self.path(), 12, 34, follow_symlinks=self.chance.random() < 0.5)

    def utime(self) -> None:
        os.utime(self.path(), ns=(123_456_789, -5_000_000_001), follow_symlinks=False)

    def fifo(self) -> None:
        os.mkfifo(self.path(), 0o600)

    def listdir(self) -> list[str]:
        return sorted(os.listdir(self.path()))

    def stat(self) -> tuple[object, ...]:
        return seen(self.path())

    def fsync(self) -> None:
        os.fsync(self.file())

    def allocate(self) -> None:
        os.posix_fallocate(self.file(), self.chance.randrange(10_000), 5_000)

    def seek(self) -> int:
        return os.lseek(self.file(), 0, os.SEEK_DATA)

    def access(self) -> bool:
        return os.access(self.path(), os.W_OK)

    def end(self) -> None:
        for fd in self.files:
            os.close(fd)


def seen(path: Path) -> tuple[object, ...]:
    found = os.lstat(path)
    size = found.st_size if not stat.S_ISDIR(found.st_mode) else 0
    return oct(found.st_mode), found.st_nlink, found.st_uid, found.st_gid, size


def everything(folder: Path) -> Iterator[tuple[object, ...]]:
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        link = os.readlink(path) if path.is_symlink() else ""
        yield path.relative_to(folder), seen(path), content, link


@pytest.mark.parametrize("only", [None, "sub|a"])
@pytest.mark.parametrize("seed", range(4))
def test_random_operations_give_the_same(
    fuse: None, tmp_path: Path, seed: int, only: str | None
) -> None:
    bare, real = tmp_path / "bare", tmp_path / "real"
    bare.mkdir()
    real.mkdir()
    with Disk(real, only=only) as disk:
        there, here = Player(disk.path, seed), Player(bare, seed)
        try:
            for number in range(400):
                assert (number, there.step()) == (number, here.step())
            assert list(everything(real)) == list(everything(bare))
        finally:
            there.end()
            here.end()
    assert list(everything(real)) == list(everything(bare))


def test_an_open_file_lives_on_without_a_name(disk: Disk) -> None:
    path = disk.path / "gone"
    with open(path, "w+b") as file:
        file.write(b"still here")
        file.flush()
        path.unlink()
        os.rename(disk.path / "blocks", disk.path / "moved")
        assert os.pread(file.fileno(), 100, 0) == b"still here"
        assert os.fstat(file.fileno()).st_nlink == 0
    assert os.listdir(disk.path) == ["moved"]


def test_a_file_is_mapped_and_shared(disk: Disk) -> None:
    with open(disk.path / "blocks", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        assert mapped[4096:4100] == b"0001"
        mapped[4096:4100] = b"here"
        mapped.flush()
        assert os.pread(file.fileno(), 4, 4096) == b"here"


def test_a_folder_of_many_names_is_listed_whole(disk: Disk) -> None:
    names = {f"{number:05}-{'x' * 100}" for number in range(3000)}
    for name in names:
        (disk.path / name).touch()
    assert set(os.listdir(disk.path)) == {*names, "blocks"}


def test_others_rights_are_kept(disk: Disk) -> None:
    (disk.path / "mine").write_text("secret")
    (disk.path / "mine").chmod(0o600)
    os.chmod(disk.path, 0o777)
    code = f"cat {disk.path}/mine; echo new > {disk.path}/theirs; stat -c %u:%g {disk.path}/theirs"
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", code]
    for parent in disk.path.parents:
        if parent == Path(tempfile.gettempdir()):
            break
        os.chmod(parent, 0o755)
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert told.stdout == "65534:65534\n"
    assert "denied" in told.stderr.lower()


def test_what_was_there_is_seen_before_while_and_after(fuse: None, folder: Path) -> None:
    with Disk(folder) as disk:
        (disk.path / "new").write_text("written through")
        assert len((disk.path / "blocks").read_bytes()) == 409_600
    assert (folder / "new").read_text() == "written through"


def test_a_new_folder_is_made_and_removed() -> None:
    with Disk() as disk:
        (disk.path / "a").write_text("x")
        assert stat.S_IMODE(os.stat(disk.path).st_mode) == 0o700
    assert not disk.path.exists()


def test_the_kernel_serves_what_no_fault_reaches(fuse: None, folder: Path) -> None:
    (folder / "bad").write_bytes(b"bad")
    with Disk(folder, only="bad") as disk:
        assert disk.serving
        if not disk.serving.passthrough:
            pytest.skip("this kernel passes nothing through (it takes Linux 6.9)")
        before = disk.serving.looked()["messages"]
        with open(disk.path / "blocks", "rb", buffering=0) as file:
            for _ in range(1000):
                os.pread(file.fileno(), 4096, 8192)
            assert disk.serving.looked()["messages"] - before < 100
        with open(disk.path / "bad", "rb", buffering=0) as file:
            for _ in range(100):
                os.pread(file.fileno(), 4096, 0)
        assert disk.serving.looked()["messages"] - before > 100
