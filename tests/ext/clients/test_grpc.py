"""gRPC, sync and asyncio: what its errors say, and how often the handler had really run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent import futures
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import grpc.aio
import pytest

from brownout import Certainty, Guard, Shown
from brownout.ext.grpc import Interceptor, ResendWarning, classify, guarded, guarded_aio
from brownout.fault import Cut, Drop, Refuse
from tests.ext.clients.conftest import free_port
from tests.ext.clients.matrix import Trial, atried, check, proxy_of, together, tried

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 0.6
MATCH = "(?s).*mark-"
DEAD = free_port()
RETRY = (
    '{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":3,"initialBackoff":"0.05s",'
    '"maxBackoff":"0.1s","backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}}]}'
)
_ids = count()


class Server:
    """It counts what it has begun, by id; what it is asked says how it ends."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = grpc.server(futures.ThreadPoolExecutor(32))
        handler: Any = grpc.unary_unary_rpc_method_handler(self._handle)
        generic = grpc.method_handlers_generic_handler("S", {"Do": handler})
        self._server.add_generic_rpc_handlers((generic,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait(5)

    def _handle(self, request: bytes, context: Any) -> bytes:
        what, _, id_ = request.decode().rpartition("-")
        if what == "refuse":
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        if what == "not":
            context.set_trailing_metadata((("outcome", "not-started"),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
        if what == "invalid":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
        with self._lock:
            self.ran[id_] += 1
        if what == "slow":
            time.sleep(3 * SECONDS)
        if what == "abort" or (what == "first" and self.ran[id_] == 1):
            context.abort(grpc.StatusCode.UNAVAILABLE, "the handler said so")
        return b"ok"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.stop()


class Ask(NamedTuple):
    """What is asked, at which port."""

    port: int
    request: bytes
    seconds: float = 10.0
    under: Callable[[], Any] | None = None
    config: str = ""


def options(ask: Ask) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return [*found, ("grpc.service_config", ask.config)] if ask.config else found


def sync(ask: Ask) -> Callable[[], Any]:
    guard = Guard(f"own {next(_ids)}", breaker=None)
    channel = guarded(f"127.0.0.1:{ask.port}", guard=guard, options=options(ask))
    call = channel.unary_unary("/S/Do")
    if ask.under is not None:
        call(b"ok-warm", timeout=10)
        ask.under()

    def asking() -> None:
        with channel:
            call(ask.request, timeout=ask.seconds)

    return asking


async def asynchronous(ask: Ask) -> Trial:
    guard = Guard(f"own {next(_ids)}", breaker=None)
    async with guarded_aio(f"127.0.0.1:{ask.port}", guard=guard, options=options(ask)) as channel:
        call: Any = channel.unary_unary("/S/Do")
        if ask.under is not None:
            await call(b"ok-warm", timeout=10)
            ask.under()

        async def asking() -> None:
            await call(ask.request, timeout=ask.seconds)

        return await atried(asking)


CLIENTS: dict[str, Any] = {"grpc": sync, "grpc.aio": asynchronous}
Play = Callable[[Server, Any, str], Trial]


def asked(client: Any, ask: Ask) -> Trial:
    return tried(sync(ask)) if client is sync else asyncio.run(client(ask))


def plain(what: str, seconds: float = 10.0, port: int | None = None, config: str = "") -> Play:
    return lambda server, client, id_: asked(
        client, Ask(port or server.port, f"{what}-{id_}".encode(), seconds, None, config)
    )


def wire(*faults: Any, seconds: float = 10.0, config: str = "") -> Play:
    def play(server: Server, client: Any, id_: str) -> Trial:
        with proxy_of(f"127.0.0.1:{server.port}") as proxy:
            port = int(proxy.listen.rpartition(":")[2])

            def under() -> None:
                for fault in faults:
                    proxy.make(fault)

            return asked(client, Ask(port, f"mark-{id_}".encode(), seconds, under, config))

    return play


def stopping(server: Server, client: Any, id_: str) -> Trial:
    del server
    own = Server()
    timer = threading.Timer(SECONDS, own.stop)
    timer.start()
    try:
        found = asked(client, Ask(own.port, f"slow-{id_}".encode()))
    finally:
        timer.join()
    STOPPED[id_] = own.ran[id_]
    return found


STOPPED: dict[str, int] = {}


def cut(at: Any, how: Any = "reset") -> Cut:
    return Cut(at=at, how=how, per="request", match=MATCH)


FAULTS: dict[str, Play] = {
    "refused": plain("ok", port=DEAD),
    "request lost": wire(cut("request")),
    "reply lost": wire(cut("reply")),
    "reply lost, closed": wire(cut("reply", "close")),
    "deadline: request lost": wire(Drop(stream="upstream"), seconds=SECONDS),
    "deadline: reply lost": wire(Drop(stream="downstream"), seconds=SECONDS),
    "deadline while the handler runs": plain("slow", SECONDS),
    "server stops while the handler runs": stopping,
    "handler aborts with UNAVAILABLE": plain("abort"),
    "UNAVAILABLE, trailer outcome: not-started": plain("not"),
    "RESOURCE_EXHAUSTED": plain("refuse"),
    "INVALID_ARGUMENT": plain("invalid"),
    "UNAVAILABLE after it was done, with a retryPolicy": plain("first", config=RETRY),
    "done, then the server is down, with a retryPolicy": wire(
        cut("reply"), Refuse(keep_open=True), config=RETRY
    ),
}


@pytest.mark.filterwarnings("ignore::brownout.ext.grpc.ResendWarning")
def test_matrix(server: Server) -> None:
    cells = [(fault, client) for fault in FAULTS for client in CLIENTS]

    def trial(fault: str, client: str) -> tuple[Trial, int]:
        id_ = str(next(_ids))
        found = FAULTS[fault](server, CLIENTS[client], id_)
        return found, server.ran[id_] + STOPPED.get(id_, 0)

    results = together([partial(trial, *cell) for cell in cells])
    check("gRPC", dict(zip(cells, results, strict=True)))


def test_a_service_config_that_sends_again_is_reported() -> None:
    with pytest.warns(ResendWarning, match="retryPolicy"):
        Interceptor(service_config=RETRY)
    Interceptor(service_config='{"methodConfig":[{"name":[{}],"timeout":"1s"}]}')
    with pytest.raises(ValueError, match="JSON"):
        Interceptor(service_config="{")


def test_the_time_that_is_left_is_the_calls_own(server: Server) -> None:
    guard = Guard("bounded", breaker=None, timeout=SECONDS)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call: Any = grpc.intercept_channel(channel, Interceptor(guard=guard)).unary_unary("/S/Do")
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            call(b"slow-bounded")
    assert time.monotonic() - began < 2.5 * SECONDS
    shown = classify(caught.value)
    assert isinstance(shown, Shown)
    assert shown.certainty is Certainty.UNKNOWN
