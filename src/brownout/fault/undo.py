"""The verbs of an undo: what each does, and how it is seen that nothing is left.

A verb may be done twice, by anyone, and after its object has died: then it does nothing. It is told that
it worked only by looking. To add one, write a function that does it and one that looks, and name both in
`VERBS`; a verb that ends what others act on comes later in a record's steps than they do.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from brownout.fault.identity import Identity
from brownout.fault.process import files, group, neighbour, stop
from brownout.fault.record import PREFIX
from brownout.fault.replica import evict
from brownout.fault.zone import residents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from brownout.fault.record import Step

__all__ = ["VERBS", "Verb", "gone", "left", "take", "until_gone"]

UNDO_SECONDS = 3.0  # for an undo to be seen; a process that ignores SIGTERM is killed after a third
AGAIN_SECONDS = 0.1


class Verb(NamedTuple):
    """What it does, whether nothing is left of it, and what is done if that did not help."""

    do: Callable[[Step], None]
    gone: Callable[[Step], bool]
    hard: Callable[[Step], None] | None = None


def take(steps: Iterable[Step], *, hard: bool = False) -> None:
    """Take every step, in order; what the first to fail raised is raised after the last."""
    failed: Exception | None = None
    for step in steps:
        try:
            verb = _verb(step)
            (verb.hard if hard and verb.hard else verb.do)(step)
        except Exception as error:  # the others must still be taken
            failed = failed or error
    if failed:
        raise failed


def gone(steps: Iterable[Step]) -> bool:
    """Whether nothing is left of any of them, as far as can be seen."""
    return not left(steps)


def left(steps: Iterable[Step]) -> list[Step]:
    """The steps of which something is left."""
    return [step for step in steps if not _verb(step).gone(step)]


def until_gone(
    do: Callable[[bool], None], is_gone: Callable[[], bool], *, seconds: float = UNDO_SECONDS
) -> str:
    """Do it, and look until it is seen to be gone; why it is not, or nothing.

    It is done again and again, ten times a second; after a third of the time, hard.
    """
    began = time.monotonic()
    again, pause, problem = 0.0, 0.001, ""
    while True:
        elapsed = time.monotonic() - began
        if elapsed >= again:
            again, problem = elapsed + AGAIN_SECONDS, ""
            try:
                do(elapsed > seconds / 3)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
        try:
            if is_gone():
                return ""
            seen = f"it is still there after {seconds:g} s"
        except Exception as error:
            seen = f"it can't be seen whether it is gone: {type(error).__name__}: {error}"
        if elapsed >= seconds:
            return f"{problem}; {seen}" if problem else seen
        time.sleep(pause)
        pause = min(0.05, pause * 2)


def _verb(step: Step) -> Verb:
    if step.verb not in VERBS:
        raise ValueError(f'no verb of an undo is called "{step.verb}"')
    return VERBS[step.verb]


# --------------------------------------------------------------------------------------- processes


def _identity(step: Step) -> Identity:
    return Identity(int(step.details["pid"]), int(step.details["start"]))


def _signal(step: Step) -> None:
    """Step("signal", pid, start, signal="CONT"): that it goes on. No other signal is sent."""
    if step.details["signal"] != "CONT":
        raise ValueError(f"an undo sends no {step.details['signal']}")
    _identity(step).signal(signal.SIGCONT)


def _runs(step: Step) -> bool:
    return _identity(step).state() != "T"


def _terminate(step: Step) -> None:
    """Step("terminate", pid, start): a process that we started."""
    _identity(step).signal(signal.SIGTERM)


def _kill(step: Step) -> None:
    _identity(step).signal(signal.SIGKILL)


def _ended(step: Step) -> bool:
    return not _identity(step).alive()


def _resume(step: Step) -> None:
    """Step("resume", members, descend, spared): they were stopped, with `descend` their kin too."""
    stop.resume(**step.details)


def _running(step: Step) -> bool:
    return stop.running(**step.details)


def _files(step: Step) -> None:
    """Step("files", process, ours, before, since): the limit of open files as it was."""
    files.restore(**step.details)


def _unlimited(step: Step) -> bool:
    return files.limited(**step.details)


def _untie(step: Step) -> None:
    """Step("untie", process, cpu, before, threads, since): the CPUs of its threads, as they were."""
    neighbour.untie(**step.details)


def _free(step: Step) -> bool:
    return not neighbour.tied(**step.details)


def _cgroup(step: Step) -> None:
    """Step("cgroup", path, quiet, disable=""): a group of ours; its members go to the group above."""
    group.release(**step.details)


def _removed(step: Step) -> bool:
    return group.absent(step.details["path"])


def _empty_zones(step: Step) -> None:
    """Step("zones", id): every process in the zones that bear this id."""
    residents.end(step.details["id"])


def _kill_zones(step: Step) -> None:
    residents.kill(step.details["id"])


def _zones_empty(step: Step) -> bool:
    return not residents.found(step.details["id"])


# ----------------------------------------------------------------------------------------- disks
# Their modules are needed only where one is: the watchdog is to start fast.


def _unmount(step: Step) -> None:
    """Step("unmount", source): a mount of ours, with what is open in it, hung or served by nobody."""
    from brownout.fault.disk import mount

    mount.unmount(step.details["source"])


def _unmounted(step: Step) -> bool:
    from brownout.fault.disk import mount

    return not mount.find(step.details["source"])


def _lift(step: Step) -> None:
    """Step("lift", control, name): one fault of a disk, by its server."""
    from brownout.fault.disk import control

    control.lift(step.details["control"], step.details["name"])


def _lifted(step: Step) -> bool:
    from brownout.fault.disk import control

    return control.gone(step.details["control"], step.details["name"])


# ----------------------------------------------------------------------------------------- files


def _ours(path: str) -> str:
    """The path, if the last part of it is a name that only we give."""
    name = os.path.basename(path)
    if not os.path.isabs(path) or not name.startswith(PREFIX):
        raise ValueError(f'{path} is left alone: an undo removes only what is named "{PREFIX}..."')
    return path


def _unlink(step: Step) -> None:
    """Step("unlink", path): a file, socket or link of ours."""
    with suppress(FileNotFoundError):
        os.unlink(_ours(step.details["path"]))


def _rmtree(step: Step) -> None:
    """Step("rmtree", path): a folder of ours and all in it; nothing behind a link, or on a mount."""
    path = _ours(step.details["path"])
    with suppress(FileNotFoundError):
        found = os.lstat(path)
        if found.st_uid != os.getuid() or os.path.ismount(path):
            raise PermissionError(errno.EPERM, "not ours, or a mount", path)
        shutil.rmtree(path)


def _evict(step: Step) -> None:
    """Step("evict", path, programs, signal): a folder of ours, and the servers that live in it."""
    _ours(step.details["path"])
    if evict.evict(**step.details):
        _rmtree(step)


def _evict_hard(step: Step) -> None:
    _ours(step.details["path"])
    if evict.evict(**{**step.details, "signal": "KILL"}):
        _rmtree(step)


def _deserted(step: Step) -> bool:
    return _absent(step) and not evict.living(step.details["path"], step.details["programs"])


def _absent(step: Step) -> bool:
    return not os.path.lexists(step.details["path"])


def _socket(step: Step) -> None:
    """Step("socket", path): a listening Unix socket of a name that the user chose, once nobody listens."""
    path = step.details["path"]
    if not _absent(step) and _nobody_listens(path):
        with suppress(FileNotFoundError):
            os.unlink(path)


def _unheard(step: Step) -> bool:
    return not _nobody_listens(step.details["path"])


def _nobody_listens(path: str) -> bool:
    """Whether a dead socket is there. Anything else is not ours to judge."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(0)
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


VERBS: dict[str, Verb] = {
    "signal": Verb(_signal, _runs),
    "terminate": Verb(_terminate, _ended, hard=_kill),
    "resume": Verb(_resume, _running),
    "files": Verb(_files, _unlimited),
    "untie": Verb(_untie, _free),
    "zones": Verb(_empty_zones, _zones_empty, hard=_kill_zones),
    "cgroup": Verb(_cgroup, _removed),
    "unmount": Verb(_unmount, _unmounted),
    "lift": Verb(_lift, _lifted),
    "unlink": Verb(_unlink, _absent),
    "rmtree": Verb(_rmtree, _absent),
    "evict": Verb(_evict, _deserted, hard=_evict_hard),
    "socket": Verb(_socket, _unheard),
}
