"""Toxiproxy's HTTP API over brownout's own proxies: what speaks to toxiproxy speaks to this.

    async with Server("127.0.0.1:8474", seed=1) as server:
        ...

On the command line it is `brownout fault serve`.
"""

from __future__ import annotations

from brownout.fault.api.server import FOR_SECONDS, Server

__all__ = ["FOR_SECONDS", "Server"]
