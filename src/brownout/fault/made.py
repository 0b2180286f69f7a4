"""A fault that is in force: written down before it was made, undone at its end, and seen to be gone.

    with place.make(Latency(seconds=0.2)) as made:     # or `async with`
        ...

The order, which leaves no gap for a SIGKILL: the record is written, the watchdog is seen to run, the fault
is made; later it is undone, seen to be gone, and only then is the record removed.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from brownout._core.fault import Log
from brownout.errors import ConfigurationError, FaultRefused, UndoFailed
from brownout.fault import record as records
from brownout.fault import undo, watchdog
from brownout.fault.identity import Identity
from brownout.fault.record import Record, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from brownout._core.fault import Fault

__all__ = ["LONGEST_SECONDS", "Made", "Step", "held_for_others", "in_force"]

LONGEST_SECONDS = 7 * 86_400.0
LOOK_SECONDS = 1.0  # how often a maker looks after its watchdog


class Made:
    """A fault at a place, from `make` to `undo`; a context manager, sync and async.

    A place gives what is done: `apply` makes it; `undo` undoes it and `gone` looks whether it is gone,
    both from any thread and as often as is asked. The `undo_steps` are taken and looked at besides: they
    are what another process can do too. Without steps the fault is inside this process, and ends with it.
    It is made once. `standing` is what no fault is, but must end as surely: the servers that faults are
    made at.
    """

    def __init__(
        self,
        *,
        place: str,
        mechanism: str,
        fault: Fault,
        apply: Callable[[], object],
        seconds: float = 60.0,
        name: str | None = None,
        target: str = "",
        listen: str = "",
        log: Log | None = None,
        undo_steps: Sequence[Step] = (),
        undo: Callable[[], object] | None = None,
        gone: Callable[[], bool] | None = None,
        standing: bool = False,
    ) -> None:
        self.fault = fault
        self.place = place
        self.log = Log() if log is None else log
        self.id = records.new_id()
        self.name = name or fault.kind
        self.steps = tuple(undo_steps)
        self.mechanism = mechanism
        self.listen = listen
        self.standing = standing
        self._about = {"mechanism": mechanism, "target": target or _target, "listen": listen}
        self._seconds = seconds
        self._apply, self._undo, self._gone = apply, undo, gone
        self.folder = records.folder()
        self._begun = False
        self._record: Record | None = None
        self._claim: int | None = None
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return (
            f"<Made {self.fault} at {self.place}, {'in force' if self.active else 'not in force'}>"
        )

    @property
    def active(self) -> bool:
        """Whether it was made, and is not known to be gone."""
        return self._record is not None

    @property
    def seconds_left(self) -> float:
        """How long it is still in force; 0 if it is not."""
        made = self._record
        return 0.0 if made is None else max(0.0, made.seconds_left())

    # ------------------------------------------------------------------------------------- make

    def make(self) -> Self:
        """Make it. Raises FaultRefused if it can't be put on record, or no watchdog runs.

        If making it fails half-way, what was done is undone, and the exception goes on.
        """
        if self._begun:
            raise FaultRefused(f"{self.fault} at {self.place} was made already; make it anew")
        made = self._new_record()
        self._claim = records.write(self.folder, made)  # claimed: none may undo what is half made
        self._begun, self._record = True, made
        _at("recorded")
        try:
            watchdog.ensure(self.folder, wait=not made.inside)
            _at("watched")
            self._apply()
            _at("made")
            self._unclaim()
            _KEEPER.keep(self)
        except BaseException as error:
            self._unclaim()
            try:
                self.undo()
            except UndoFailed as failed:
                error.add_note(str(failed))
            raise
        return self

    def _new_record(self) -> Record:
        made = Record(
            id=self.id,
            kind=self.fault.kind,
            fault=str(self.fault),
            place=self.place,
            owner=Identity.mine(),
            began=time.time(),
            end=records.now() + self._seconds,
            steps=(*_ending_us, *self.steps),
            **self._about,
        )
        self._check_span(self.fault, self._seconds)
        return made

    def add(self, *steps: Step) -> None:
        """Put further steps on record, while it is made: what became known only then, before it is used."""
        assert self._record is not None
        assert self._claim is not None, "steps are added while the fault is made"
        self.steps = (*self.steps, *steps)
        made = self._record.but(steps=(*_ending_us, *self.steps))
        claim = records.write(self.folder, made)
        self._unclaim()
        self._record, self._claim = made, claim

    def change(self, fault: Fault, *, seconds: float | None = None) -> None:
        """Say on record that another fault is in force in its place; with `seconds`, for so long from now.

        What makes it has it changed: this is its text and its end alone. Nothing, if it is gone. Raises
        ConfigurationError for a wrong span, FaultRefused if it can't be written; all is as before then.
        """
        if seconds is not None:
            self._check_span(fault, seconds)
        with self._lock:
            if self._record is None:
                return
            with records.claimed(self.folder, self.id, seconds=2 * undo.UNDO_SECONDS) as found:
                if found is None:
                    return
                end = found.end if seconds is None else records.now() + seconds
                changed = found.but(kind=fault.kind, fault=str(fault), end=end)
                records.release(records.write(self.folder, changed))
            self.fault, self._record = fault, changed
        _KEEPER.keep(self)  # it may be due sooner

    def _check_span(self, fault: Fault, seconds: float) -> None:
        if not 0 < seconds <= LONGEST_SECONDS:
            raise ConfigurationError(
                f"{fault} at {self.place}: seconds={seconds!r} is how long it is in force, above 0"
                f" and at most {LONGEST_SECONDS:.0f} (a week); every fault has an end"
            )

    def _unclaim(self) -> None:
        if self._claim is not None:
            records.release(self._claim)
            self._claim = None

    # ------------------------------------------------------------------------------------- undo

    def undo(self) -> None:
        """Undo it and see that it is gone; nothing, if it is.

        Raises UndoFailed if it is still seen after 3 s. It stays on record then, and the watchdog, or
        another call, tries again.
        """
        with self._lock:
            made = self._record
            if made is None or made.owner.pid != os.getpid():  # a child of a fork made nothing
                return
            try:
                problem = self._settle()
            except TimeoutError as error:
                problem = str(error)
            if problem:
                raise UndoFailed(
                    f"{self.fault} at {self.place} is not undone: {problem}. It is on record as {self.id};"
                    f" try `brownout fault clear {self.id}`",
                    id=self.id,
                    place=self.place,
                )
            self._record = None
        _KEEPER.drop(self)

    def _settle(self) -> str:
        with records.claimed(self.folder, self.id, seconds=2 * undo.UNDO_SECONDS) as found:
            if found is None and self._another():
                self.steps = ()  # others have undone ours, and theirs would look like it
            problem = undo.until_gone(self._take, self._seen_gone)
            if not problem:
                records.remove(self.folder, self.id)
            elif found is not None:
                records.release(records.write(self.folder, found.but(failed=problem)))
            return problem

    def _another(self) -> bool:
        return any(each.place == self.place for each in records.read(self.folder).records)

    def _take(self, hard: bool) -> None:  # noqa: FBT001  as the verbs are told
        if self._undo is not None:
            self._undo()
        undo.take(self._own(), hard=hard)

    def _seen_gone(self) -> bool:
        return (self._gone is None or self._gone()) and undo.gone(self._own())

    def _own(self) -> list[Step]:
        return [step for step in self.steps if not step.after_death]

    def leave(self) -> None:
        """This process ends: undo what would outlive it, and leave alone what ends with it anyway."""
        made = self._record
        if made is None or made.owner.pid != os.getpid():
            return
        if not made.inside:
            self.undo()
        elif not made.steps:
            records.remove(self.folder, self.id)

    # ----------------------------------------------------------------------------------- manager

    def __enter__(self) -> Self:
        return self if self._begun else self.make()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.undo()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import asyncio

        undone = asyncio.ensure_future(asyncio.to_thread(self.undo))
        try:
            await asyncio.shield(undone)
        except asyncio.CancelledError:
            await asyncio.wait({undone})  # it goes on in its thread: the block ends when it has
            raise


# ------------------------------------------------------------------- this process and its faults

_ending_us: tuple[Step, ...] = ()
_target = ""


def held_for_others(*, target: str = "") -> None:
    """Say that this process is there only to hold faults: whoever clears one of them may end it.

    `target` names the guarded target that suffers from them, if it is known.
    """
    global _ending_us, _target  # noqa: PLW0603
    mine = Identity.mine()
    _ending_us = (Step("terminate", pid=mine.pid, start=mine.start),)
    _target = target


def in_force() -> list[Made]:
    """All faults that this process has made and not undone."""
    return [made for made in _KEEPER.all() if not made.standing]


class _Keeper:
    """All faults in force that this process has made: undoes each at its end, and all at exit.

    One thread for all, while there are any. It also sees to it that a watchdog runs.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._made: dict[str, Made] = {}
        self._late: dict[str, float] = {}  # not before: an undo has failed
        self._thread: threading.Thread | None = None
        atexit.register(self._leave)
        os.register_at_fork(after_in_child=self._forget)

    def keep(self, made: Made) -> None:
        with self._changed:
            self._made[made.id] = made
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="brownout-faults", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def all(self) -> list[Made]:
        with self._changed:
            return list(self._made.values())

    def drop(self, made: Made) -> None:
        with self._changed:
            self._made.pop(made.id, None)
            self._late.pop(made.id, None)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._made:
                    self._thread = None
                    return
                ends = {
                    id_: max(made.seconds_left, self._late.get(id_, 0.0) - time.monotonic())
                    for id_, made in self._made.items()
                }
                due = [self._made[id_] for id_, left in ends.items() if left <= 0]
                if not due:
                    self._changed.wait(min(LOOK_SECONDS, *ends.values()))
            for made in due:
                self._end(made)
            self._look()

    def _end(self, made: Made) -> None:
        try:
            made.undo()
        except Exception:  # it is on record; who leaves its block is told
            with self._changed:
                self._late[made.id] = time.monotonic() + 10 * LOOK_SECONDS

    def _look(self) -> None:
        with self._changed:
            wanted = {made.folder for made in self._made.values()}
        for folder in wanted:
            with suppress(Exception):
                watchdog.ensure(folder, wait=False)

    def _leave(self) -> None:
        for made in list(self._made.values()):
            with suppress(UndoFailed, FaultRefused):
                made.leave()

    def _forget(self) -> None:
        self.__dict__.update(_changed=threading.Condition(), _made={}, _late={}, _thread=None)


_KEEPER = _Keeper()


def _at(point: str) -> None:
    """A place where tests kill us, to see what is left: BROWNOUT_FAULTS_KILL_AT=recorded|watched|made."""
    if os.environ.get("BROWNOUT_FAULTS_KILL_AT") == point:
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
