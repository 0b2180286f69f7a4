"""A real HTTP/2 server, of many streams on a connection: it does what the test says, and tells what came."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events

from tests.ext.listening import LIMIT_SECONDS, Listening

if TYPE_CHECKING:
    import socket
    import ssl


class StreamServer(Listening):
    """Listens on 127.0.0.1, with TLS if given a context. Each request is answered by its path.

    `/ok` at once; `/hang` and others not before the test says so by `begin`, `send`, `finish`.
    After `deafen` what comes over the connections of that moment is read and thrown away.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.came: list[str] = []  # paths, in order
        self.reset: list[tuple[str, int]] = []  # path, error code
        self.left: list[str] = []  # how connections ended
        self._deaf: set[Any] = set()
        self._tls = tls
        self._streams: dict[str, tuple[Any, Any, int]] = {}
        super().__init__()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"

    def _serve(self, raw: socket.socket) -> None:
        raw.settimeout(LIMIT_SECONDS)
        with suppress(OSError):
            connection = raw if self._tls is None else self._tls.wrap_socket(raw, server_side=True)
            with self._lock:
                self._open.add(connection)
            with connection:
                self._talk(connection)
            with self._lock:
                self._open -= {raw, connection}

    def _talk(self, connection: Any) -> None:
        config = h2.config.H2Configuration(client_side=False)
        state = h2.connection.H2Connection(config=config)
        with self._lock:
            state.initiate_connection()
            connection.sendall(state.data_to_send())
        while True:
            try:
                data = connection.recv(65536)
            except ConnectionResetError:
                self.left.append("reset")
                return
            except TimeoutError:
                return
            if not data:
                self.left.append("closed")
                return
            if connection in self._deaf:
                continue
            with self._lock:
                for event in state.receive_data(data):
                    self._take(connection, state, event)
                with suppress(OSError):
                    connection.sendall(state.data_to_send())

    def _take(self, connection: Any, state: Any, event: Any) -> None:
        if isinstance(event, h2.events.RequestReceived):
            path = dict(event.headers)[b":path"].decode()
            self._streams[path] = (connection, state, event.stream_id)
            self.came.append(path)
            if path.startswith("/ok"):
                self._answer(state, event.stream_id, b"ok", end=True)
        elif isinstance(event, h2.events.StreamReset):
            paths = {number: path for path, (_, _, number) in self._streams.items()}
            self.reset.append((paths[event.stream_id], int(event.error_code)))

    @staticmethod
    def _answer(state: Any, number: int, body: bytes, *, end: bool) -> None:
        state.send_headers(number, [(":status", "200"), ("content-type", "text/plain")])
        state.send_data(number, body, end_stream=end)

    def deafen(self) -> None:
        """Hear nothing more over the connections that are open."""
        with self._lock:
            self._deaf = set(self._open)

    def begin(self, path: str, body: bytes = b"some") -> None:
        """The headers, and the first part of the body."""
        self._do(path, lambda state, number: self._answer(state, number, body, end=False))

    def finish(self, path: str, body: bytes = b"more") -> None:
        """The last part of a body."""
        self._do(path, lambda state, number: state.send_data(number, body, end_stream=True))

    def _do(self, path: str, act: Any) -> None:
        connection, state, number = self._streams[path]
        with self._lock:
            act(state, number)
            connection.sendall(state.data_to_send())
