"""What a target says of itself: over HTTP, gRPC, or by a function; asked with a bound, never the truth."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from brownout import ConfigurationError, Guard, State, watch
from brownout._claim import says_ok
from tests.seen import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECK = "/grpc.health.v1.Health/Check"


@contextmanager
def grpc_server(answer: Callable[[bytes, Any], bytes]) -> Iterator[int]:
    """A real gRPC server whose health check answers so."""
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    from concurrent.futures import ThreadPoolExecutor

    method = grpc.unary_unary_rpc_method_handler(answer)
    service = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method})
    server = grpc.server(ThreadPoolExecutor(4), handlers=[service])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait(5)


@pytest.mark.parametrize(
    ("answer", "ok"),
    [(b"\x08\x01", True), (b"\x08\x02", False), (b"", False), (b"\x08\x00", False)],
)
def test_a_real_grpc_server_is_asked(answer: bytes, ok: bool) -> None:
    asked: list[bytes] = []

    def check(message: bytes, _: Any) -> bytes:
        asked.append(message)
        return answer

    with grpc_server(check) as port:
        assert says_ok(f"grpc://127.0.0.1:{port}", 5.0) is ok
        assert says_ok(f"grpc://127.0.0.1:{port}/shop.Quotes", 5.0) is ok
        assert says_ok(f"grpc://127.0.0.1:{port}/{'x' * 300}", 5.0) is ok
    assert asked == [b"", b"\x0a\x0bshop.Quotes", b"\x0a\xac\x02" + b"x" * 300]


def test_a_grpc_server_that_does_not_know_the_service_does_not_say_ok() -> None:
    def unknown(_: bytes, context: Any) -> bytes:
        import grpc

        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        raise AssertionError

    with grpc_server(unknown) as port:
        assert not says_ok(f"grpc://127.0.0.1:{port}/nobody", 5.0)


def test_a_grpc_server_that_hangs_is_left_in_time() -> None:
    go = threading.Event()

    def hangs(_: bytes, __: Any) -> bytes:
        go.wait(10)
        return b"\x08\x01"

    with grpc_server(hangs) as port:
        began = time.monotonic()
        try:
            assert not says_ok(f"grpc://127.0.0.1:{port}", 0.3)
        except TimeoutError:
            pass
        finally:
            go.set()
        assert time.monotonic() - began < 3


@contextmanager
def raw(*pieces: bytes, hold: bool = False) -> Iterator[int]:
    """A server that says just this to whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                for piece in pieces:
                    connection.sendall(piece)
                if hold:
                    done.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            done.set()
            thread.join(10)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


MESSAGE = b"\0\0\0\0\x02\x08\x01"


@pytest.mark.parametrize(
    ("frames", "ok"),
    [
        ([frame(4, 0, 0), frame(0, 0, 1, MESSAGE), frame(1, 5, 1, b"\x88")], True),
        ([frame(4, 0, 0), frame(6, 0, 0, b"12345678"), frame(0, 1, 1, MESSAGE)], True),
        ([frame(0, 0, 1, MESSAGE[:3]), frame(0, 1, 1, MESSAGE[3:])], True),
        ([frame(0, 9, 1, b"\x02" + MESSAGE + b"\0\0")], True),  # padded
        ([frame(0, 0, 3, MESSAGE), frame(1, 5, 1, b"\x88")], False),  # another stream's
        ([frame(0, 1, 1, b"\1" + MESSAGE[1:])], False),  # compressed: nobody asked for that
        ([frame(3, 0, 1, b"\0\0\0\1")], False),
        ([frame(7, 0, 0, b"\0" * 8)], False),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], False),
        ([frame(1, 5, 1, b"\x88")], False),
        ([b"\xff\xff\xff\0\0\0\0\0\1"], False),  # more than is read
    ],
)
def test_what_a_server_may_say(frames: list[bytes], ok: bool) -> None:
    with raw(*frames, hold=True) as port:
        assert says_ok(f"grpc://127.0.0.1:{port}", 5.0) is ok


def test_what_is_no_answer_is_an_error() -> None:
    with raw(frame(4, 0, 0)) as port, pytest.raises(OSError):
        says_ok(f"grpc://127.0.0.1:{port}", 5.0)
    with raw(hold=True) as port, pytest.raises(TimeoutError):
        says_ok(f"grpc://127.0.0.1:{port}", 0.1)


@pytest.mark.parametrize(
    "wrong",
    ["ftp://x", "grpc://", "http://", "grpc://host:0", "http://[", "grpc://x:99999", "x", 7],
)
def test_what_is_no_health_check_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="health: give an http"):
        Guard("t", health=wrong)


def test_a_target_that_says_ok_by_grpc_contradicts_its_callers() -> None:
    with grpc_server(lambda _, __: b"\x08\x01") as port:
        guard = Guard("t", timeout=0.2, health=f"grpc://127.0.0.1:{port}", breaker=None)
        watch()
        until(lambda: guard.verdict.claim)
        go = threading.Event()
        threads = [threading.Thread(target=guard.call, args=(go.wait, 10.0)) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: guard.state is State.UNRESPONSIVE)
            assert guard.verdict.contradiction
            assert "its own health check said ok" in guard.verdict.because
        finally:
            go.set()
            for thread in threads:
                thread.join(10)
