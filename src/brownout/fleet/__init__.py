"""The fleet: several processes share what they see of their targets.

    brownout.share("/run/shop/fleet.db")             # or BROWNOUT_FLEET=/run/shop/fleet.db

    from brownout.fleet.local import read
    for row in read("/run/shop/fleet.db").rows:      # the worst target first
        print(row.target, row.state, row.because, f"seen by {row.seen_by} of {row.observers}")

This package is the front door's. What shares is imported by the first `share()`, or by the first Guard of a
process whose environment has BROWNOUT_FLEET; SQLite only by the thread that writes, and by readers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from brownout import _guard

if TYPE_CHECKING:
    from brownout._core.view import Observer, Row, Seen, absence

__all__ = ["Observer", "Row", "Seen", "absence", "share"]


def share(path: str | os.PathLike[str], *, zone: str | None = None) -> None:
    """Write what this process sees into the fleet file at `path`, for `brownout status` and others to read.

    The evidence of every target is written each second, and each change of a state as it happens, by a
    daemon thread; the judge's thread is started too. The file is made if there is none, for this user
    only. The observer is named by BROWNOUT_SERVICE (else by the program), and placed in `zone` (default:
    BROWNOUT_ZONE): 1 to 63 printable characters, the same for all that share a fate, such as "zone-a". Who
    suffers is told by zones then. A file that can't be written fails no call and delays none: the log says
    so once.

    Calling it again with the same path changes nothing. Raises ConfigurationError for another path or zone,
    for what is no path of a file, and for what is no name of a zone.
    """
    from brownout.fleet import sharing

    sharing.share(path, zone)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from brownout._core import view

    return getattr(view, name)


def _on_target(*_: object) -> None:
    if path := os.environ.get("BROWNOUT_FLEET"):
        from brownout.fleet import sharing

        sharing.share_as_told(path)


_guard.on_target.append(_on_target)
