"""What a shadowed folder costs, and how exact its faults are: `python -m bench.disk`, as root.

Pass-through beside the bare folder, interleaved, the best of the rounds; a good read beside 300 hung ones;
how long a hang takes; how long it takes to shadow a folder and to take the shadow away.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from brownout.fault import Disk, Error, Hang

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 4096
BLOCKS = 4096
READS = 5000
HUNG = 300
HANG_SECONDS = 0.25

HANGING = """
import os, sys, threading
fd = os.open(sys.argv[1], os.O_RDONLY)
threading.stack_size(65536)
for _ in range(int(sys.argv[2])):
    threading.Thread(target=os.pread, args=(fd, 4096, 0), daemon=True).start()
sys.stdin.read()
os._exit(0)
"""


def reads(path: Path) -> float:
    """Microseconds for one read of 4 KiB."""
    fd = os.open(path, os.O_RDONLY)
    try:
        began = time.perf_counter()
        for number in range(READS):
            os.pread(fd, BLOCK, number * 7 % BLOCKS * BLOCK)
        return (time.perf_counter() - began) / READS * 1e6
    finally:
        os.close(fd)


def writes(path: Path) -> float:
    """Microseconds for one write of 4 KiB."""
    data = bytes(BLOCK)
    fd = os.open(path, os.O_WRONLY)
    try:
        began = time.perf_counter()
        for number in range(READS):
            os.pwrite(fd, data, number * 7 % BLOCKS * BLOCK)
        return (time.perf_counter() - began) / READS * 1e6
    finally:
        os.close(fd)


def through(folder: Path, rounds: int) -> dict[str, float]:
    """Microseconds for each read and write: bare, shadowed, with a rule, and out of reach."""
    bare, real = folder / "bare", folder / "real"
    for each in (bare, real):
        each.mkdir()
        for name in ("file", "spared"):
            (each / name).write_bytes(bytes(BLOCK * BLOCKS))
    best: dict[str, float] = {}

    def run(name: str, what: Callable[[Path], float], path: Path) -> None:
        best[name] = min(best.get(name, float("inf")), what(path))

    with Disk(real, only="file", mechanism="fuse") as disk:
        for _ in range(rounds):
            run("read bare", reads, bare / "file")
            run("read shadowed", reads, real / "file")
            kernel = disk.serving and disk.serving.passthrough
            run(f"read out of reach ({'kernel' if kernel else 'cached'})", reads, real / "spared")
            run("write bare", writes, bare / "file")
            run("write shadowed", writes, real / "file")
            with disk.make(Error(bytes_from=1 << 40)):
                run("read, a rule that spares it", reads, real / "file")
            with disk.make(Error(share=0.0)):
                run("read, a rule that draws", reads, real / "file")
    return best


def beside_hung(folder: Path) -> dict[str, float]:
    """Milliseconds of a good read, alone and beside hung ones."""
    (folder / "file").write_bytes(bytes(BLOCK * BLOCKS))

    def spans(path: Path) -> list[float]:
        fd = os.open(path, os.O_RDONLY)
        found: list[float] = []
        for number in range(1, 1001):
            began = time.perf_counter()
            os.pread(fd, BLOCK, number * BLOCK)
            found.append((time.perf_counter() - began) * 1e3)
        os.close(fd)
        return found

    with Disk(folder, mechanism="fuse") as disk, disk.make(Hang(bytes_to=BLOCK)):
        assert disk.serving
        alone = spans(folder / "file")
        command = [sys.executable, "-SEc", HANGING, str(folder / "file"), str(HUNG)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as hung:
            end = time.monotonic() + 20
            while disk.serving.looked()["waiting"] < HUNG:
                assert time.monotonic() < end, "they do not all hang"
                time.sleep(0.01)
            beside = spans(folder / "file")
            assert disk.serving.looked()["waiting"] == HUNG
            assert hung.stdin
            hung.stdin.close()
            disk.stop()
    return {
        "alone p50 ms": statistics.median(alone),
        f"beside {HUNG} hung p50 ms": statistics.median(beside),
        f"beside {HUNG} hung p99 ms": statistics.quantiles(beside, n=100)[98],
    }


def hangs(folder: Path) -> dict[str, float]:
    """Milliseconds that a hang takes longer than asked."""
    (folder / "file").write_bytes(bytes(BLOCK))
    over: list[float] = []
    with Disk(folder, mechanism="fuse") as disk, disk.make(Hang(seconds=HANG_SECONDS)):
        for _ in range(20):
            began = time.perf_counter()
            try:
                (folder / "file").read_bytes()
            except OSError:
                over.append((time.perf_counter() - began - HANG_SECONDS) * 1e3)
    return {"p50 ms late": statistics.median(over), "worst ms late": max(over)}


def set_up(folder: Path) -> dict[str, float]:
    """Milliseconds to shadow a folder, to make and undo a fault there, and to take the shadow away."""
    rows: dict[str, list[float]] = {"shadow": [], "make": [], "undo": [], "take away": []}
    for number in range(11):
        disk = Disk(folder, mechanism="fuse")
        marks = [time.perf_counter()]
        disk.start()
        marks.append(time.perf_counter())
        made = disk.make(Hang())
        marks.append(time.perf_counter())
        made.undo()
        marks.append(time.perf_counter())
        disk.stop()
        marks.append(time.perf_counter())
        if number:  # the first starts the watchdog too
            for row, before, after in zip(rows.values(), marks, marks[1:], strict=False):
                row.append((after - before) * 1e3)
    return {f"{name} p50 ms": statistics.median(row) for name, row in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.disk", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as home:
        parts = ("through", "beside", "hangs", "set-up")
        through_, beside_, hangs_, set_up_ = (Path(home, part) for part in parts)
        for each in (through_, beside_, hangs_, set_up_):
            each.mkdir()
        found["4 KiB, us"] = through(through_, options.rounds)
        found["a good read"] = beside_hung(beside_)
        found[f"a hang of {HANG_SECONDS} s"] = hangs(hangs_)
        found["set-up"] = set_up(set_up_)
    if options.json:
        print(json.dumps(found))
        return
    for title, rows in found.items():
        print(title)
        for name, value in rows.items():
            print(f"  {name:32}{value:10.2f}")


if __name__ == "__main__":
    main()
