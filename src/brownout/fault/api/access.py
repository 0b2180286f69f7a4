"""Who may use the API, and where it and its proxies may listen: on this machine, or with a token.

A page in a browser on this machine must not reach it either, by another site's script (`Origin`), by
a name that resolves to 127.0.0.1 (`Host`), or as a browser at all.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from brownout.errors import ConfigurationError
from brownout.fault.api.answer import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Address", "check_request", "check_token", "is_loopback", "resolved"]

TOKEN_CHARACTERS = 16
RESOLVE_SECONDS = 2.0
BEYOND = (
    "beyond this machine only with a token: start it with --token, and send Authorization: Bearer"
)

_ADDRESS = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*)):([0-9]{1,5})")


class Address(NamedTuple):
    """A host and a port."""

    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Address:
        """From `host:port` or `[::1]:port`; no host is 127.0.0.1, and nothing at all a free port there.

        Raises ConfigurationError.
        """
        found = _ADDRESS.fullmatch(text or ":0")
        if found is None or int(found[3]) > 65535:
            raise ConfigurationError(f"{text[:200]!r} is not an address: host:port, or [::1]:port")
        host = found[1] or found[2] or "127.0.0.1"
        if not host.isascii() or not host.isprintable() or " " in host or "/" in host:
            raise ConfigurationError(f"{text[:200]!r} names no host: a name or an IP address")
        return cls(host, int(found[3]))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


async def resolved(text: str) -> Address:
    """The IP address that `text` means, so that it can't mean another one later.

    Raises ConfigurationError.
    """
    address = Address.of(text)
    if address.host == "localhost":
        return Address("127.0.0.1", address.port)
    if _ip(address.host):
        return Address(str(ip_address(address.host)), address.port)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await loop.getaddrinfo(*address, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as error:
        raise ConfigurationError(f"{address.host} has no address: {error}") from error
    return Address(str(found[0][4][0]), address.port)


def _ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether it is this machine, without asking anybody what a name means."""
    return host.lower() == "localhost" or (_ip(host) and ip_address(host).is_loopback)


def check_token(token: str | None) -> None:
    """Raise ConfigurationError for one that could be guessed, or can't stand in a header."""
    if token is not None and not re.fullmatch(rf"[!-~]{{{TOKEN_CHARACTERS},}}", token):
        message = f"a token has {TOKEN_CHARACTERS} characters or more, of ASCII and without spaces"
        raise ConfigurationError(message)


def check_request(headers: Mapping[str, str], token: str | None) -> None:
    """Raise Problem for a request that may come from a browser, or from who doesn't know the token."""
    if headers.get("user-agent", "").startswith("Mozilla/"):
        raise Problem(403, "User agent not allowed")
    if "origin" in headers:
        raise Problem(403, "a request with an Origin comes from a browser: not allowed")
    if token is None:
        host = headers.get("host", "127.0.0.1")
        if not is_loopback(re.sub(r":[0-9]*$", "", host).strip("[]")):
            raise Problem(403, f"Host {host[:80]!r} is not this machine; {BEYOND}")
        return
    given = headers.get("authorization", "").encode()
    if not hmac.compare_digest(given, f"Bearer {token}".encode()):
        wanted = ("WWW-Authenticate", "Bearer")
        raise Problem(401, "this API wants its token: Authorization: Bearer ...", wanted)
