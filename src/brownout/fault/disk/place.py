"""The place where a fault of a disk is made: a folder, and all below it.

with Disk("/var/lib/shop") as disk:
    with disk.make(Hang(seconds=5, share=0.3, match=r"orders/")):
        ...

While it is shadowed, everyone who opens a file there goes through us; files that were open before do not.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from brownout._core.fault import Fault, Log
from brownout.errors import ConfigurationError, FaultRefused
from brownout.fault import record as records
from brownout.fault.disk import control
from brownout.fault.disk.calls import Calls
from brownout.fault.disk.rules import MAKES
from brownout.fault.disk.serving import Serving, unfit
from brownout.fault.made import Made
from brownout.fault.record import PREFIX, Step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from brownout.fault.disk.kind import Stored

__all__ = ["Disk", "Shadowed"]

LONGEST_HERE_SECONDS = 3600.0


class Shadowed(Fault):
    """Nothing fails yet: a folder is read and written through us."""

    kind: ClassVar[str] = "shadowed"


class Disk:
    """A folder whose files can hang, fail, slow down, be full or be old: an existing one, or a new one.

    It is shadowed for the length of its block, and `seconds` at the most: a file system of ours is mounted
    over it, served by a process of its own. Only files whose path below the folder matches `only` are in
    reach of faults; all others are then passed through by the kernel itself, where it can do that. `target`
    is the guarded target that suffers, for `status`; `seed` decides whom a share hits.

    Where nothing can be mounted it is *weaker*: `weaker` says why, and only this process' own file calls
    suffer. `mechanism="fuse"` refuses that, "calls" asks for it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        only: str | None = None,
        target: str = "",
        seed: int = 0,
        seconds: float = LONGEST_HERE_SECONDS,
        mechanism: Literal["best", "fuse", "calls"] = "best",
    ) -> None:
        self._own = path is None
        name = f"{PREFIX}disk-{records.new_id()}"
        self.path = Path(tempfile.gettempdir(), name) if path is None else _folder(path)
        self._only = _pattern(only)
        self._target, self._seed, self._seconds = target, seed, seconds
        self.weaker = _weaker(mechanism)
        self._mechanism = "calls (weaker)" if self.weaker else "fuse"
        self._serving: Serving | Calls | None = None
        self._shadow: Made | None = None
        self._made: dict[str, Made] = {}

    def __repr__(self) -> str:
        how = f"weaker: {self.weaker}" if self.weaker else "FUSE"
        return f"<Disk {self.path}, {how}, {'shadowed' if self._serving else 'not shadowed'}>"

    @property
    def made(self) -> Mapping[str, Made]:
        """The faults in force, by name, in the order in which they were made."""
        return {name: made for name, made in self._made.items() if made.active}

    @property
    def serving(self) -> Serving | None:
        """Who serves it, while it is shadowed by a mount."""
        return self._serving if isinstance(self._serving, Serving) else None

    @property
    def shadow(self) -> Made | None:
        """The shadow itself, as it is on record."""
        return self._shadow

    # ------------------------------------------------------------------------------- shadowing

    def start(self) -> Self:
        """Shadow the folder. Raises FaultRefused if it can't be."""
        if self._serving is not None:
            raise FaultRefused(f"{self.path} is shadowed already")
        kind = Calls if self.weaker else Serving
        serving = kind(self.path, only=self._only, own=self._own)
        shadow = Made(
            place=str(self.path),
            mechanism=self._mechanism,
            fault=Shadowed(),
            seconds=self._seconds,
            target=self._target,
            undo_steps=serving.steps,
            apply=lambda: serving.start(shadow.add),
            undo=serving.stop,
            gone=serving.gone,
        )
        self._shadow = shadow.make()
        self._serving = serving
        return self

    def stop(self) -> None:
        """Undo its faults and take the shadow away, whatever is open in it. Raises UndoFailed."""
        shadow, self._shadow, self._serving = self._shadow, None, None
        try:
            for made in list(self._made.values()):
                made.undo()
        finally:
            self._made.clear()
            if shadow is not None:
                shadow.undo()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # ----------------------------------------------------------------------------------- making

    def make(self, fault: Fault, *, seconds: float = 60.0, name: str | None = None) -> Made:
        """Make a fault, in force until it is undone or `seconds` have passed; what hangs is then done.

        Raises ConfigurationError for what no disk makes, FaultRefused if the folder is not shadowed.
        """
        if not isinstance(fault, MAKES):
            known = ", ".join(kind.__name__ for kind in MAKES)
            raise ConfigurationError(f"{fault}: a disk makes {known}")
        if wrong := [each for each in ("client", "stream") if _told(fault, each)]:
            raise ConfigurationError(f"{fault}: {', '.join(wrong)}: a disk has none")
        if self._serving is None:
            raise FaultRefused(
                f"{self.path} is not shadowed, so nothing there can fail: use `with Disk(...) as disk:`"
            )
        self._made = dict(self.made)
        chosen = name or self._free_name(fault.kind)
        made = self._new(self._serving, fault, seconds, chosen).make()
        self._made[chosen] = made
        return made

    def _new(self, serving: Serving | Calls, fault: Stored, seconds: float, name: str) -> Made:
        log, steps = Log(), list[Step]()
        if isinstance(serving, Serving):
            log = control.Told(serving.control, name)
            steps = [Step("lift", control=serving.control, name=name)]

        def undo() -> None:
            serving.lift(name)
            len(log)  # what it has of its server's, it has

        return Made(
            place=str(self.path),
            mechanism=self._mechanism,
            fault=fault,
            seconds=seconds,
            name=name,
            target=self._target,
            log=log,
            undo_steps=steps,
            apply=lambda: serving.make(name, fault, self._seed, log),
            undo=undo,
            gone=lambda: not serving.made(name),
        )

    def _free_name(self, kind: str) -> str:
        number = 1
        name = kind
        while name in self._made:
            number += 1
            name = f"{kind}_{number}"
        return name


def _told(fault: Fault, name: str) -> bool:
    default: object = type(fault).__dataclass_fields__[name].default
    given: object = getattr(fault, name)
    return given != default


def _pattern(only: str | None) -> str | None:
    try:
        re.compile((only or "").encode())
    except re.error as error:
        raise ConfigurationError(f"only={only!r} is no regular expression ({error})") from None
    return only


def _weaker(mechanism: str) -> str:
    if mechanism not in ("best", "fuse", "calls"):
        raise ConfigurationError(f'mechanism={mechanism!r} is "best", "fuse" or "calls"')
    if mechanism == "calls":
        return "it was asked for"
    problem = unfit()
    if problem and mechanism == "fuse":
        raise FaultRefused(f"no file system can be mounted here: {problem}")
    return problem


def _folder(path: str | os.PathLike[str]) -> Path:
    """The folder, as nobody else calls it. Raises FaultRefused for one that we or the machine stand on."""
    found = Path(os.path.realpath(path))
    if not found.is_dir():
        raise ConfigurationError(f"{found} is no folder; a disk is one, with all below it")
    here = Path(__file__).resolve()
    for what, needed in (
        ("brownout", here),
        ("Python", Path(sys.prefix)),
        ("Python", Path(sys.base_prefix)),
        ("the state folder", Path(records.folder())),
        ("the temporary folder", Path(tempfile.gettempdir())),
        ("/proc", Path("/proc")),
        ("/dev", Path("/dev")),
        ("/sys", Path("/sys")),
    ):
        there = needed.resolve()
        if there.is_relative_to(found) or (what[0] == "/" and found.is_relative_to(there)):
            raise FaultRefused(
                f"{found} can't be shadowed: {what} is there ({there}), and would hang too; take a folder of"
                " the service's own"
            )
    return found
