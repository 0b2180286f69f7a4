"""The verbs of an undo: what each does, and how it is seen that nothing is left.

A verb may be done twice, by anyone, and after its object has died: then it does nothing. It is told that
it worked only by looking. To add one, write a function that does it and one that looks, and name both in
`VERBS`; a verb that ends what others act on comes later in a record's steps than they do.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import socket
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from brownout.fault.identity import Identity
from brownout.fault.record import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from brownout.fault.record import Step

__all__ = ["VERBS", "Verb", "gone", "left", "take", "until_gone"]

UNDO_SECONDS = 3.0  # for an undo to be seen; a process that ignores SIGTERM is killed after a third
AGAIN_SECONDS = 0.1
CGROUPS = "/sys/fs/cgroup/"


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


def _prlimit(step: Step) -> None:
    """Step("prlimit", pid, start, resource="NOFILE", soft, hard): a limit as it was."""
    with _identity(step).held() as held:
        if held is not None:
            with suppress(ProcessLookupError):
                resource.prlimit(step.details["pid"], _resource(step), _limits(step))


def _limited(step: Step) -> bool:
    if not _identity(step).alive():
        return True
    try:
        return resource.prlimit(step.details["pid"], _resource(step)) == _limits(step)
    except ProcessLookupError:
        return True


def _resource(step: Step) -> int:
    return int(getattr(resource, f"RLIMIT_{step.details['resource']}"))


def _limits(step: Step) -> tuple[int, int]:
    return int(step.details["soft"]), int(step.details["hard"])


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


# ---------------------------------------------------------------------------------------- cgroups


def _cgroup(step: Step) -> None:
    """Step("cgroup", path, back, origins={pid: path}): thaw a group of ours, empty and remove it.

    A process goes back to where it came from, and what was started within goes to `back`; if that is
    gone, to the group above. `path` is the folder of the group, in v1 or v2.
    """
    path = _group(step)
    if not os.path.isdir(path):
        return
    for name, text in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
        if os.path.exists(f"{path}/{name}"):
            _put(f"{path}/{name}", text)
    origins: dict[str, Any] = step.details.get("origins") or {}
    for _ in range(20):  # a process may fork while it is moved
        members = _get(f"{path}/cgroup.procs").split()
        for pid in members:
            wanted = str(origins.get(pid) or step.details["back"])
            _move(pid, (wanted, os.path.dirname(path)))
        if not members:
            break
    with suppress(FileNotFoundError):
        os.rmdir(path)


def _move(pid: str, groups: Sequence[str]) -> None:
    for number, group in enumerate(groups):
        try:
            _put(f"{group}/cgroup.procs", pid)
            return
        except ProcessLookupError:
            return
        except OSError:
            if number == len(groups) - 1:
                raise


def _group(step: Step) -> str:
    path = _ours(step.details["path"])
    if not path.startswith(CGROUPS) or ".." in path.split("/"):
        raise ValueError(f"{path} is no cgroup")
    return path


def _quota(step: Step) -> None:
    """Step("quota", path, text): a file of a cgroup's limits, as it was."""
    path = step.details["path"]
    if not path.startswith(CGROUPS) or ".." in path.split("/"):
        raise ValueError(f"{path} is no file of a cgroup")
    with suppress(FileNotFoundError):
        _put(path, step.details["text"])


def _restored(step: Step) -> bool:
    try:
        return bool(_get(step.details["path"]) == step.details["text"].strip())
    except FileNotFoundError:
        return True


def _put(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def _get(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


VERBS: dict[str, Verb] = {
    "signal": Verb(_signal, _runs),
    "terminate": Verb(_terminate, _ended, hard=_kill),
    "prlimit": Verb(_prlimit, _limited),
    "unlink": Verb(_unlink, _absent),
    "rmtree": Verb(_rmtree, _absent),
    "socket": Verb(_socket, _unheard),
    "cgroup": Verb(_cgroup, _absent),
    "quota": Verb(_quota, _restored),
}
