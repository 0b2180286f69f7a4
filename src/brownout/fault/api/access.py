"""Who may use the API, and where it and its proxies may listen: on this machine, or with a token.

A page in a browser on this machine must not reach it either, by another site's script (`Origin`), by
a name that resolves to 127.0.0.1 (`Host`), or as a browser at all.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

from brownout.errors import ConfigurationError
from brownout.fault.api.answer import Problem
from brownout.fault.tcp.address import Address

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["address_of", "check_request", "check_token", "is_loopback", "resolved"]

TOKEN_CHARACTERS = 16
RESOLVE_SECONDS = 2.0
BEYOND = (
    "beyond this machine only with a token: start it with --token, and send Authorization: Bearer"
)


def address_of(text: str) -> Address:
    """The host and port that `text` means; nothing is a free port of this machine.

    Raises ConfigurationError. Unix sockets are none of this API's: a file's owner decides who may use it.
    """
    address = Address.read(text or "127.0.0.1:0")
    if address.path or not address.host.isprintable() or set(address.host) & set(" /[]"):
        raise ConfigurationError(f"{text[:200]!r} is no address: write host:port, or [::1]:port")
    return address


async def resolved(text: str) -> Address:
    """The IP address that `text` means, so that it can't mean another one later.

    Raises ConfigurationError.
    """
    address = address_of(text)
    if address.host == "localhost":
        return Address("127.0.0.1", address.port)
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            return await address.resolved()
    except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
        raise ConfigurationError(f"{address.host} has no address: {error}") from error


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
