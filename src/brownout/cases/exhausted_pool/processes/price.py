"""What the right answer is: every price is a pure function of its number.

So the load can tell a right answer from a wrong one without asking anybody.
"""

from __future__ import annotations

from typing import Any

ITEMS = 1000  # numbers that are asked for
CATALOG = 24  # items on the front page


def quoted(item: int) -> int:
    """Today's price of an item, in cents: what only the downstream knows."""
    return 500 + (item * 7919) % 9_500


def listed(item: int) -> int:
    """The list price, which the shop knows by itself: its degraded answer."""
    return 1000 + (item * 613) % 9_000


def judged(path: str, status: int, body: Any, *, degraded: bool) -> str:
    """What one answer was worth: right, degraded, refused, failed or wrong. How late it came is not asked.

    A degraded answer is one that says so, and gives the list price.
    """
    if status in {429, 503}:
        return "refused"
    if status != 200 or not isinstance(body, dict):
        return "failed"
    if path == "/catalog":
        return "right" if body.get("items") == CATALOG else "wrong"
    item = int(path.rpartition("/")[2])
    if degraded:
        return "degraded" if body.get("price") == listed(item) else "wrong"
    return "right" if body.get("price") == quoted(item) else "wrong"
