"""Toxiproxy's client for Python, unchanged, drives the API: the example runs and tells what it should."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[3] / "examples" / "toxiproxy_client.py"


def test_the_client_for_python_drives_it() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE)],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = dict(re.split(r": +", line, maxsplit=1) for line in done.stdout.splitlines())
    seen = {fault: text.partition(" after ")[0] for fault, text in told.items()}
    assert seen == {
        "no fault": "42",
        "latency 200 ms": "42",
        "the request lost": "TimeoutError",
        "the reply reset": "ConnectionResetError",
        "down": "ConnectionRefusedError",
    }
    assert float(told["latency 200 ms"].split()[-2]) >= 0.2
