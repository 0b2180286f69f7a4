"""Each verb of an undo: it works, twice too, after the death of its object too, and only on what is ours."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from brownout.fault import undo
from brownout.fault.identity import Identity
from brownout.fault.process.freeze import SWITCH
from brownout.fault.record import Step


def check(step: Step) -> None:
    """It is seen to be there; it is undone and seen to be gone, twice."""
    assert undo.left([step]) == [step]
    for _ in range(2):
        assert (
            undo.until_gone(lambda hard: undo.take([step], hard=hard), lambda: undo.gone([step]))
            == ""
        )


def test_signal(process: Identity) -> None:
    step = Step("signal", pid=process.pid, start=process.start, signal="CONT")
    process.signal(signal.SIGSTOP)
    assert undo.until_gone(lambda _: None, lambda: process.state() == "T") == ""
    check(step)
    assert process.state() != "T"
    process.signal(signal.SIGKILL)
    undo.take([step])
    assert undo.gone([step])
    with pytest.raises(ValueError, match="sends no KILL"):
        undo.take([Step("signal", pid=process.pid, start=process.start, signal="KILL")])


def test_a_signal_does_not_reach_another_process_of_the_same_id(process: Identity) -> None:
    process.signal(signal.SIGSTOP)
    assert undo.until_gone(lambda _: None, lambda: process.state() == "T") == ""
    step = Step("signal", pid=process.pid, start=process.start + 1, signal="CONT")
    undo.take([step])
    assert undo.gone([step])
    assert process.state() == "T"


def test_terminate(process: Identity) -> None:
    check(Step("terminate", pid=process.pid, start=process.start))
    assert not process.alive()


def test_terminate_one_that_will_not_go() -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        " print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        is_it = Identity.of(deaf.pid)
        check(Step("terminate", pid=is_it.pid, start=is_it.start))
        assert deaf.wait() == -signal.SIGKILL


def test_unlink_and_rmtree(tmp_path: Path) -> None:
    file, folder = tmp_path / "brownout-x", tmp_path / "brownout-y"
    file.touch()
    (folder / "a" / "b").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    (folder / "link").symlink_to(tmp_path / "kept")
    check(Step("unlink", path=str(file)))
    check(Step("rmtree", path=str(folder)))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("verb", ["unlink", "rmtree", "cgroup"])
@pytest.mark.parametrize("name", ["other", "brownout-x/other", "brownout-x/.."])
def test_what_is_not_named_as_ours_is_left_alone(tmp_path: Path, verb: str, name: str) -> None:
    (tmp_path / "brownout-x" / "other").mkdir(parents=True)
    (tmp_path / "other").touch()
    with pytest.raises(ValueError, match="left alone"):
        undo.take(
            [Step(verb, path=str(tmp_path / name), **({"quiet": {}} if verb == "cgroup" else {}))]
        )
    assert (tmp_path / "brownout-x" / "other").exists()
    assert (tmp_path / "other").exists()


def test_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept" / "a").mkdir(parents=True)
    (tmp_path / "brownout-x").symlink_to(tmp_path / "kept")
    with pytest.raises(OSError, match=r"brownout-x|link"):
        undo.take([Step("rmtree", path=str(tmp_path / "brownout-x"))])
    assert (tmp_path / "kept" / "a").exists()


def test_a_socket_goes_once_nobody_listens(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    step = Step("socket", path=path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        undo.take([step])
        assert os.path.exists(path)
        assert undo.gone([step])
    check(step)
    assert not os.path.exists(path)
    Path(path).touch()  # no socket: not ours
    undo.take([step])
    assert undo.gone([step])
    assert os.path.exists(path)


def test_a_verb_that_nobody_knows() -> None:
    with pytest.raises(ValueError, match='"explode"'):
        undo.take([Step("explode")])


def test_all_steps_are_taken_though_one_fails(process: Identity) -> None:
    with pytest.raises(ValueError, match="left alone"):
        undo.take(
            [
                Step("unlink", path="/tmp/other"),
                Step("terminate", pid=process.pid, start=process.start),
            ]
        )
    assert undo.until_gone(lambda _: None, lambda: not process.alive()) == ""


def test_what_does_not_go_is_told() -> None:
    def fail(hard: bool) -> None:
        raise OSError(5, "no")

    said = undo.until_gone(fail, lambda: False, seconds=0.05)
    assert said == "OSError: [Errno 5] no; it is still there after 0.05 s"


# --------------------------------------------------------------------------------------- cgroups


def members(group: str) -> list[str]:
    return Path(group, "cgroup.procs").read_text().split()


@pytest.mark.parametrize("version", [1, 2])
def test_cgroup(process: Identity, version: int) -> None:
    tops = {1: ["/sys/fs/cgroup/freezer"], 2: ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]}[version]
    name, frozen, thawed = SWITCH[version]
    usable = [top for top in tops if os.access(f"{top}/cgroup.procs", os.W_OK)]
    if not usable:
        pytest.skip(f"no cgroup of version {version} can be made here")
    top = Path(usable[0])
    origin = top / f"test-origin-{os.getpid()}"
    group = origin / f"brownout-test-{os.getpid()}"
    try:
        group.mkdir(parents=True)
        (group / "cgroup.procs").write_text(str(process.pid))
        (group / name).write_text(frozen)
        check(Step("cgroup", path=str(group), quiet={name: thawed}))
        assert members(str(origin)) == [str(process.pid)]
        process.signal(signal.SIGKILL)  # it runs: it can die
        assert undo.until_gone(lambda _: None, lambda: not process.alive()) == ""
    finally:
        for each in (group, origin):
            if each.exists():
                for pid in members(str(each)):
                    (top / "cgroup.procs").write_text(pid)
                each.rmdir()
