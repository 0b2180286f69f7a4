"""SQLite and fork: no connection may be open in this process while it forks.

A child that inherits one shares SQLite's idea of which locks it holds, and can ruin the file even with
a connection of its own. So every use of SQLite here happens under a lock of whoever uses it; before a
fork that is taken and the connections are closed. If it can't be had in a moment (a disk hangs), the fork
goes on, and the child must keep its hands off.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

WAIT_SECONDS = 0.25


def around(
    in_use: threading.Lock, close: Callable[[], None], restart: Callable[[bool], None]
) -> None:
    """Before each fork take `in_use` and call `close()`, after it in the child `restart(clean)`.

    `clean` is False if the fork caught SQLite at work, so that the child must keep its hands off; then
    `in_use` is held in the child for good, by a thread that is not there.
    """
    taken = False

    def before() -> None:
        nonlocal taken
        taken = in_use.acquire(timeout=WAIT_SECONDS)
        if taken:
            close()

    def in_parent() -> None:
        if taken:
            in_use.release()

    def in_child() -> None:
        if taken:
            in_use.release()
        restart(taken)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)
