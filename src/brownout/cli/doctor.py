"""`brownout doctor`: which mechanism of a fault this machine allows, and what is used instead."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from brownout.errors import BrownoutError
from brownout.fleet.wire import clean

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["add", "doctor"]


def add(verbs: Any) -> None:
    """Hang the verb into the command line's."""
    parser = verbs.add_parser(
        "doctor",
        help="which faults can be made on this machine, and how",
        description="Try each mechanism for real, on a child or a socket of our own.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=doctor)


def doctor(options: Namespace) -> int:
    """One line for each mechanism. Raises BrownoutError where faults can't be made at all."""
    if not sys.platform.startswith("linux"):
        raise BrownoutError(f"faults are made on Linux; this is {sys.platform}")
    from brownout.fault.doctor import examine

    found = examine()
    if options.json:
        print(json.dumps({"mechanisms": [each._asdict() for each in found]}))
        return 0
    for each in found:
        because = f" ({clean(each.because, 300)})" if each.because else ""
        print(f"{each.works:<7} {each.name:<18} {clean(each.used, 200)}{because}")
    return 0
