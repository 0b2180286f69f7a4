"""Sharing: this process writes what it sees into the fleet file, once a second and at each change.

Everything that can fail or wait happens on one daemon thread, "brownout-fleet". Trouble with the file
is logged once, and again only after it had worked; meanwhile changes queue up to a bound, and what
goes over is counted. Importing starts nothing: `share()` does, or the first Guard of a process whose
environment has BROWNOUT_FLEET.
"""

from __future__ import annotations

import atexit
import os
import socket
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from brownout import _guard, _watch
from brownout._core.kept import Kept
from brownout._core.state import State, at_least
from brownout._core.view import Observer
from brownout._drive.clock import clock
from brownout.errors import ConfigurationError
from brownout.fleet import fork, usual, wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from brownout._core.guard import Core
    from brownout._core.target import Target
    from brownout.fleet.file import File

WRITE_SECONDS = 1.0
GAP_SECONDS = 0.1  # at least so long between two writes, however many changes there are
PATIENCE_SECONDS = 3.0  # a file that another writer has locked is trouble only after so long
END_SECONDS = 1.0  # what the last write may cost the end of the process
PRUNE_EVERY = 30  # writes
USUAL_EVERY = 30  # writes: what is usual changes slowly
MOST_TARGETS = 256
MOST_ZONE = 63  # characters
NO_ZONE = "give 1 to 63 printable characters, without | or comma, such as zone-a"
MOST_CHANGES = 1000  # waiting to be written


def observer(*, wall: float, zone: str | None = None) -> Observer:
    """Who this process is, as others see it: nothing in it is secret or random."""
    program = (
        os.path.realpath(sys.argv[0])
        if sys.argv and sys.argv[0] not in {"", "-c", "-m"}
        else "python"
    )
    if os.path.basename(program) == "__main__.py":  # noqa: PTH119 - a name, not a file
        program = os.path.dirname(program)  # noqa: PTH120
    name = os.environ.get("BROWNOUT_SERVICE") or os.path.basename(program)  # noqa: PTH119
    host, pid = socket.gethostname(), os.getpid()
    return Observer(
        id=f"{wire.clean(host)}/{pid}/{wall:.6f}",
        name=wire.clean(name) or "python",
        zone=_zone() if zone is None else zone,
        host=wire.clean(host),
        pid=pid,
        started=wall,
        written=wall,
    )


def _zone() -> str:
    """What BROWNOUT_ZONE says; what is no name of a zone is none, and the log says so."""
    told = os.environ.get("BROWNOUT_ZONE", "")
    if not told or is_zone(told):
        return told
    _watch.log.warning("BROWNOUT_ZONE: %s; this observer has no zone", NO_ZONE)
    return ""


def is_zone(name: object) -> bool:
    """Whether it may name a zone: it is shown, and stands in "zone-a | cache"."""
    if not isinstance(name, str) or not 0 < len(name) <= MOST_ZONE:
        return False
    return name.isprintable() and name == name.strip() and not set(name) & set("|,")


class Sharing:
    """One process's writer: its thread, what waits to be written, and what is wrong with the file."""

    def __init__(
        self,
        path: str,
        *,
        zone: str | None = None,
        open_file: Callable[[str], File] | None = None,
    ) -> None:
        self.path = path
        self.zone = zone
        self.trouble = ""  # what is wrong with the file; "" while it works
        self.file: File | None = None
        self._open_file = open_file
        self._who = observer(wall=time.time(), zone=zone)
        self._changes: deque[wire.Told] = deque()
        self._lost = 0
        self._until_prune = 0
        self._until_usual = USUAL_EVERY
        self._kept: dict[str, list[usual.Told]] = {}  # of targets that are not called yet
        self._troubled_at: float | None = None
        self._wake = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="brownout-fleet", daemon=True)

    @property
    def where(self) -> str:
        """The zone of this observer; "" if nobody has said."""
        return self._who.zone

    def start(self) -> None:
        """Start the writer's thread, and the judge's."""
        _watch.on_change(self.hear)
        _guard.on_target.append(self.meet)
        self._thread.start()

    def learn(self) -> None:
        """Read what a predecessor of this name knew to be usual, on this thread."""
        from brownout._file import Trouble

        try:
            with fork.IN_USE:
                told, malformed = self._file().usual(self._who.name)
        except Trouble as trouble:
            self._report(str(trouble), passing=trouble.passing)
            return
        if malformed:
            _watch.log.warning(
                "the fleet file %s: %d rows of what is usual make no sense and are ignored; those"
                " operations learn it anew",
                self.path, malformed,
            )  # fmt: skip
        kept: dict[str, list[usual.Told]] = {}
        for one in told:
            kept.setdefault(one.target, []).append(one)
        self._kept = kept
        for target in _guard.targets():
            self.meet(target)

    def meet(self, target: Target, _: Core | None = None) -> None:
        """Tell a target what a predecessor knew to be usual of it, once."""
        name = wire.clean(target.name, wire.WRITTEN_CHARACTERS)
        for one in self._kept.pop(name, ()):
            at = clock.now() - (time.time() - one.at)
            target.hear(one.operation, Kept(one.usual, at), clock.now())

    def hear(self, change: _watch.Change) -> None:
        """Take a change, on the judge's thread: queue it and wake the writer."""
        if len(self._changes) >= MOST_CHANGES:
            self._lost += 1
        else:
            self._changes.append(
                wire.Told(
                    wire.clean(change.target, wire.WRITTEN_CHARACTERS),
                    _wall(change.at),
                    change.at,
                    change.before.name if change.before else None,
                    change.after.name if change.after else None,
                    wire.clean(change.because, wire.SENTENCE_CHARACTERS),
                    change.verdict.contradiction,
                )
            )
        self._wake.set()

    def stop(self) -> None:
        """Write a last time and end the thread; waits for it, but not for long."""
        _watch.forget(self.hear)
        if self.meet in _guard.on_target:
            _guard.on_target.remove(self.meet)
        self._end.set()
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(END_SECONDS)

    def let_go(self) -> None:
        """Close the file; the next write opens it anew. Under `fork.IN_USE`."""
        if self.file is not None:
            self.file.close()

    def _run(self) -> None:
        ending = begun = False
        while not ending:
            if begun:
                self._wake.wait(WRITE_SECONDS - GAP_SECONDS)
                self._wake.clear()
                ending = self._end.is_set()
            try:
                if begun:
                    self.write(ended=ending)
                else:
                    begun = True
                    self.learn()
            except Exception as error:
                if not self.trouble:
                    _watch.log.exception("sharing into %s: a fault in brownout", self.path)
                self._report(f"a fault in brownout, {type(error).__name__}", passing=False)
            self._end.wait(GAP_SECONDS)
        with fork.IN_USE:
            self.let_go()

    def write(self, *, ended: bool = False) -> None:
        """Write everything now, on this thread."""
        from brownout._file import Trouble

        wall, targets = time.time(), _worst_first(_guard.targets())
        who = self._who._replace(
            written=wall,
            ended=wall if ended else None,
            lost=self._lost,
            left_out=max(0, len(targets) - MOST_TARGETS),
        )
        evidence = [
            (
                wire.clean(target.name, wire.WRITTEN_CHARACTERS),
                wire.write(target.verdicts(clock.now()), _wall),
            )
            for target in targets[:MOST_TARGETS]
        ]
        changes = list(self._changes)
        self._until_usual -= 1
        known = self._usual(targets) if ended or self._until_usual <= 0 else []
        try:
            with fork.IN_USE:
                prune = not self._until_prune
                self._file().write(who, evidence, changes, prune=prune, usual=known)
        except Trouble as trouble:
            self._until_prune = 0  # it may be full
            self._report(str(trouble), passing=trouble.passing)
            return
        for _ in changes:
            self._changes.popleft()
        if self._until_usual <= 0:
            self._until_usual = USUAL_EVERY
        self._until_prune = (self._until_prune or PRUNE_EVERY) - 1
        self._recovered()

    def _usual(self, targets: list[Target]) -> list[tuple[str, str, str | None]]:
        return [
            (
                wire.clean(target.name, wire.WRITTEN_CHARACTERS),
                wire.clean(operation),
                usual.write(told) if told is not None else None,
            )
            for target in targets[:MOST_TARGETS]
            for operation, told in target.told().items()
        ]

    def _file(self) -> File:
        if self.file is None:
            from brownout.fleet.file import File

            self.file = (self._open_file or File)(self.path)
        return self.file

    def _report(self, what: str, *, passing: bool) -> None:
        now = clock.now()
        if self._troubled_at is None:
            self._troubled_at = now
        if not self.trouble and (not passing or now - self._troubled_at >= PATIENCE_SECONDS):
            self.trouble = what
            _watch.log.warning(
                "the fleet file %s can't be written: %s. Calls go on, but other processes"
                " do not see this one's evidence; it is tried again, and not told again",
                self.path, what,
            )  # fmt: skip

    def _recovered(self) -> None:
        self._troubled_at = None
        if self.trouble:
            self.trouble = ""
            _watch.log.warning("the fleet file %s can be written again", self.path)


def _worst_first(targets: list[Target]) -> list[Target]:
    """The targets, those that are ill first, if there are too many to write them all."""
    if len(targets) <= MOST_TARGETS:
        return targets
    now = clock.now()
    return sorted(targets, key=lambda target: not at_least(target.state(now), State.DEGRADED))


def _wall(instant: float) -> float:
    return time.time() - (clock.now() - instant)


_lock = threading.Lock()
_current: list[Sharing] = []  # at most one
_refused: list[str] = []  # what BROWNOUT_FLEET named in vain, and was told of


def share(path: str | os.PathLike[str], zone: str | None = None) -> None:
    """As `brownout.share`."""
    if zone is not None and not is_zone(zone):
        raise ConfigurationError(f"share(zone={zone!r:.80}): {NO_ZONE}")
    name = os.fspath(path)
    if not isinstance(name, str) or not name or "\0" in name or "://" in name:
        raise ConfigurationError(
            f"share({path!r}): give the path of a file, such as /run/shop/fleet.db"
        )
    name = os.path.abspath(name)  # noqa: PTH100 - the process may change its directory later
    with _lock:
        if _current:
            if _current[0].path != name:
                shared = _current[0].path
                raise ConfigurationError(
                    f"share({path!r}): this process shares into {shared} already; one is enough"
                )
            if zone is not None and zone != _current[0].where:
                raise ConfigurationError(
                    f"share(zone={zone!r}): this process shares as one of zone {_current[0].where!r}"
                    " already; say it the first time"
                )
            return
        sharing = Sharing(name, zone=zone)
        _current.append(sharing)
    sharing.start()


def stop() -> None:
    """Write a last time, and share no more."""
    with _lock:
        ended = _current[:]
        _current.clear()
    for sharing in ended:
        sharing.stop()


def share_as_told(path: str) -> None:
    """Share into what BROWNOUT_FLEET names; says in the log, once, if that can't be."""
    if _current or path in _refused:
        return
    try:
        share(path)
    except ConfigurationError as error:
        _refused.append(path)
        _watch.log.warning("BROWNOUT_FLEET: %s; nothing is shared", error)


def _let_go() -> None:
    for sharing in _current:
        sharing.let_go()


def _after_fork(clean: bool) -> None:  # noqa: FBT001 - what fork.around calls
    """The child shares anew, as an observer of its own and on a thread of its own."""
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that is not here
    _lock = threading.Lock()
    for sharing in _current[:]:
        _current.clear()
        _watch.forget(sharing.hear)
        if clean:
            share(sharing.path, sharing.zone)
        else:
            _watch.log.warning(
                "forked while the fleet file %s was written: this child shares nothing",
                sharing.path,
            )


_watch.on_stop.append(stop)
atexit.register(stop)
fork.around(_let_go, _after_fork)
