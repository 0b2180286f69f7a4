"""What a guarded call costs, as ratios measured side by side in one run: `make bench`.

CPU time of this process, rounds interleaved, the minimum of many: read the ratios, not the microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import brownout
from brownout import Guard, Retry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CALLS = 10_000


def plain(x: int) -> int:
    return x


async def aplain(x: int) -> int:
    return x


async def with_timeout(x: int) -> int:
    async with asyncio.timeout(5):
        return await aplain(x)


class Flaky:
    """Fails every other call."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self, x: int) -> int:
        self.n += 1
        if self.n & 1:
            raise ConnectionRefusedError(111, "refused")
        return x


def sync_round(fn: Callable[[int], Any], calls: int = CALLS) -> float:
    began = time.process_time()
    for i in range(calls):
        fn(i)
    return (time.process_time() - began) / calls * 1e6


def async_round(fn: Callable[[int], Awaitable[Any]]) -> float:
    async def main() -> float:
        began = time.process_time()
        for i in range(CALLS):
            await fn(i)
        return (time.process_time() - began) / CALLS * 1e6

    return asyncio.run(main())


def refused(guard: Guard) -> Callable[[int], None]:
    def call(x: int) -> None:
        try:
            guard.call(plain, x)
        except brownout.Refused:
            pass

    return call


def rounds() -> dict[str, Callable[[], float]]:
    full = Guard("bench", timeout=5, retry=Retry(), limit=100)
    guarded, aguarded = full(plain), full(aplain)
    flaky = Guard("bench-flaky", timeout=5, breaker=None, retry=Retry(budget=1.0, backoff=0.0))(
        Flaky()
    )
    full_up = Guard("bench-full", limit=1)
    block = full_up.attempt()
    block.__enter__()
    no = refused(full_up)
    return {
        "sync bare call": lambda: sync_round(plain),
        "sync guarded": lambda: sync_round(guarded),
        "sync one retry": lambda: sync_round(flaky, 500),
        "sync refusal": lambda: sync_round(no, 2000),
        "async bare await": lambda: async_round(aplain),
        "async asyncio.timeout": lambda: async_round(with_timeout),
        "async guarded": lambda: async_round(aguarded),
    }


def import_seconds(module: str) -> float:
    code = f"import time; t = time.process_time(); import {module}; print(time.process_time() - t)"
    # As when it is installed: byte-compiled, as the standard library is (the first run compiles).
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return float(out.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    table = rounds()
    best = dict.fromkeys(table, float("inf"))
    gc.disable()
    for _ in range(options.rounds):
        for name, run in table.items():
            best[name] = min(best[name], run())
        gc.collect()
    unit = best["async asyncio.timeout"] - best["async bare await"]
    extra = {
        name: best[name]
        - best["async bare await" if name.startswith("async") else "sync bare call"]
        for name in best
    }
    imports = {m: min(import_seconds(m) for _ in range(5)) for m in ("asyncio", "brownout")}
    ratio = imports["brownout"] / imports["asyncio"]
    if options.json:
        print(
            json.dumps(
                {"us": best, "of_timeout": {k: v / unit for k, v in extra.items()}, "import": ratio}
            )
        )
        return
    print(f"{'':26}{'us a call':>10}{'above bare, x asyncio.timeout':>32}")
    for name, value in best.items():
        print(f"{name:26}{value:10.2f}{extra[name] / unit:32.2f}")
    print(f"import brownout: {ratio:.2f} x import asyncio")


if __name__ == "__main__":
    main()
