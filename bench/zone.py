"""What zones cost, and whether a link does what it was asked: `python -m bench.zone [--rounds N]`.

Set-up and tear-down, one exchange and the throughput of a link without a fault; then delay, loss, bandwidth
and slow handshakes, each asked against measured by clients in a zone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from brownout.fault import Bandwidth, Latency, Loss, SlowHandshake, Zones
from tests.faults.zone import caller

SERVER = Path(__file__).parents[1] / "tests" / "faults" / "zone" / "server.py"
UNANSWERED_SECONDS = 1.0


def serve(zones: Zones) -> str:
    zone = zones["b"]
    command = [sys.executable, "-S", str(SERVER), zone.address]
    server = zone.popen(command, stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()
    return zone.address


def line(what: str, *cells: str) -> None:
    print(f"{what:34}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


def spread(seconds: list[float]) -> list[str]:
    """Median, 95th and 99th percentile, in milliseconds."""
    found = sorted(seconds)
    at = [found[min(len(found) - 1, int(len(found) * part))] for part in (0.5, 0.95, 0.99)]
    return [f"{each * 1e3:.2f} ms" for each in at]


def setting_up(rounds: int) -> None:
    line("", "p50", "p95", "p99")
    for count in (2, 3, 16):
        ups: list[float] = []
        starts: list[float] = []
        downs: list[float] = []
        for _ in range(rounds):
            zones = Zones(*(f"z{number}" for number in range(count)))
            began = time.perf_counter()
            zones.__enter__()
            up = time.perf_counter()
            zones["z0"].popen(["sleep", "60"])
            started = time.perf_counter()
            zones.__exit__(None, None, None)
            downs.append(time.perf_counter() - started)
            ups.append(up - began)
            starts.append(started - up)
        line(f"{count} zones: up", *spread(ups))
        line("  a process started in one", *spread(starts))
        line("  down, with it", *spread(downs))


def bare(mtu: int) -> None:
    with Zones("a", "b", mtu=mtu) as zones, zones["a"].worker() as worker:
        host = serve(zones)
        worker.run(caller.connect, "raw", host)
        line(f"one exchange, mtu {mtu}", *spread(worker.run(caller.turns, 2000)))
        rates = [worker.run(caller.download, host, 200_000_000) for _ in range(3)]
        line(f"throughput, mtu {mtu}", f"{median(rates) * 8 / 1e9:.2f} Gbit/s")


def asked(rounds: int) -> None:
    with Zones("a", "b") as zones, zones["a"].worker() as worker:
        host = serve(zones)
        link = zones.between("a", "b")
        worker.run(caller.connect, "raw", host)
        line("delay of one direction", "p50", "p95", "p99")
        for seconds in (0.001, 0.01, 0.05):
            with link.make(Latency(seconds=seconds, stream="upstream")):
                line(f"  {seconds * 1e3:g} ms", *spread(worker.run(caller.turns, 20 * rounds)))
        line("slow handshake", "p50", "p95", "p99")
        for seconds in (0.1, 0.5):
            with link.make(SlowHandshake(seconds=seconds)):
                took = [worker.run(caller.connect_seconds, host) for _ in range(rounds)]
            line(f"  {seconds:g} s", *spread(took))
        line("loss of one direction", "measured", "of packets")
        for share in (0.01, 0.05, 0.2):
            count = 0
            missed = 0
            with link.make(Loss(share=share, stream="upstream")):
                while count < 40 * rounds:
                    answers = [
                        worker.submit(caller.datagram, host, "get", UNANSWERED_SECONDS)
                        for _ in range(200)
                    ]
                    count += len(answers)
                    missed += sum(one.result(30).startswith("TimeoutError") for one in answers)
            line(f"  {share:.0%}", f"{missed / count:.1%}", str(count))


def narrow(mtu: int) -> None:
    with Zones("a", "b", mtu=mtu) as zones, zones["a"].worker() as worker:
        host = serve(zones)
        line(f"bandwidth, mtu {mtu}", "measured")
        for rate in (100e3, 1e6, 10e6, 100e6)[: 4 if mtu > 1500 else 3]:
            with zones.between("a", "b").make(Bandwidth(bytes_per_second=rate)):
                found = worker.run(caller.download, host, int(rate * 2))
            line(f"  {rate / 1e6:g} MB/s", f"{found / 1e6:.2f} MB/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    setting_up(options.rounds)
    for mtu in (65_000, 1500):
        bare(mtu)
    asked(options.rounds)
    for mtu in (65_000, 1500):
        narrow(mtu)


if __name__ == "__main__":
    main()
