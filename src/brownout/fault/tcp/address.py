"""An address as it is written: "host:port", "[::1]:port" or "unix:/path"."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from brownout.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Address"]


class Address(NamedTuple):
    """A host and a port, or the path of a Unix socket."""

    host: str
    port: int
    path: str = ""

    @classmethod
    def read(cls, text: str) -> Address:
        """Raises ConfigurationError for what is no address. Without a host it is 127.0.0.1."""
        if text.startswith("unix:") and len(text) > len("unix:"):
            return cls("", 0, text[len("unix:") :])
        host, colon, port = text.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        bare_six = ":" in host and not text.startswith("[")
        if not colon or bare_six or not (port.isascii() and port.isdigit() and int(port) < 65536):
            raise ConfigurationError(
                f'{text!r} is no address: write "host:port", "[::1]:port" or "unix:/path"'
            )
        return cls(host or "127.0.0.1", int(port))

    def __str__(self) -> str:
        """As it is written."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def connect(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Dial it on the running loop. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self.path:
            await loop.create_unix_connection(protocol, self.path)
        else:
            await loop.create_connection(protocol, self.host, self.port)

    async def resolved(self) -> Address:
        """With a number for its host. Raises OSError."""
        if self.path:
            return self
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return Address(str(found[0][4][0]), self.port)

    def bind(self) -> socket.socket:
        """A socket bound to it for good, not listening yet. Raises OSError."""
        if self.path:
            return self._bind_unix()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        port = self.port
        if not port:
            # A port that was asked for by its number stays ours when we stop listening; one that the
            # kernel chose does not. So let it choose, and ask for that.
            with socket.socket(family, socket.SOCK_STREAM) as chosen:
                chosen.bind((self.host, 0))
                port = int(chosen.getsockname()[1])
        # The protocol is named, since asyncio sets TCP_NODELAY only then; else small writes wait 40 ms.
        place = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            place.bind((self.host, port))
        except OSError:
            place.close()
            raise
        place.setblocking(False)  # noqa: FBT003  socket's own
        return place

    def _bind_unix(self) -> socket.socket:
        place = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(1.0)
                try:
                    probe.connect(self.path)
                except ConnectionRefusedError:  # left behind: nobody listens there
                    Path(self.path).unlink()
                except FileNotFoundError:
                    pass
            place.bind(self.path)
        except OSError:
            place.close()
            raise
        place.setblocking(False)  # noqa: FBT003  socket's own
        return place
