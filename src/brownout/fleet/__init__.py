"""The fleet: several processes share what they see of their targets.

    brownout.share("/run/shop/fleet.db")             # or BROWNOUT_FLEET=/run/shop/fleet.db

    from brownout.fleet.local import read
    for row in read("/run/shop/fleet.db").rows:      # the worst target first
        print(row.target, row.state, row.because, f"seen by {row.seen_by} of {row.observers}")

This package is the front door's; SQLite is imported only by the thread that writes, and by readers.
"""

from __future__ import annotations

from brownout._core.view import Observer, Row, Seen, absence
from brownout.fleet.sharing import share

__all__ = ["Observer", "Row", "Seen", "absence", "share"]
