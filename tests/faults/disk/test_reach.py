"""The disk as it is reached: by the fixture, a shell and the doctor; what others say to its kinds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from brownout.errors import ConfigurationError
from brownout.fault import Disk, Error, Hang, Latency, Proxy, doctor
from brownout.fault.disk import place
from brownout.fault.made import Made
from tests.seen import within

if TYPE_CHECKING:
    from pathlib import Path

    from brownout.pytest_plugin import Faults


def brownout(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "brownout", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)


def test_a_fixture_shadows_a_folder_once(faults: Faults, folder: Path) -> None:
    made = faults.disk(folder, Error())
    assert isinstance(made, Made)
    with made, pytest.raises(OSError, match="5"):
        (folder / "blocks").read_bytes()
    assert len((folder / "blocks").read_bytes()) == 409_600
    disk = faults.disk(folder)
    assert isinstance(disk, Disk)
    with disk.make(Error()), pytest.raises(OSError, match="5"):
        (folder / "blocks").read_bytes()
    assert os.path.ismount(folder)


def test_a_shell_makes_and_clears_it(folder: Path) -> None:
    told = brownout("fault", "add", "disk", "hang", folder, "seconds=100ms", "match=bl", "--json")
    assert told.returncode == 0, told.stderr
    id_ = json.loads(told.stdout)["id"]
    with pytest.raises(OSError, match="5"):
        (folder / "blocks").read_bytes()
    assert brownout("fault", "clear", id_).returncode == 0
    assert within(lambda: not os.path.ismount(folder))
    assert len((folder / "blocks").read_bytes()) == 409_600


def test_a_shell_is_told_what_is_wrong(folder: Path) -> None:
    wrong = brownout("fault", "add", "disk", "hang", folder, "operations=read,seek")
    assert wrong.returncode == 2
    assert "operations=('read', 'seek') are some of read, write, fsync" in wrong.stderr
    assert "makes: error, full, hang" in brownout("fault", "add", "disk", "cut", folder).stderr


def test_the_doctor_tries_it(fuse: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.TRIALS["disk"]().startswith("a FUSE mount")
    monkeypatch.setattr(place, "unfit", lambda: "CAP_SYS_ADMIN is missing")
    told = doctor.TRIALS["disk"]()
    assert told == "file calls of this process, since CAP_SYS_ADMIN is missing"


def test_a_proxy_refuses_what_only_a_disk_understands() -> None:
    proxy = Proxy("127.0.0.1:1")
    for fault, told in (
        (Hang(killable=True), "killable"),
        (Hang(errno="ENOSPC"), "errno"),
        (Latency(seconds=1, operations=("read",)), "operations"),
    ):
        with pytest.raises(ConfigurationError, match=f"{told}: says something to a disk only"):
            proxy.make(fault)
