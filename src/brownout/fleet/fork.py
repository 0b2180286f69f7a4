"""SQLite and fork: no connection may be open in this process while it forks.

A child that inherits one shares SQLite's idea of which locks it holds, and can ruin the file even with
a connection of its own. So every use of SQLite here happens under `IN_USE`; before a fork it is taken
and the writer's connection is closed. If it can't be had in a moment (a disk hangs), the fork goes on
and the child shares nothing.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_SECONDS = 0.25

IN_USE = threading.Lock()


def around(close: Callable[[], None], restart: Callable[[bool], None]) -> None:
    """Before each fork call `close()`, after it in the child `restart(clean)`.

    `clean` is False if the fork caught SQLite at work, so that the child must keep its hands off.
    """
    taken = False

    def before() -> None:
        nonlocal taken
        taken = IN_USE.acquire(timeout=WAIT_SECONDS)
        if taken:
            close()

    def in_parent() -> None:
        if taken:
            IN_USE.release()

    def in_child() -> None:
        if taken:
            IN_USE.release()
        restart(taken)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)
