"""Faults of the wire, made by a TCP proxy."""

from __future__ import annotations

from .proxy import Proxy
from .thread import new_loop, running
from .truth import Exchange, Exchanges

__all__ = ["Exchange", "Exchanges", "Proxy", "new_loop", "running"]
