"""What is in force, written down before it is done: one file for each fault in the state folder.

Whoever finds a record can undo its fault: the steps are data, and say what they act on by names that
can't have changed hands. A record is written whole or not at all, and trusted only from a folder that
nobody else can write to.

While a fault is made or undone its record is *claimed*: a lock on the file, which dies with its holder.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from brownout.errors import FaultRefused
from brownout.fault.identity import Identity, home

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

__all__ = [
    "PREFIX",
    "Reading",
    "Record",
    "Step",
    "claimed",
    "folder",
    "new_id",
    "now",
    "read",
    "release",
    "remove",
    "sweep",
    "write",
]

VERSION = 1
PREFIX = "brownout-"  # of every folder, cgroup and the like that a fault makes
MOST_RECORDS = 10_000
MOST_BYTES = 256 * 1024  # of one record
_NAME = re.compile(r"([0-9a-f]{12})\.json")
_DRAFT = re.compile(r"\.[0-9a-f]{12}\.(\d+)-(\d+)\.draft")


class Step:
    """One step of an undo: a verb of `brownout.fault.undo`, and what it acts on, as data."""

    __slots__ = ("details", "verb")

    def __init__(self, verb: str, /, **details: Any) -> None:
        self.verb = verb
        self.details: Mapping[str, Any] = details

    @property
    def after_death(self) -> bool:
        """Whether it clears up after a dead owner, and is nothing for a living one."""
        return self.verb == "socket"

    def __repr__(self) -> str:
        told = "".join(f", {name}={value!r}" for name, value in self.details.items())
        return f"Step({self.verb!r}{told})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Step):
            return NotImplemented
        return (self.verb, self.details) == (other.verb, other.details)

    def __hash__(self) -> int:
        return hash(repr(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A fault that is being made, is in force, or could not be undone.

    `owner` made it. `began` is a wall instant, for people; `end` one of the clock that `now` reads (inf:
    with its owner). `target` names the guarded target that suffers, if it is known; `listen` an address
    to call instead of the real one. `failed` says why it could not be undone; empty while it could.
    """

    id: str
    mechanism: str
    kind: str
    fault: str
    place: str
    owner: Identity
    began: float
    end: float
    home: str = field(default_factory=home)
    target: str = ""
    listen: str = ""
    steps: tuple[Step, ...] = ()
    failed: str = ""

    @property
    def inside(self) -> bool:
        """Whether it is done inside its owner: nobody else can undo it, and with its owner it ends.

        The one step that such a fault can have clears up what a dead owner has left.
        """
        return all(step.after_death for step in self.steps)

    @property
    def orphan(self) -> bool:
        """Whether its owner has died."""
        return self.home != home() or not self.owner.alive()

    def seconds_left(self) -> float:
        """How long it is still to be in force; below 0 if it should be gone."""
        return self.end - now()

    def but(self, **changes: Any) -> Record:
        """The same record with some fields changed."""
        return replace(self, **changes)

    def encoded(self) -> bytes:
        """As a file."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        plain["steps"] = [{"verb": step.verb, **step.details} for step in self.steps]
        plain["end"] = None if self.end == inf else self.end
        return json.dumps({"version": VERSION, **plain}, allow_nan=False).encode()


class Reading(NamedTuple):
    """All records of a folder, the oldest first, and what was skipped and why."""

    records: tuple[Record, ...]
    problems: tuple[str, ...]


def now() -> float:
    """Seconds since this machine started, sleep included: the same clock for all its processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def new_id() -> str:
    """An id that no other record has."""
    return os.urandom(6).hex()


def folder() -> str:
    """Where records are: BROWNOUT_FAULTS, or below XDG_RUNTIME_DIR, or below the temporary folder."""
    if named := os.environ.get("BROWNOUT_FAULTS"):
        return os.path.abspath(named)
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return f"{runtime}/brownout-faults"
    import tempfile  # and all that it imports: a watchdog is told its folder

    return f"{tempfile.gettempdir()}/brownout-faults-{os.getuid()}"


@contextmanager
def opened(path: str, *, make: bool = True) -> Generator[int]:
    """A descriptor of the state folder, for the length of the block.

    Raises FaultRefused if it is a link, no folder, another user's, or open to others; FileNotFoundError if
    it is not there and not to be made.
    """
    if make:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            raise FaultRefused(
                f"the state folder {path} can't be made ({error.strerror}); set BROWNOUT_FAULTS to a folder"
                " of your own"
            ) from error
    try:
        at = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FaultRefused(
            f"the state folder {path} is a link, no folder, or not ours ({error.strerror});"
            " set BROWNOUT_FAULTS to a folder of your own"
        ) from error
    try:
        found = os.fstat(at)
        if found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise FaultRefused(
                f"the state folder {path} belongs to user {found.st_uid} with mode"
                f" {stat.S_IMODE(found.st_mode):o}: others could write steps into it that we would take."
                f" It must be yours, with mode 700; or set BROWNOUT_FAULTS to a folder of your own"
            )
        yield at
    finally:
        os.close(at)


# --------------------------------------------------------------------------------------- reading


def read(path: str) -> Reading:
    """All records that the folder holds; what can't be understood is told and skipped."""
    records: list[Record] = []
    problems: list[str] = []
    try:
        with opened(path, make=False) as at:
            names = sorted(name for name in os.listdir(at) if _NAME.fullmatch(name))
            if len(names) > MOST_RECORDS:
                problems.append(f"{len(names) - MOST_RECORDS} records over the limit were skipped")
            for name in names[:MOST_RECORDS]:
                found = _one(at, name)
                if isinstance(found, Record):
                    records.append(found)
                elif found:
                    problems.append(f"{path}/{name} was skipped: {found}")
    except FileNotFoundError:
        return Reading((), ())
    return Reading(tuple(sorted(records, key=lambda each: (each.began, each.id))), tuple(problems))


def _one(at: int, name: str) -> Record | str:
    """A record; or why it is none, empty if it has just gone."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"it can't be read ({error.strerror})"
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            return "it is no file of ours"
        text = os.read(file, MOST_BYTES + 1)
    finally:
        os.close(file)
    return "it is too large" if len(text) > MOST_BYTES else decoded(text, name[:12])


def decoded(text: bytes, wanted_id: str) -> Record | str:
    """The record in a file of that id; or why it is none."""
    try:
        plain: Any = json.loads(text)
        version = plain.pop("version")
        if version != VERSION:
            return f"it has version {version!r} and this brownout knows {VERSION}"
        steps = tuple(Step(each.pop("verb"), **each) for each in plain.pop("steps"))
        end = plain.pop("end")
        pid, start = plain.pop("owner")
        owner = Identity(int(pid), int(start))
        record = Record(steps=steps, owner=owner, end=inf if end is None else float(end), **plain)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return f"it is no record ({type(error).__name__})"
    texts = [getattr(record, name) for name in Record.__slots__]
    texts = [text for name, text in zip(Record.__slots__, texts, strict=True) if name in _TEXTS]
    if not all(isinstance(text, str) for text in texts):
        return "it is no record (a text is none)"
    if record.id != wanted_id or not isinstance(record.began, float | int):
        return "it is no record (its id is not its name)"
    home_boot, _, space = record.home.partition(" ")
    here_boot, _, here_space = home().partition(" ")
    if home_boot == here_boot and space != here_space:
        return "it was made in another space of process ids (another container?)"
    return record


_TEXTS = {"id", "mechanism", "kind", "fault", "place", "home", "target", "listen", "failed"}


# --------------------------------------------------------------------------------------- writing


@contextmanager
def claimed(path: str, id_: str, *, seconds: float = 0.0) -> Generator[Record | None]:
    """The record, held for the length of the block so that nobody else makes or undoes its fault.

    None if there is no such record any more. Waits for another holder at most so long: TimeoutError.
    """
    end = time.monotonic() + seconds
    while (file := _lock(path, id_)) == _BUSY:
        if time.monotonic() >= end:
            raise TimeoutError(f"fault {id_} is being made or undone by another process")
        time.sleep(0.005)
    if file is None:
        yield None
        return
    try:
        with opened(path, make=False) as at:
            found = _one(at, f"{id_}.json")
        yield found if isinstance(found, Record) else None
    finally:
        release(file)


def release(claim: int) -> None:
    """Give up a claim. Said aloud, since a child of a fork may have the lock's file open too."""
    _CLAIMS.discard(claim)
    with suppress(OSError):
        fcntl.flock(claim, fcntl.LOCK_UN)
    os.close(claim)


_CLAIMS: set[int] = set()  # of this process; a child of a fork would hold them after its death


def _close_claims() -> None:
    while _CLAIMS:
        os.close(_CLAIMS.pop())


os.register_at_fork(after_in_child=_close_claims)


_BUSY = -1


def _lock(path: str, id_: str) -> int | None:
    """The record's file, locked; None if it is gone; _BUSY if another has it."""
    try:
        with opened(path, make=False) as at:
            name = f"{id_}.json"
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(name, flags, dir_fd=at)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                same = os.path.samestat(os.stat(name, dir_fd=at), os.fstat(file))
            except BlockingIOError:
                same = False
            except BaseException:
                os.close(file)
                raise
            if not same:  # held, or written anew in between
                os.close(file)
                return _BUSY
            _CLAIMS.add(file)
            return file
    except FileNotFoundError:
        return None


def write(path: str, record: Record) -> int:
    """Write a record, whole; it is claimed until what is returned is given to `release`.

    Raises FaultRefused if the folder can't be trusted, is full of records, or the disk is.
    """
    text = record.encoded()
    if len(text) > MOST_BYTES:
        raise FaultRefused(f"the record of {record.fault} at {record.place} has {len(text)} bytes")
    mine = Identity.mine()
    draft = f".{record.id}.{mine.pid}-{mine.start}.draft"
    with opened(path) as at:
        others = {name for name in os.listdir(at) if _NAME.fullmatch(name)} - {f"{record.id}.json"}
        if len(others) >= MOST_RECORDS:
            raise FaultRefused(f"{MOST_RECORDS} faults are in force already ({path})")
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=at)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with open(file, "wb", closefd=False) as out:
                out.write(text)
            os.rename(draft, f"{record.id}.json", src_dir_fd=at, dst_dir_fd=at)
        except BaseException as error:
            with suppress(OSError):
                os.unlink(draft, dir_fd=at)
            os.close(file)
            if isinstance(error, OSError):
                raise FaultRefused(f"a record can't be written to {path}: {error}") from error
            raise
    _CLAIMS.add(file)
    return file


def remove(path: str, id_: str) -> None:
    """Forget a fault that is gone. No error if it is forgotten already."""
    with suppress(FileNotFoundError), opened(path, make=False) as at:
        os.unlink(f"{id_}.json", dir_fd=at)


def sweep(path: str) -> None:
    """Remove what writers left that were killed while they wrote."""
    with suppress(FileNotFoundError), opened(path, make=False) as at:
        for name in os.listdir(at):
            draft = _DRAFT.fullmatch(name)
            if draft and not Identity(int(draft[1]), int(draft[2])).alive():
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=at)
