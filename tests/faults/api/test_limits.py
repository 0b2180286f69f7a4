"""Everything that the server waits for has an end; with the spans made short, in this process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from brownout.errors import ConfigurationError
from brownout.fault import record as records
from brownout.fault.api import Server, access, server, wire
from tests.faults.api.speak import LIMIT, TARGET, Api, dial, echo, read, served, target
from tests.seen import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

SHORT = 0.1
GET = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"


def with_body(path: str, told: Any) -> bytes:
    body = json.dumps(told).encode()
    return b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (
        path.encode(),
        len(body),
        body,
    )


def spoken(speak: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]) -> Any:
    """What came of a connection to a new server."""

    async def main() -> Any:
        async with asyncio.timeout(LIMIT), Server("127.0.0.1:0") as one:
            host, port = one.listen.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                return await speak(reader, writer)
            finally:
                writer.transport.abort()

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"", b""),  # idle: closed without a word
        (GET, b"HTTP/1.1 200"),
        (b"GET / HT", b"HTTP/1.1 408"),
        (
            b"POST /reset HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc",
            b"HTTP/1.1 408",
        ),
        (
            b"POST /reset HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab",
            b"HTTP/1.1 408",
        ),
    ],
)
def test_a_client_that_sends_nothing_more_is_left(
    monkeypatch: pytest.MonkeyPatch, data: bytes, answer: bytes
) -> None:
    monkeypatch.setattr(wire, "IDLE_SECONDS", SHORT)
    monkeypatch.setattr(wire, "READ_SECONDS", SHORT)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(data)
        return await reader.read()

    told = spoken(speak)
    assert told.startswith(answer)
    assert bool(told) == bool(answer)


def test_a_client_that_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WRITE_SECONDS", SHORT)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        some = [{"name": str(n), "upstream": TARGET, "enabled": False} for n in range(1000)]
        writer.write(with_body("/populate", some))
        await reader.readline()  # it is answered
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        try:
            while True:
                writer.write(GET.replace(b"/version", b"/proxies") * 100)
                await writer.drain()
        except ConnectionError:
            return True

    assert spoken(speak)


def test_a_name_that_does_not_resolve_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access, "RESOLVE_SECONDS", 3 * SHORT)

    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[bytes]:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never, raising=False)
        wanted = {"name": "p", "upstream": TARGET, "listen": "slow.example:1"}
        writer.write(with_body("/proxies", wanted))
        return [await reader.readline(), *(await reader.read(1000)).splitlines()]

    code, *rest = spoken(speak)
    assert code == b"HTTP/1.1 400 Bad Request\r\n"
    assert b"slow.example has no address" in rest[-1]


def test_a_bug_of_ours_is_told_and_the_next_request_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(server, "answered", broken)
    seen: list[dict[str, Any]] = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[bytes]:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        codes = []
        for _ in range(2):
            writer.write(GET)
            codes.append(await reader.readline())
            await reader.readuntil(b"}\n")
        return codes

    assert spoken(speak) == [b"HTTP/1.1 500 Internal Server Error\r\n"] * 2
    assert len(seen) == 2


def listed(folder: Path) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-m", "brownout", "fault", "list", "--json"],
        env={**os.environ, "BROWNOUT_FAULTS": str(folder)},
        capture_output=True,
        check=True,
        timeout=LIMIT,
    )
    return list(json.loads(done.stdout)["faults"])


def test_toxics_are_on_record_until_they_end_or_their_server_is_killed(tmp_path: Path) -> None:
    with served(BROWNOUT_FAULTS=str(tmp_path)) as (address, process):
        api = Api(address)
        listen = api.proxy()
        api.toxic("latency", attributes={"latency": 1})
        api.toxic("timeout")
        assert len(listed(tmp_path)) == 2
        api.ask("DELETE", "/proxies/p/toxics/timeout_downstream")
        assert [listen in json.dumps(each) for each in listed(tmp_path)] == [True]
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT)
        until(lambda: not listed(tmp_path))


def test_a_toxic_ends_by_itself(tmp_path: Path) -> None:
    with (
        target(echo) as upstream,
        served("--for", "500ms", BROWNOUT_FAULTS=str(tmp_path)) as (
            address,
            process,
        ),
    ):
        api = Api(address)
        path = "/proxies/p/toxics/latency_downstream"
        with closing(dial(api.proxy(upstream))) as wire:
            api.toxic("latency", attributes={"latency": 60_000})
            wire.sendall(b"ping")
            (made,) = records.read(str(tmp_path)).records
            assert 0 < made.seconds_left() <= 0.5
            assert read(wire, 4) == b"ping"  # what it held was handed on
        until(lambda: not records.read(str(tmp_path)).records)
        assert api.ask("GET", path).code == 404

        api.toxic("latency", attributes={"latency": 1, "for_ms": 30_000})
        api.proxy(name="off", enabled=False)
        api.toxic("timeout", on="off")
        ends = {each.kind: each.seconds_left() for each in records.read(str(tmp_path)).records}
        assert ends["latency"] > 10
        until(lambda: not api.get("/proxies/off/toxics"))
        api.ask("PATCH", "/proxies/p", {"upstream": TARGET})  # elsewhere, with what is left
        (made,) = records.read(str(tmp_path)).records
        assert 10 < made.seconds_left() < ends["latency"]
        assert [toxic["name"] for toxic in api.get("/proxies/p/toxics")] == ["latency_downstream"]
        assert process.poll() is None


def test_the_record_says_what_a_toxic_was_updated_to(tmp_path: Path) -> None:
    with served(BROWNOUT_FAULTS=str(tmp_path)) as (address, _):
        api = Api(address)
        api.proxy()
        api.toxic("latency", attributes={"latency": 1})
        (before,) = records.read(str(tmp_path)).records
        body = {"toxicity": 0.25, "attributes": {"latency": 700}}
        assert api.ask("PATCH", "/proxies/p/toxics/latency_downstream", body).code == 200
        (after,) = records.read(str(tmp_path)).records
        assert "share=0.25" in after.fault
        assert "value=0.7" in after.fault
        assert (after.id, after.end) == (before.id, before.end)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_every_toxic_has_an_end(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="every fault has an end"):
        Server(seconds=seconds)
