"""The HTTP below the API, byte by byte: what is read, what is refused, and what is never waited for."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack, closing

import pytest

from tests.faults.api.speak import LIMIT, TARGET, Api, dial, ending, leave_hard, read

PROXY = json.dumps({"name": "p", "upstream": TARGET}).encode()


def say(address: str, data: bytes) -> tuple[int, bytes]:
    """The first answer's code, and all that came until the end."""
    with closing(dial(address)) as connection:
        connection.sendall(data)
        got = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert got.startswith(b"HTTP/1.1 "), got
    return int(got[9:12]), got


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """One answer off a connection that stays."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = connection.recv(1)
        assert more, head
        head += more
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return int(head[9:12]), read(connection, length)


def get(path: str = "/version", *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def post(body: bytes, *lines: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = ["POST /proxies HTTP/1.1", "Host: localhost", f"Content-Length: {size}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n", path: str = "/proxies") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks) + end


def test_a_connection_is_kept(address: str) -> None:
    with closing(dial(address)) as connection:
        for _ in range(3):
            connection.sendall(get())
            assert answer(connection)[0] == 200


def test_pipelined_requests_are_answered_in_order(address: str, api: Api) -> None:
    with closing(dial(address)) as connection:
        connection.sendall(get() + post(PROXY) + post(PROXY) + get("/nope") + get("/proxies/p"))
        assert [answer(connection)[0] for _ in range(5)] == [200, 201, 409, 404, 200]


def test_a_request_may_come_byte_by_byte(address: str, api: Api) -> None:
    with closing(dial(address)) as connection:
        for byte in post(PROXY):
            connection.sendall(bytes([byte]))
        assert answer(connection)[0] == 201


@pytest.mark.parametrize(
    "data",
    [
        get("/version", "Connection: close"),
        get("/version", "Connection: Keep-Alive, Close"),
        b"GET /version HTTP/1.0\r\n\r\n",
    ],
)
def test_a_connection_is_closed_when_asked(address: str, data: bytes) -> None:
    code, got = say(address, data)
    assert code == 200
    assert b"\r\nConnection: close\r\n" in got


def test_http_1_0_is_kept_when_asked(address: str) -> None:
    with closing(dial(address)) as connection:
        for _ in range(2):
            connection.sendall(b"GET /version HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert answer(connection)[0] == 200


def test_head_is_get_without_a_body(address: str) -> None:
    head = get().replace(b"GET", b"HEAD")
    _, got = say(address, head + get("/version", "Connection: close"))
    assert got.count(b"Content-Length: 22\r\n") == 2
    assert got.count(b'{"version"') == 1


def test_options_of_the_server(address: str) -> None:
    data = b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    code, got = say(address, data)
    assert code == 204
    assert b"Allow: " in got
    assert b"Content-Length" not in got


@pytest.mark.parametrize(
    "chunks", [[PROXY], [PROXY[:5], PROXY[5:]], [PROXY[n : n + 1] for n in range(len(PROXY))]]
)
def test_a_chunked_body(address: str, api: Api, chunks: list[bytes]) -> None:
    with closing(dial(address)) as connection:
        connection.sendall(chunked(*chunks) + get())
        assert [answer(connection)[0] for _ in range(2)] == [201, 200]


def test_extensions_and_trailers_of_chunks_are_passed_over(address: str, api: Api) -> None:
    data = chunked(PROXY, end=b"0;last\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n")
    data = data.replace(b"\r\n\r\n%x\r\n" % len(PROXY), b"\r\n\r\n%X ; a=b\r\n" % len(PROXY))
    with closing(dial(address)) as connection:
        connection.sendall(data + get())
        assert [answer(connection)[0] for _ in range(2)] == [201, 200]


def test_a_body_that_is_expected_is_asked_for(address: str, api: Api) -> None:
    with closing(dial(address)) as connection:
        connection.sendall(post(b"", "Expect: 100-continue", length=len(PROXY)))
        assert answer(connection)[0] == 100
        connection.sendall(PROXY)
        assert answer(connection)[0] == 201


def test_a_body_that_would_be_refused_is_not_asked_for(address: str) -> None:
    data = post(b"", "Expect: 100-continue", length=(1 << 20) + 1)
    assert say(address, data)[0] == 413


@pytest.mark.parametrize("target", ["http://localhost/version", "HTTP://127.0.0.1:1/version?x=/"])
def test_a_whole_address_is_a_path_too(address: str, target: str) -> None:
    assert say(address, get(target, "Connection: close"))[0] == 200


def test_a_query_is_passed_over(address: str) -> None:
    assert say(address, get("/version?a=/b", "Connection: close"))[0] == 200


def test_blank_lines_before_a_request_are_passed_over(address: str) -> None:
    assert say(address, b"\r\n\r\n" + get("/version", "Connection: close"))[0] == 200


BAD = {
    "no request": (b"hello\r\n\r\n", 400),
    "two words": (b"GET /version\r\n\r\n", 400),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "only blank lines": (b"\r\n" * 20, 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (get("/version", "Host: localhost"), 400),
    "folded header": (get("/version", "X: a", " b"), 400),
    "space in a header's name": (get("/version", "X : a"), 400),
    "header without colon": (get("/version", "X"), 400),
    "null in a header": (get("/version", "X: \0"), 400),
    "bare carriage return": (get("/version", "X: a\rY: b"), 400),
    "no path": (get("version"), 400),
    "authority": (b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "many headers": (get("/version", *["X: a"] * 100), 431),
    "long head": (get("/version", f"X: {'a' * 40_000}"), 431),
    "long path": (get("/" + "a" * 40_000), 431),
    "length of words": (get("/version", "Content-Length: ten"), 400),
    "negative length": (get("/version", "Content-Length: -1"), 400),
    "signed length": (get("/version", "Content-Length: +1"), 400),
    "list of lengths": (get("/version", "Content-Length: 1, 1"), 400),
    "two lengths": (get("/version", "Content-Length: 1", "Content-Length: 1"), 400),
    "length and chunks": (post(b"", "Transfer-Encoding: chunked", length=3), 400),
    "other coding": (get("/version", "Transfer-Encoding: gzip, chunked"), 501),
    "chunks in 1.0": (b"POST /reset HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "large body": (post(b"", length=(1 << 20) + 1), 413),
    "huge length": (post(b"", length=10**30), 400),
    "large chunk": (chunked(end=b"100001\r\n"), 413),
    "many chunks": (chunked(*[b"a" * 50_000] * 22), 413),
    "size of words": (chunked(end=b"xyz\r\n"), 400),
    "size with sign": (chunked(end=b"+1\r\na\r\n0\r\n\r\n"), 400),
    "long size": (chunked(end=b"000000001\r\na\r\n0\r\n\r\n"), 400),
    "chunk too long": (chunked(end=b"1\r\nab\r\n0\r\n\r\n"), 400),
    "long extension": (chunked(end=b"1;" + b"a" * 2000 + b"\r\na\r\n0\r\n\r\n"), 431),
    "many trailers": (chunked(end=b"0\r\n" + b"X: a\r\n" * 30 + b"\r\n"), 431),
    "expectation": (post(b"", "Expect: miracles", length=5), 417),
}


@pytest.mark.parametrize(("data", "code"), BAD.values(), ids=BAD)
def test_what_is_no_request_is_told_and_the_connection_closed(
    address: str, data: bytes, code: int
) -> None:
    got, text = say(address, data)
    assert got == code
    head, _, body = text.rpartition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    assert json.loads(body)["status"] == code


def test_an_answer_arrives_though_much_is_still_being_sent(address: str) -> None:
    assert say(address, post(b"a" * (4 << 20)))[0] == 413


@pytest.mark.parametrize("data", [b"", b"GE", get()[:-2], post(PROXY)[:-3], chunked(PROXY)[:-9]])
def test_a_client_that_leaves_in_the_midst_changes_nothing(
    address: str, api: Api, data: bytes
) -> None:
    for leave in (socket.socket.close, leave_hard):
        connection = dial(address)
        connection.sendall(data)
        leave(connection)
    assert api.get("/proxies") == {}


def test_connections_are_bounded_and_the_longest_idle_gives_way(address: str) -> None:
    with ExitStack() as stack:
        first, *others = [stack.enter_context(closing(dial(address))) for _ in range(300)]
        others[-1].sendall(get())
        assert answer(others[-1])[0] == 200
        assert ending(first) in ("closed", "reset")
        others[-2].sendall(get())
        assert answer(others[-2])[0] == 200


def test_half_sent_requests_give_way_too(address: str) -> None:
    with ExitStack() as stack:
        for _ in range(256):
            stack.enter_context(closing(dial(address))).sendall(b"GET /")
        assert say(address, get("/version", "Connection: close"))[0] == 200


def test_when_all_connections_are_at_work_one_more_is_told(address: str) -> None:
    with ExitStack() as stack:
        for _ in range(256):
            connection = stack.enter_context(closing(dial(address)))
            connection.sendall(post(b"", "Expect: 100-continue", length=5))
            assert answer(connection)[0] == 100
        assert say(address, get("/version", "Connection: close"))[0] == 503
    deadline = time.monotonic() + LIMIT
    while say(address, get("/version", "Connection: close"))[0] != 200:
        assert time.monotonic() < deadline
