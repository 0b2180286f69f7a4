"""redis-py, with its own retries and without: what its exceptions say, and how often INCR was really done."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from brownout import Certainty, OutcomeClass, Shown
from brownout.ext.redis import ResendWarning, classify, watch
from brownout.fault import Cut, Drop, Refuse
from tests.ext.clients.conftest import free_port
from tests.ext.clients.matrix import Trial, atried, check, proxy_of, together, tried

if TYPE_CHECKING:
    from collections.abc import Iterator


SECONDS = 5.0
SHORT_SECONDS = 0.5  # where it is silence that is waited out
MATCH = "(?s).*(INCR|MULTI)"
DEAD = free_port()
_keys = count()


class Client(NamedTuple):
    """A kind of client: its colour, and whether it is left as it comes."""

    asynchronous: bool
    retries: bool


CLIENTS = {
    "redis": Client(asynchronous=False, retries=False),
    "redis.asyncio": Client(asynchronous=True, retries=False),
    "redis, by default": Client(asynchronous=False, retries=True),
    "redis.asyncio, by default": Client(asynchronous=True, retries=True),
}


def made(client: Client, port: int, **more: Any) -> Any:
    kind = redis.asyncio.Redis if client.asynchronous else redis.Redis
    given: dict[str, Any] = {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS, **more}
    if not client.retries:
        given["retry"] = Retry(NoBackoff(), 0)
        if client.asynchronous:
            given["retry"] = redis.asyncio.retry.Retry(NoBackoff(), 0)
    return watch(kind(host="127.0.0.1", port=port, **given))


def asked(
    client: Client,
    port: int,
    commands: Callable[[Any], list[Any]],
    *,
    under: Callable[[], Any] | None = None,
    **more: Any,
) -> Trial:
    """Commands as one guarded call; the fault is made when the client is connected."""
    one = made(client, port, **more)
    try:
        if client.asynchronous:
            return asyncio.run(_asked_async(one, commands, under))
        if under is not None:
            one.ping()
            under()

        def call() -> None:
            for command in commands(one):
                command()

        return tried(call)
    finally:
        if not client.asynchronous:
            one.close()
            one.connection_pool.disconnect(inuse_connections=True)


async def _asked_async(one: Any, commands: Callable[[Any], list[Any]], under: Any) -> Trial:
    try:
        if under is not None:
            await one.ping()
            under()

        async def call() -> None:
            for command in commands(one):
                await command()

        return await atried(call)
    finally:
        await one.aclose()
        await one.connection_pool.disconnect(inuse_connections=True)


def incr(key: str) -> Callable[[Any], list[Any]]:
    return lambda client: [lambda: client.incr(key)]


def transaction(key: str) -> Callable[[Any], list[Any]]:
    def commands(client: Any) -> list[Any]:
        pipeline = client.pipeline(transaction=True)
        pipeline.incr(key)
        pipeline.rpush(key + "l", "x")
        return [pipeline.execute]

    return commands


Play = Callable[[str, Client, str], Trial]


def wire(*faults: Any, what: Callable[[str], Any] = incr, **more: Any) -> Play:
    def play(cache: str, client: Client, key: str) -> Trial:
        with proxy_of(cache) as proxy:
            port = int(proxy.listen.rpartition(":")[2])

            def under() -> None:
                for fault in faults:
                    proxy.make(fault)

            return asked(client, port, what(key), under=under, **more)

    return play


def to(port: int) -> Play:
    return lambda _cache, client, key: asked(client, port, incr(key))


def silent_from_the_start(cache: str, client: Client, key: str) -> Trial:
    with proxy_of(cache) as proxy:
        proxy.make(Drop())
        port = int(proxy.listen.rpartition(":")[2])
        short: dict[str, Any] = {
            "socket_timeout": SHORT_SECONDS,
            "socket_connect_timeout": SHORT_SECONDS,
        }
        return asked(client, port, incr(key), **short)


def saying(line: str) -> Play:
    """A server that says this to INCR."""

    def play(_cache: str, client: Client, key: str) -> Trial:
        with stub(line) as port:
            return asked(client, port, incr(key), protocol=2)

    return play


@contextmanager
def stub(line: str) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, line.encode()), daemon=True).start()
        yield listener.getsockname()[1]


def _serve(listener: socket.socket, line: bytes) -> None:
    while True:
        try:
            one, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(one, line), daemon=True).start()


def _answer(one: socket.socket, line: bytes) -> None:
    with one:
        while data := one.recv(65536):
            for _ in range(len(re.findall(rb"(?m)^\*\d", data)) - data.count(b"INCR")):
                one.sendall(b"+OK\r\n")
            if b"INCR" in data:
                one.sendall(line + b"\r\n")


def pool_empty(cache: str, client: Client, key: str) -> Trial:
    kind = redis.asyncio if client.asynchronous else redis
    pool = kind.ConnectionPool(
        host="127.0.0.1", port=int(cache.rpartition(":")[2]), max_connections=1
    )

    def commands(one: Any) -> list[Any]:
        if client.asynchronous:
            return [one.connection_pool.get_connection, lambda: one.incr(key)]
        held = one.connection_pool.get_connection()
        held.connect()
        return [lambda: one.incr(key)]

    return asked(client, 0, commands, connection_pool=pool)


def script(cache: str, client: Client, key: str) -> Trial:
    text = "redis.call('incr', KEYS[1]); return redis.call('lpush', KEYS[1], 1)"
    return asked(
        client, int(cache.rpartition(":")[2]), lambda one: [lambda: one.eval(text, 1, key)]
    )


def queued(cache: str, client: Client, key: str) -> Trial:
    def commands(one: Any) -> list[Any]:
        pipeline = one.pipeline(transaction=True)
        pipeline.incr(key)
        pipeline.execute_command("NOSUCHCOMMAND")
        return [pipeline.execute]

    return asked(client, int(cache.rpartition(":")[2]), commands)


def then(second: Callable[[Any, str], Any], first: Callable[[Any, str], Any]) -> Play:
    def play(cache: str, client: Client, key: str) -> Trial:
        port = int(cache.rpartition(":")[2])
        commands = [first, second]
        return asked(client, port, lambda one: [lambda c=c: c(one, key) for c in commands])

    return play


def wrong_type(one: Any, key: str) -> Any:
    return one.lpush("a string", "x")


def once(at: Any, how: Any) -> Cut:
    return Cut(at=at, how=how, per="request", match=MATCH, first=1)


FAULTS: dict[str, Play] = {
    "refused": to(DEAD),
    "no answer to connect": silent_from_the_start,
    "server full (max number of clients)": saying("-ERR max number of clients reached"),
    "LOADING": saying("-LOADING Redis is loading the dataset in memory"),
    "OOM": saying("-OOM command not allowed when used memory > 'maxmemory'."),
    "READONLY": saying("-READONLY You can't write against a read only replica."),
    "own pool empty": pool_empty,
    "wrong type, after a read": then(wrong_type, lambda one, _key: one.get("a string")),
    "wrong type, after a write": then(wrong_type, lambda one, key: one.incr(key)),
    "script that fails in its midst": script,
    "MULTI: a command that is refused": queued,
    "request lost": wire(once("request", "reset")),
    "request lost, closed": wire(once("request", "close")),
    "reply lost": wire(once("reply", "reset")),
    "reply lost, closed": wire(once("reply", "close")),
    "reply late": wire(
        Drop(stream="downstream", per="request", match=MATCH, first=1), socket_timeout=SHORT_SECONDS
    ),
    "MULTI/EXEC: reply lost": wire(once("reply", "reset"), what=transaction),
    "done, then the server is down": wire(once("reply", "reset"), Refuse(keep_open=True)),
}


@pytest.mark.filterwarnings("ignore::brownout.ext.redis.ResendWarning")
def test_matrix(cache: str) -> None:
    cells = [
        (fault, client)
        for fault in FAULTS
        for client in CLIENTS
        if not (
            fault == "no answer to connect" and CLIENTS[client].retries
        )  # they take eleven times as long
    ]
    truth = redis.Redis(port=int(cache.rpartition(":")[2]))
    truth.set("a string", "x")

    def trial(fault: str, client: str) -> tuple[Trial, int]:
        key = f"key-{next(_keys)}"
        found = FAULTS[fault](cache, CLIENTS[client], key)
        return found, int(truth.get(key) or 0)

    results = together([partial(trial, *cell) for cell in cells])
    truth.close()
    check("Redis", dict(zip(cells, results, strict=True)))


# ------------------------------------------------------------------------------ sending again


def test_a_client_that_sends_again_by_itself_is_reported_once() -> None:
    client = redis.Redis()
    with pytest.warns(ResendWarning, match=r"up to \d+ times .*Retry\(NoBackoff\(\), 0\)"):
        watch(client)
    watch(client)
    with pytest.warns(ResendWarning):
        asyncio.run(watched())


async def watched() -> None:
    async with watch(redis.asyncio.Redis()):
        pass


def test_one_that_does_not_is_not() -> None:
    watch(redis.Redis(retry=Retry(NoBackoff(), 0)))
    watch(redis.Redis(retry=None))  # type: ignore[arg-type]


def test_what_is_no_client_of_redis_can_t_be_watched() -> None:
    with pytest.raises(TypeError, match=r"redis\.Redis"):
        watch("redis://")


def test_connections_that_are_there_already_are_watched_too(cache: str) -> None:
    with redis.Redis(port=int(cache.rpartition(":")[2]), retry=Retry(NoBackoff(), 0)) as client:
        client.ping()
        watch(client)
        with pytest.raises(redis.ResponseError) as caught:
            client.execute_command("NOSUCHCOMMAND")
    say: Any = vars(caught.value)["brownout_shown"]
    assert say(inf) == Shown.of(OutcomeClass.SUCCESS)


def test_of_a_client_that_is_not_watched_only_the_servers_words_are_certain(cache: str) -> None:
    assert classify(ValueError()) is None
    refused = classify(
        redis.ConnectionError("Error 111 connecting to 127.0.0.1:1. Connection refused.")
    )
    assert refused is not None
    assert refused.certainty is Certainty.UNKNOWN
    assert classify(redis.WatchError("x")) == Shown.of(OutcomeClass.SUCCESS)
    assert classify(redis.MaxConnectionsError("x")) == Shown.of(OutcomeClass.LOCAL)
