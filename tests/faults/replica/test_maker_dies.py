"""The maker of a pair is killed: its servers, its folders and its records go within seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from brownout.fault import record as records
from brownout.fault.process.subject import every
from brownout.fault.record import PREFIX
from tests.faults.replica.conftest import needs_postgres, needs_redis, until

MAKER = """
import sys, time
from brownout.fault import CutStreaming, FreezeReceiver, PostgresPair, RedisPair
pair = {"postgres": PostgresPair, "redis": RedisPair}[sys.argv[1]]()
made = pair.make(FreezeReceiver())
print("made", flush=True)
time.sleep(60)
"""


def homes() -> set[str]:
    return {str(path) for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*[0-9a-f]")}


def servers() -> set[int]:
    """Of all processes those whose working folder is one of ours."""
    found: set[int] = set()
    for stat in every():
        with suppress(OSError):
            at = os.readlink(f"/proc/{stat.pid}/cwd")
            if f"/{PREFIX}" in at and (stat.stopped or not stat.ended):
                found.add(stat.pid)
    return found


@pytest.mark.parametrize("moment", ["in force", "recorded", "watched", "made"])
@pytest.mark.parametrize("system", ["postgres", "redis"])
def test_nothing_is_left(system: str, moment: str, tmp_path: Path) -> None:
    {"postgres": needs_postgres, "redis": needs_redis}[system]()
    folder = str(tmp_path / "faults")
    environment = {**os.environ, "BROWNOUT_FAULTS": folder}
    if moment != "in force":
        environment["BROWNOUT_FAULTS_KILL_AT"] = moment
    before_homes, before_servers = homes(), servers()
    maker = subprocess.Popen(
        [sys.executable, "-c", MAKER, system], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert maker.stdout is not None
    try:
        if moment == "in force":
            assert maker.stdout.readline() == "made\n"
            assert servers() - before_servers
            maker.kill()
        assert maker.wait(30) == -signal.SIGKILL
        if moment == "recorded":  # no watchdog is there yet: the next maker's finds it
            assert records.read(folder).records
            subprocess.run(
                [sys.executable, "-m", "brownout", "fault", "clear", "--all"],
                env={**environment, "BROWNOUT_FAULTS_KILL_AT": ""},
                check=True,
                capture_output=True,
            )
        assert until(lambda: not records.read(folder).records)
        assert until(lambda: homes() <= before_homes)
        assert until(lambda: servers() <= before_servers)
    finally:
        maker.kill()
        maker.stdout.close()


def test_one_who_dies_in_the_midst_of_making_it(tmp_path: Path) -> None:
    """At any moment: while the template is made, copied, and while servers start."""
    needs_postgres()
    folder = str(tmp_path / "faults")
    before_homes, before_servers = homes(), servers()
    for delay in (0.3, 0.6, 0.8, 0.9, 1.0, 1.1):
        maker = subprocess.Popen(
            [sys.executable, "-c", MAKER, "postgres"],
            env={**os.environ, "BROWNOUT_FAULTS": folder},
            stdout=subprocess.DEVNULL,
        )
        with suppress(subprocess.TimeoutExpired):
            maker.wait(delay)
        maker.kill()
        maker.wait(10)
    assert until(lambda: not records.read(folder).records)
    assert until(lambda: homes() <= before_homes)
    assert until(lambda: servers() <= before_servers)
