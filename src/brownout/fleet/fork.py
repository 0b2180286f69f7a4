"""The fleet file and fork: every use of it by this process happens under `IN_USE`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from brownout import _fork

if TYPE_CHECKING:
    from collections.abc import Callable

IN_USE = threading.Lock()


def around(close: Callable[[], None], restart: Callable[[bool], None]) -> None:
    """As `_fork.around`, for the fleet file."""
    _fork.around(IN_USE, close, restart)
