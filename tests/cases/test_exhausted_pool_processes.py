"""The case's processes, each for real: the faults as a client meets them, the load's judgement, the end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import brownout
from brownout.cases.exhausted_pool import crew as crew_module
from brownout.cases.exhausted_pool.crew import ALONE, Crew, CrewError
from brownout.cases.exhausted_pool.processes.downstream import QUEUE, WORKERS
from brownout.cases.exhausted_pool.processes.price import CATALOG, judged, listed, quoted

SOURCE = str(Path(brownout.__file__).parents[1])


# ----------------------------------------------------------------------------------------- the proxy


class Line:
    """A client's connection through the proxy."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=3.0)

    def ask(self, path: str = "/quote/3") -> bytes:
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return self.socket.recv(65536)


class Rig:
    """A downstream, and the proxy in front of it."""

    def __init__(self, crew: Crew, folder: Path) -> None:
        self.folder = folder
        crew.start("downstream", "downstream", seed=1)
        (self.direct,) = crew.ready("downstream")
        self.proxy = crew.start("proxy", "proxy", seed=1, onward=self.direct)
        (self.ports,) = crew.ready("proxy")
        self._lines: list[Line] = []

    def line(self, chain: str = "with") -> Line:
        self._lines.append(Line(self.ports[chain]))
        return self._lines[-1]

    def fault(self, kind: str, **more: Any) -> None:
        self.proxy.tell(fault={"kind": kind, "name": f"test-{kind}", **more})

    def close(self) -> None:
        for line in self._lines:
            line.socket.close()
        self.proxy.tell(clear=True)

    def truth(self, kind: str) -> list[dict[str, Any]]:
        time.sleep(0.7)  # records are in the file half a second later
        lines = (self.folder / "proxy.jsonl").read_text("utf-8").splitlines()
        return [line for line in map(json.loads, lines) if line["kind"] == kind]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("proxy")
    with Crew(folder) as crew:
        yield Rig(crew, folder)


@pytest.fixture
def rig(started: Rig) -> Iterator[Rig]:
    yield started
    started.close()


def test_without_a_fault_the_proxy_passes_everything_on(rig: Rig) -> None:
    for chain in ("with", "without"):
        line = rig.line(chain)
        for _ in range(3):  # kept alive
            assert line.ask().endswith(json.dumps({"price": quoted(3)}).encode())


def test_delay_holds_a_request_back(rig: Rig) -> None:
    rig.fault("delay", seconds=0.4)
    began = time.monotonic()
    assert b"200 OK" in rig.line().ask()
    assert 0.4 <= time.monotonic() - began < 2.0


def test_hang_swallows_the_request_and_stays_silent_also_after_its_end(rig: Rig) -> None:
    rig.fault("hang")
    line = rig.line()
    line.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        line.ask()
    rig.proxy.tell(clear=True)
    with pytest.raises(TimeoutError):
        line.socket.recv(1)
    assert b"200 OK" in rig.line().ask()


def test_a_fault_hits_only_the_paths_it_is_for(rig: Rig) -> None:
    rig.fault("hang", only="/quote")
    line = rig.line()
    assert b'"ok"' in line.ask("/health")
    line.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        line.ask("/quote/1")


def test_reset_is_a_real_one_on_a_live_connection(rig: Rig) -> None:
    line = rig.line()
    assert b"200 OK" in line.ask()
    rig.fault("reset")
    with pytest.raises(ConnectionResetError):
        line.ask()


def test_refuse_resets_what_is_open_and_refuses_what_is_new(rig: Rig) -> None:
    lines = [rig.line(chain) for chain in ("with", "without")]
    assert all(b"200 OK" in line.ask() for line in lines)
    for _ in range(3):  # the same ports, again and again
        rig.fault("refuse")
        for port in rig.ports.values():
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=1.0)
        rig.proxy.tell(clear=True)
        assert b"200 OK" in rig.line().ask()
    with pytest.raises(ConnectionError):  # reset: no tidy end of stream
        lines[0].ask()


def test_a_share_is_drawn_request_by_request_and_written_down(rig: Rig) -> None:
    before = len(rig.truth("effect"))
    rig.fault("delay", share=0.3, seconds=0.0)
    line = rig.line()
    for _ in range(60):
        line.ask("/health")
    hit = len(rig.truth("effect")) - before
    assert 6 <= hit <= 32  # 18, give or take four standard deviations
    began, ended = rig.truth("began"), rig.truth("ended")
    assert began[-1]["name"] == "test-delay"
    assert len(began) == len(ended) + 1


# ------------------------------------------------------------------------------------ the downstream


def test_the_downstream_sheds_what_its_queue_cannot_hold(rig: Rig) -> None:
    lines = [Line(rig.direct["without"]) for _ in range(WORKERS + QUEUE + 4)]
    for line in lines:
        line.socket.sendall(b"GET /quote/1 HTTP/1.1\r\n\r\n")
    answers = [line.socket.recv(65536) for line in lines]
    for line in lines:
        line.socket.close()
    shed = [answer for answer in answers if b"503 Service Unavailable" in answer]
    assert len(shed) == 4
    assert all(b"Retry-After: 1" in answer for answer in shed)
    assert sum(b"200 OK" in answer for answer in answers) == WORKERS + QUEUE


# ------------------------------------------------------------------------------------------- the load


@pytest.mark.parametrize(
    ("path", "status", "body", "degraded", "verdict"),
    [
        ("/catalog", 200, {"items": CATALOG}, False, "right"),
        ("/catalog", 200, {"items": 0}, False, "wrong"),
        ("/quote/7", 200, {"price": quoted(7)}, False, "right"),
        ("/quote/7", 200, {"price": quoted(8)}, False, "wrong"),
        ("/quote/7", 200, {"price": listed(7), "degraded": True}, True, "degraded"),
        (
            "/quote/7",
            200,
            {"price": listed(7)},
            False,
            "wrong",
        ),  # a list price that does not say so
        ("/quote/7", 200, {"price": quoted(7), "degraded": True}, True, "wrong"),
        ("/quote/7", 503, {}, False, "refused"),
        ("/quote/7", 429, {}, False, "refused"),
        ("/quote/7", 502, {}, False, "failed"),
        ("/quote/7", 200, "no JSON object", False, "failed"),
    ],
)
def test_an_answer_is_judged_by_what_it_says(
    path: str, status: int, body: Any, degraded: bool, verdict: str
) -> None:
    assert judged(path, status, body, degraded=degraded) == verdict


def test_the_load_judges_when_an_answer_came(tmp_path: Path) -> None:
    """Stand-ins for the callers: one answers at once, the other late, or never."""
    doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = dict(zip(("with", "without"), (d.getsockname()[1] for d in doors), strict=True))
    with Crew(tmp_path) as crew:
        load = crew.start("load", "load", seed=1, callers=ports)
        prompt, late = (door.accept()[0] for door in doors)
        crew.ready("load")
        load.tell(start=True)
        time.sleep(0.3)
        end = time.monotonic() + 1.2
        asked = [json.loads(line) for line in prompt.recv(65536).splitlines()]
        answers = [{"status": 502, "body": {}, "degraded": False, "id": one["id"]} for one in asked]
        for answer in answers:
            prompt.sendall(json.dumps(answer).encode() + b"\n")
        time.sleep(max(0.0, end - time.monotonic()))
        late.sendall(json.dumps(answers[0]).encode() + b"\n")
        time.sleep(0.1)
        load.tell(stop=True)
    for one in (*doors, prompt, late):
        one.close()
    rows = [json.loads(line) for line in (tmp_path / "load.jsonl").read_text().splitlines()]
    calls = [row for row in rows if row["kind"] == "call"]
    first = [row for row in calls if row["chain"] == "with"][: len(asked)]
    assert {row["verdict"] for row in first} == {"failed"}
    other = [row["verdict"] for row in calls if row["chain"] == "without"]
    assert other.count("late") == 1
    assert set(other) == {"late", "never"}
    assert {"start", "stop"} <= {row["kind"] for row in rows}


def test_what_tells_the_truth_does_not_know_brownout() -> None:
    modules = ", ".join(f"processes.{name}" for name in sorted(ALONE))
    code = f"import sys, {modules}; sys.exit('brownout' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(crew_module.HERE)}
    subprocess.run(
        [sys.executable, "-P", "-S", "-c", code], env=environment, check=True, timeout=30
    )


# -------------------------------------------------------------------------------------------- the end


def running(pid: int) -> bool:
    """Whether a process runs; what has ended and was not yet waited for does not."""
    told = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return bool(told.stdout.strip()) and not told.stdout.strip().startswith("Z")


def ended(pids: list[int], seconds: float = 8.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(map(running, pids)):
            return True
        time.sleep(0.1)
    return False


PARENT = """
import json, signal, sys, tempfile, time
from pathlib import Path
from brownout.cases.exhausted_pool import demo, play
from brownout.cases.exhausted_pool.crew import Crew

original = play.start

def start(crew, fleet):
    ports = original(crew, fleet)
    pids = [member.process.pid for member in crew.members.values()]
    print(json.dumps([str(fleet.parent), pids]), file=sys.stderr, flush=True)
    return ports

play.start = start
sys.exit(demo(faults=True, json_path=None, out=sys.stdout, live=False))
"""


@pytest.fixture
def parent() -> Iterator[tuple[subprocess.Popen[str], Path, list[int]]]:
    """A demo that plays, its temporary folder, and the pids of its processes."""
    pytest.importorskip("uvicorn")
    pytest.importorskip("httpx2")
    path = os.pathsep.join([SOURCE, os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    folder, pids = "", list[int]()
    try:
        assert process.stderr is not None
        folder, pids = json.loads(process.stderr.readline())
        assert len(pids) == 7
        assert all(map(running, pids))
        yield process, Path(folder), pids
    finally:
        process.kill()
        process.communicate()
        for pid in filter(running, pids):
            os.kill(pid, signal.SIGKILL)
        if folder:  # left behind by a parent that was killed
            shutil.rmtree(folder, ignore_errors=True)


Playing = tuple[subprocess.Popen[str], Path, list[int]]


def test_a_kill_of_the_parent_ends_every_process(parent: Playing) -> None:
    process, _, pids = parent
    process.kill()
    assert ended(pids)


def test_ctrl_c_ends_every_process_and_leaves_nothing_behind(parent: Playing) -> None:
    process, folder, pids = parent
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "every process has ended" in out
    assert ended(pids, seconds=0.5)
    assert not folder.exists()


def test_a_polite_kill_ends_every_process_and_leaves_nothing_behind(parent: Playing) -> None:
    process, folder, pids = parent
    process.terminate()
    assert process.wait(timeout=20) == 128 + signal.SIGTERM
    assert ended(pids, seconds=0.5)
    assert not folder.exists()


def test_a_process_that_ends_by_itself_is_an_error_and_takes_the_others_along(
    parent: Playing,
) -> None:
    process, folder, pids = parent
    os.kill(pids[1], signal.SIGKILL)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "brownout demo: the proxy process ended with code -9" in err
    assert ended(pids, seconds=0.5)
    assert not folder.exists()


def test_a_process_that_does_not_listen_is_ended_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "END_SECONDS", 0.3)
    with Crew(tmp_path) as crew:
        member = crew.start("downstream", "downstream", seed=1)
        crew.ready("downstream")
        os.kill(member.process.pid, signal.SIGSTOP)
    assert member.process.returncode in {-signal.SIGTERM, -signal.SIGKILL}


def test_a_process_that_cannot_start_says_why(tmp_path: Path) -> None:
    with Crew(tmp_path) as crew:
        crew.start("shop", "shop", bare=True)
        with pytest.raises(CrewError, match=r"the shop process ended with code 1: \w+Error"):
            crew.ready("shop")
