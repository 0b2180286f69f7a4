"""Clients that send keyed work again by themselves, and telling their owner so, once for each.

What a client sends again on its own is done twice where the first was done and its answer lost; and the
last exception, or a wrong answer, is all that its caller sees.
"""

from __future__ import annotations

import warnings
from weakref import WeakSet

__all__ = ["ResendWarning", "warn"]

_warned: WeakSet[object] = WeakSet()


class ResendWarning(UserWarning):
    """A client that is watched sends again by itself what may have been done already."""


def warn(client: object, message: str) -> None:
    """Warn of a client, the first time that it is seen."""
    if client not in _warned:
        _warned.add(client)
        warnings.warn(message, ResendWarning, stacklevel=3)
