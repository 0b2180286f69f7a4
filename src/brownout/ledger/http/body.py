"""A call's body, whole: it must be known before the key is claimed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from . import fields
from .problem import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = ["read"]


async def read(
    scope: Mapping[str, Any], receive: Callable[[], Awaitable[Any]], most: int, seconds: float
) -> bytes | None:
    """The body; None if the caller left before all of it was here.

    Raises Problem if it has more than `most` bytes, or is not here within `seconds`.
    """
    said = fields.length(scope["headers"])
    if said is not None and said > most:
        raise _large(most)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                body += message.get("body", b"")
                more = bool(message.get("more_body"))
                if len(body) > most:
                    raise _large(most)
    except TimeoutError:
        raise Problem(
            "body-too-late", f"It was not here after {seconds:g} s. Nothing was begun."
        ) from None
    return bytes(body)


def _large(most: int) -> Problem:
    return Problem("body-too-large", f"Calls with a key may bring {most} bytes. Nothing was begun.")
