"""`brownout fault add | list | clear`: failures on purpose, from a shell."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brownout.cli import amount, hold
from brownout.errors import ConfigurationError
from brownout.fault import record as records
from brownout.fault import undo, watchdog
from brownout.fault.process import group
from brownout.fault.record import Step
from brownout.fleet.wire import clean

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Generator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from brownout.fault import Fault
    from brownout.fault.made import Made
    from brownout.fault.record import Record

__all__ = ["add"]

FOR_SECONDS = 60.0
MECHANISMS = ("tcp", "process", "listener")


def add(verbs: Any, seconds: Callable[[str], float]) -> None:
    """Hang the verbs into the sub-verbs of `fault`; `seconds` reads a duration, as argparse wants it."""
    make = verbs.add_parser(
        "add",
        help="make a fault, which stays in force after the command has ended",
        description="Make a fault. It stays in force for --for, or until `brownout fault clear`.",
        epilog="amounts: seconds=200ms, seconds=200ms~50ms (jitter), share=30%%, nth=3, first=2,"
        " match='GET /pay', start=5s, on=1s off=4s ...; a wrong one is told, with those that there are",
    )
    make.add_argument("mechanism", metavar="MECHANISM", help=", ".join(MECHANISMS))
    make.add_argument("kind", metavar="KIND", help="such as latency, cut, pause, freeze")
    make.add_argument(
        "place", metavar="PLACE", help="the address to relay to (tcp), a process id, or an address"
    )
    make.add_argument("amounts", metavar="NAME=VALUE", nargs="*", help="how much, whom, when")
    make.add_argument(
        "--for",
        dest="seconds",
        type=seconds,
        default=FOR_SECONDS,
        metavar="DURATION",
        help="in force for so long (default: 60s)",
    )
    make.add_argument(
        "--listen", metavar="ADDRESS", help="tcp: where to call instead (default: a free port)"
    )
    make.add_argument("--target", default="", help="the guarded target that suffers, for `status`")
    make.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the same seed hits the same"
    )
    make.add_argument("--json", action="store_true", help="print JSON")
    make.set_defaults(run=_add)

    look = verbs.add_parser("list", help="what is in force, and what could not be undone")
    look.add_argument("--json", action="store_true", help="print JSON")
    look.set_defaults(run=_list)

    clear = verbs.add_parser("clear", help="undo faults now; also when their watchdog is dead")
    clear.add_argument("ids", metavar="ID", nargs="*", help="as `list` shows it, or its beginning")
    clear.add_argument("--all", action="store_true", help="every one")
    clear.set_defaults(run=_clear)


# ------------------------------------------------------------------------------------------- add


def _add(options: Namespace) -> int:
    """Make a fault that outlives the command. Raises BrownoutError if it can't be made."""
    kinds = _kinds(options.mechanism)
    fault = amount.fault(amount.kind(options.kind, kinds, options.mechanism), options.amounts)
    make = _maker(options, fault)
    told = hold.hold(make, target=options.target)
    if options.json:
        print(json.dumps(told))
        return 0
    print(f"{told['id']}  {told['fault']} at {told['place']}, for {_span(told['ends_in_seconds'])}")
    if told["listen"]:
        print(f"call {told['listen']} instead of {options.place}")
    print(f"undo it: brownout fault clear {told['id']}")
    return 0


def _kinds(mechanism: str) -> Mapping[str, type[Fault]]:
    if mechanism == "tcp":
        from brownout.fault.tcp.shape import MAKES

        wire: list[type[Fault]] = list(MAKES)
        return {kind.kind: kind for kind in wire}
    if mechanism == "process":
        from brownout.fault import AbortConnections, ExhaustFiles, Freeze, Kill, Pause, Starve

        made = (AbortConnections, ExhaustFiles, Freeze, Kill, Pause, Starve)
        return {kind.kind: kind for kind in made}
    if mechanism == "listener":
        from brownout.fault.kind import FillBacklog

        return {FillBacklog.kind: FillBacklog}
    raise ConfigurationError(
        f'"{mechanism}" is no mechanism; there are: {", ".join(MECHANISMS)} (http: brownout.fault.http)'
    )


def _maker(options: Namespace, fault: Fault) -> Callable[[], AbstractContextManager[Made]]:
    seconds, seed, where = options.seconds, options.seed, _absolute(options.place)
    if options.listen and options.mechanism != "tcp":
        raise ConfigurationError("--listen is for tcp: a proxy listens, a process does not")
    if options.mechanism == "tcp":
        listen = _absolute(options.listen or "127.0.0.1:0")
        return lambda: _proxied(where, listen, fault, seconds, seed)
    if options.mechanism == "listener":
        from brownout.fault.process.place import Listener

        listener = Listener(where)
        return lambda: listener.make(fault, seconds=seconds)
    from brownout.fault.process.place import Process

    if not where.isdecimal():
        raise ConfigurationError(
            f'"{clean(where)}" is no process id; a name may be a stranger\'s too'
        )
    process = Process(int(where), seed=seed)  # here, where our ancestors are still ours
    return lambda: process.make(fault, seconds=seconds)


def _absolute(address: str) -> str:
    """A Unix socket's path as seen from here: the process that holds the fault is elsewhere."""
    kind, colon, path = address.partition(":")
    return f"unix:{Path(path).absolute()}" if kind == "unix" and colon and path else address


@contextmanager
def _proxied(
    upstream: str, listen: str, fault: Fault, seconds: float, seed: int
) -> Generator[Made]:
    from brownout.fault.tcp import running

    with running(upstream, listen, seed=seed) as proxy, proxy.make(fault, seconds=seconds) as made:
        yield made


# ------------------------------------------------------------------------------------------ list


def _list(options: Namespace) -> int:
    found = records.read(records.folder())
    if options.json:
        print(json.dumps({"faults": [_plain(each) for each in found.records], **_told(found)}))
        return 0
    rows = [("ID", "FAULT", "PLACE", "OWNER", "ENDS IN", "STATE")]
    for each in found.records:
        state = _state(each)
        rows.append(
            (
                each.id,
                clean(each.fault),
                clean(each.place),
                str(each.owner.pid),
                _span(each.seconds_left()),
                state if state == "in force" else f"{state}: {clean(_because(each), 200)}",
            )
        )
    wide = [max(len(row[n]) for row in rows) for n in range(5)]
    for row in rows if found.records else ():
        print("  ".join([*(cell.ljust(wide[n]) for n, cell in enumerate(row[:5])), row[5]]))
    if not found.records:
        print("no fault is in force")
    _problems(found)
    return 0


def _state(record: Record) -> str:
    if record.failed:
        return "undo-failed"
    return "left" if record.orphan else "in force"


def _because(record: Record) -> str:
    if record.failed:
        return record.failed
    if watchdog.runs(records.folder()):
        return "its maker has died; the watchdog is about to undo it"
    return f"its maker and the watchdog have died; brownout fault clear {record.id}"


def _plain(record: Record) -> dict[str, Any]:
    left = record.seconds_left()
    return {
        "id": record.id,
        "mechanism": record.mechanism,
        "kind": record.kind,
        "fault": record.fault,
        "place": record.place,
        "target": record.target or None,
        "listen": record.listen or None,
        "owner": {"pid": record.owner.pid, "alive": not record.orphan},
        "began": record.began,
        "ends_in_seconds": left if left < float("inf") else None,
        "state": _state(record),
        "because": None if _state(record) == "in force" else _because(record),
    }


def _told(found: records.Reading) -> dict[str, Any]:
    return {"problems": list(found.problems)}


def _problems(found: records.Reading) -> None:
    for problem in found.problems:
        print(f"brownout: {clean(problem, 500)}", file=sys.stderr)


def _span(seconds: float) -> str:
    if seconds == float("inf"):
        return "with it"
    return "now" if seconds <= 0 else f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


# ----------------------------------------------------------------------------------------- clear


def _clear(options: Namespace) -> int:
    """Undo; 1 if any could not be. Raises ConfigurationError for an id that there is not."""
    folder = records.folder()
    found = records.read(folder)
    _problems(found)
    failed = 0
    for each in found.records if options.all else _chosen(options.ids, found.records):
        problem = _cleared(folder, each)
        failed += bool(problem)
        what = f"{each.id}  {clean(each.fault)} at {clean(each.place)}"
        print(f"not cleared: {what}: {clean(problem, 300)}" if problem else f"cleared: {what}")
    if options.all:
        failed += _clear_groups()
    return 1 if failed else 0


def _clear_groups() -> int:
    """Undo the control groups of makers that are no more, whose record is lost too; how many could not be."""
    failed = 0
    for each in group.orphans():
        problem = _released(Step("cgroup", path=str(each), quiet=group.quieting(each)))
        failed += bool(problem)
        print(f"not cleared: {each}: {clean(problem, 300)}" if problem else f"cleared: {each}")
    return failed


def _released(step: Step) -> str:
    return undo.until_gone(lambda hard: undo.take([step], hard=hard), lambda: undo.gone([step]))


def _chosen(ids: Sequence[str], there: Sequence[Record]) -> list[Record]:
    if not ids:
        raise ConfigurationError(
            "which fault? Give an ID, as `brownout fault list` shows it, or --all"
        )
    chosen: list[Record] = []
    for wanted in ids:
        fitting = [each for each in there if each.id.startswith(wanted)]
        if len(fitting) != 1:
            known = ", ".join(each.id for each in there) or "none"
            many = "several faults begin so" if fitting else "no fault has this id"
            raise ConfigurationError(f'"{clean(wanted)}": {many}; in force: {known}')
        chosen += fitting
    return chosen


def _cleared(folder: str, record: Record) -> str:
    if record.inside and not record.orphan:
        return (
            f"it is inside process {record.owner.pid}, which alone can undo it; end that process, or"
            " the block that made it"
        )
    try:
        return watchdog.settle(folder, record.id)
    except TimeoutError as error:
        return str(error)
