"""`brownout doctor`: which mechanism of a fault this machine allows, and which clients send things twice."""

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
        help="which faults can be made on this machine, and which clients send again by themselves",
        description="Try each mechanism for real, on a child or a socket of our own; and ask the clients that"
        " are installed which work they send again by themselves, though it may have been done.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=doctor)


def doctor(options: Namespace) -> int:
    """One line for each mechanism. Raises BrownoutError where faults can't be made at all."""
    if not sys.platform.startswith("linux"):
        raise BrownoutError(f"faults are made on Linux; this is {sys.platform}")
    from brownout.ext.clients import installed
    from brownout.fault.doctor import examine

    found, clients = examine(), installed()
    if options.json:
        mechanisms = [each._asdict() for each in found]
        told = {"mechanisms": mechanisms, "clients": [each._asdict() for each in clients]}
        print(json.dumps(told))
        return 0
    for each in found:
        because = f" ({clean(each.because, 300)})" if each.because else ""
        print(f"{each.works:<7} {each.name:<18} {clean(each.used, 200)}{because}")
    for client in clients:
        name = f"{client.name} {client.version}"
        what = "sends nothing again by itself"
        if client.resends:
            what = f"sends again by itself: {client.resends} ({client.advice})"
        print(f"{'twice' if client.resends else 'once':<7} {name:<18} {clean(what, 300)}")
    return 0
