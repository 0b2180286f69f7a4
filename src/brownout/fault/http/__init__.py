"""Faults of HTTP: in a server (ASGI), in a client (httpx, httpx2), or by a proxy between them."""

from __future__ import annotations

from .asgi import HttpFaults
from .proxy import HttpProxy, running
from .transport import HttpTransport

__all__ = ["HttpFaults", "HttpProxy", "HttpTransport", "running"]
