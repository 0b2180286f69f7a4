"""What the TCP proxy costs beside its peers, and how exact its latency is: `python -m bench.proxy`.

One run, interleaved, the best of the rounds for each row; CPU is the relay's own, from /proc. The load is
a C program (`bench/load.c`), so that it is not what is measured. Peers: HAProxy in TCP mode, nginx stream,
toxiproxy (on PATH or `--toxiproxy FILE`); those that are missing are said.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")
COLUMNS = ("direct", "HAProxy", "nginx", "toxiproxy", "p50", "p50 aim", "p99", "p99 aim")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def reachable(port: int, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


class Bench:
    """All processes of a run; they end with it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.load = str(folder / "load")
        compile_ = ["gcc", "-O2", "-o", self.load, str(HERE / "load.c")]
        subprocess.run(compile_, check=True)

    def start(self, command: list[str], *ports: int, user: str | None = None) -> int:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=user,
            cwd=self.folder if user is None else "/",
            env={**os.environ, "PYTHONPATH": f"{HERE.parent / 'src'}:{HERE.parent}"},
        )
        self._stack.callback(_end, process)
        for port in ports:
            reachable(port)
        return process.pid

    def measure(self, *command: str) -> str:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        return done.stdout


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


# --------------------------------------------------------------------------------- upstreams


def serve_upstreams(bench: Bench) -> dict[str, int]:
    ports = {}
    for kind in ("sink", "echo"):
        ports[kind] = free_port()
        bench.start([bench.load, kind, str(ports[kind])], ports[kind])
    if shutil.which("redis-server") and shutil.which("redis-benchmark"):
        ports["redis"] = port = free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        bench.start(["redis-server", *options], port)
    else:
        print("MISSING: redis-server or redis-benchmark; no row with it")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found and shutil.which("pgbench"):
        ports["postgres"] = serve_postgres(bench, found[-1].parent)
    else:
        print("MISSING: PostgreSQL or pgbench; no row with it")
    return ports


def serve_postgres(bench: Bench, programs: Path) -> int:
    port = free_port()
    data = bench.folder / "postgres"
    data.mkdir()
    user = None
    if os.getuid() == 0:  # initdb refuses root
        user = "postgres"
        os.chown(data, pwd.getpwnam(user).pw_uid, -1)
    make = [str(programs / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-N"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL, user=user, cwd="/")
    options = ["-k", str(data), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    bench.start(
        [str(programs / "postgres"), "-D", str(data), "-p", str(port), *options], port, user=user
    )
    at = ["-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
    end = time.monotonic() + 20
    while subprocess.run(["pg_isready", "-q", *at], check=False).returncode:
        if time.monotonic() > end:
            raise TimeoutError("PostgreSQL does not answer")
        time.sleep(0.05)
    quiet = subprocess.DEVNULL
    subprocess.run(["pgbench", "-i", "-q", *at, "postgres"], check=True, stdout=quiet, stderr=quiet)
    return port


# ------------------------------------------------------------------------------------ relays


class Relay(NamedTuple):
    """A relay under test: its port for each upstream, and its process."""

    name: str
    ports: dict[str, int]
    pid: int


def haproxy(bench: Bench, upstreams: dict[str, int]) -> Relay:
    ports = {name: free_port() for name in upstreams}
    lines = [
        "global\n  nbthread 1\n  maxconn 5000\ndefaults\n  mode tcp\n  timeout connect 5s",
        "  timeout client 60s\n  timeout server 60s",
    ]
    for name, port in upstreams.items():
        lines += [f"listen {name}\n  bind 127.0.0.1:{ports[name]}\n  server s 127.0.0.1:{port}"]
    file = bench.folder / "haproxy.cfg"
    file.write_text("\n".join(lines) + "\n")
    pid = bench.start(["haproxy", "-db", "-f", str(file)], *ports.values())
    return Relay("HAProxy", ports, pid)


def nginx(bench: Bench, upstreams: dict[str, int]) -> Relay:
    ports = {name: free_port() for name in upstreams}
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    servers = "\n".join(
        f"server {{ listen 127.0.0.1:{ports[name]}; proxy_pass 127.0.0.1:{port}; tcp_nodelay on; }}"
        for name, port in upstreams.items()
    )
    file = bench.folder / "nginx.conf"
    file.write_text(
        (f"load_module {module};\n" if module.exists() else "")
        + f"daemon off; master_process off; pid {bench.folder}/nginx.pid; error_log stderr;\n"
        + f"events {{ worker_connections 4000; }}\nstream {{\n{servers}\n}}\n"
    )
    command = ["nginx", "-c", str(file), "-e", "stderr", "-p", str(bench.folder)]
    return Relay("nginx", ports, bench.start(command, *ports.values()))


def toxiproxy(bench: Bench, upstreams: dict[str, int], program: str) -> Relay:
    ports = {name: free_port() for name in upstreams}
    control = free_port()
    pid = bench.start([program, "-host", "127.0.0.1", "-port", str(control)], control)
    for name, port in upstreams.items():
        body = {
            "name": name,
            "listen": f"127.0.0.1:{ports[name]}",
            "upstream": f"127.0.0.1:{port}",
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{control}/proxies", json.dumps(body).encode(), method="POST"
        )
        urllib.request.urlopen(request, timeout=5).read()
    return Relay("toxiproxy", ports, pid)


def brownout(bench: Bench, upstreams: dict[str, int], loop: str, fault: str = "") -> Relay:
    ports = {name: free_port() for name in upstreams}
    pairs = [f"{ports[name]}:{port}" for name, port in upstreams.items()]
    command = [sys.executable, str(HERE / "proxy.py"), "--serve", *pairs, "--loop", loop]
    command += ["--fault"] if fault else []
    pid = bench.start(command, *ports.values())
    return Relay(f"brownout {fault or loop}", ports, pid)


async def relay_for_ever(pairs: list[str], *, fault: bool) -> None:
    from brownout.fault import Latency, Proxy

    for pair in pairs:
        listen, _, upstream = pair.partition(":")
        proxy = Proxy(f"127.0.0.1:{upstream}", f"127.0.0.1:{listen}")
        await proxy.start()
        if fault:
            proxy.make(Latency(seconds=1, client="10.0.0.0/8"), seconds=3600)
    await asyncio.Event().wait()


# -------------------------------------------------------------------------------------- rows


def cpu_seconds(pid: int) -> float:
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Row(NamedTuple):
    """One row: what is run through a relay, its figure, and whether more is better."""

    name: str
    upstream: str
    run: Callable[[Bench, int], float]
    more: bool = True
    cpu: tuple[str, float] | None = None  # a name, and what the relay's CPU seconds are divided by


def number(text: str, pattern: str) -> float:
    found = re.search(pattern, text)
    if not found:
        raise ValueError(f"no {pattern!r} in {text!r}")
    return float(found[1])


def pgbench(bench: Bench, port: int, *options: str) -> float:
    at = ["-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
    told = bench.measure("pgbench", "-n", "-S", "-T", "2", *options, *at, "postgres")
    return number(told, r"tps = ([0-9.]+)")


def redis(bench: Bench, port: int, *options: str) -> float:
    at = ["-p", str(port), "-t", "get", "-c", "50", "--csv", *options]
    return number(bench.measure("redis-benchmark", *at), r'"GET","([0-9.]+)"')


def rows() -> list[Row]:
    def load(*words: str) -> Callable[[Bench, int], float]:
        what, *more = words
        return lambda bench, port: float(
            bench.measure(bench.load, what, str(port), *more).split()[0]
        )

    megabytes, turns, many, conns = 1024, 20_000, 60_000, 2_000
    return [
        Row(
            "bulk, GB/s",
            "sink",
            load("bulk", str(megabytes)),
            cpu=("CPU s a GB", megabytes * 2**20 / 1e9),
        ),
        Row(
            "round trip of 64 B, us",
            "echo",
            load("turns", str(turns), "64"),
            more=False,
            cpu=("CPU us a round trip", turns / 1e6),
        ),
        Row(
            "64 B on 50 connections, a second",
            "echo",
            load("many", str(many), "64", "50"),
            cpu=("CPU us a round trip of 50", many / 1e6),
        ),
        Row(
            "connections a second",
            "echo",
            load("conns", str(conns)),
            cpu=("CPU us a connection", conns / 1e6),
        ),
        Row("pgbench -S -c 8, a second", "postgres", lambda b, p: pgbench(b, p, "-c", "8")),
        Row("redis GET, 50 connections", "redis", lambda b, p: redis(b, p, "-n", "60000")),
        Row("redis GET, 16 at once", "redis", lambda b, p: redis(b, p, "-n", "300000", "-P", "16")),
    ]


def compare(bench: Bench, relays: list[Relay], rounds: int) -> dict[str, dict[str, float]]:
    told: dict[str, dict[str, float]] = {}
    for round_ in range(rounds):
        for row in rows():
            for relay in relays if round_ % 2 else reversed(relays):
                port = relay.ports.get(row.upstream)
                if port is None:
                    continue
                before = cpu_seconds(relay.pid)
                figure = row.run(bench, port)
                best = max if row.more else min
                cells = told.setdefault(row.name, {})
                cells[relay.name] = best(cells.get(relay.name, figure), figure)
                if row.cpu and relay.pid:
                    spent = (cpu_seconds(relay.pid) - before) / row.cpu[1]
                    cells = told.setdefault(f"  {row.cpu[0]}", {})
                    cells[relay.name] = min(cells.get(relay.name, spent), spent)
    return told


# ---------------------------------------------------------------------------------- accuracy


def accuracy(echo: int) -> dict[str, dict[str, float]]:
    """Round trips of one byte through a latency downstream, beside the direct ones of the same run."""
    from brownout.fault import Latency, running

    def trips(port: int, count: int) -> list[float]:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            took = []
            for _ in range(count):
                began = time.perf_counter()
                sock.sendall(b"x")
                sock.recv(1)
                took.append((time.perf_counter() - began) * 1e3)
        return sorted(took)

    told = {}
    with running(f"127.0.0.1:{echo}") as proxy:
        port = int(proxy.listen.rpartition(":")[2])
        for asked in (1, 5, 20, 100):
            count = min(1000, 5000 // asked)
            direct = trips(echo, count)
            with proxy.make(Latency(seconds=asked / 1e3, stream="downstream")):
                took = trips(port, count)
            told[f"{asked} ms"] = {
                "p50": took[count // 2],
                "p99": took[int(count * 0.99)],
                "direct p99": direct[int(count * 0.99)],
                "p50 aim": asked + 1 + 0.02 * asked,
                "p99 aim": asked + 1 + 0.02 * asked + direct[int(count * 0.99)],
            }
    return told


# --------------------------------------------------------------------------------------- main


def _place(name: str) -> int:
    return next((n for n, known in enumerate(COLUMNS) if name.startswith(known)), len(COLUMNS))


def table(told: dict[str, dict[str, float]], digits: int = 4) -> str:
    names = sorted({name for cells in told.values() for name in cells}, key=_place)
    lines = [f"{'':34}" + "".join(f"{name:>20}" for name in names)]
    for row, cells in told.items():
        shown = (f"{cells[name]:,.{digits}g}" if name in cells else "-" for name in names)
        lines.append(f"{row:34}" + "".join(f"{cell:>20}" for cell in shown))
    return "\n".join(lines)


def peers(bench: Bench, upstreams: dict[str, int], program: str | None) -> list[Relay]:
    relays = [Relay("direct", upstreams, 0)]
    for name, start in (("haproxy", haproxy), ("nginx", nginx)):
        if shutil.which(name):
            relays.append(start(bench, upstreams))
        else:
            print(f"MISSING: {name} is not installed, so it is not compared with")
    if program:
        relays.append(toxiproxy(bench, upstreams, str(Path(program).resolve())))
    else:
        print("MISSING: toxiproxy is not on PATH (--toxiproxy FILE), so it is not compared with")
    relays.append(brownout(bench, upstreams, "uvloop"))
    relays.append(brownout(bench, upstreams, "asyncio"))
    relays.append(brownout(bench, upstreams, "uvloop", "fault elsewhere"))
    return relays


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.proxy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--toxiproxy", default=shutil.which("toxiproxy-server"), metavar="FILE")
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--loop", default="uvloop", help=argparse.SUPPRESS)
    parser.add_argument("--fault", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        import uvloop

        factory = uvloop.new_event_loop if options.loop == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(relay_for_ever(options.serve, fault=options.fault))
        return
    if not shutil.which("gcc"):
        sys.exit("python -m bench.proxy needs gcc: a load in Python would be what is measured")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        os.environ["BROWNOUT_FAULTS"] = str(Path(folder) / "faults")
        bench = Bench(Path(folder), stack)
        upstreams = serve_upstreams(bench)
        exact = accuracy(upstreams["echo"])
        told = compare(bench, peers(bench, upstreams, options.toxiproxy), options.rounds)
    if options.json:
        print(json.dumps({"rows": told, "latency": exact}, indent=2))
        return
    print(table(told))
    print()
    print("latency asked for, round trip in ms")
    print(table(exact))


if __name__ == "__main__":
    main()
