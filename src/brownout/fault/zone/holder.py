"""The maker's end of a router: starts that process, asks it, and ends it."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from brownout.errors import FaultRefused
from brownout.fault.identity import Identity
from brownout.fault.zone.router import MESSAGE_BYTES

__all__ = ["Holder"]

START_SECONDS = 10.0
ASK_SECONDS = 5.0
CLOSE_SECONDS = 1.5  # within which it has ended the processes of its zones too
_SOURCE = str(Path(__file__).resolve().parents[3])
_CODE = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    " from brownout.fault.zone.router import main; main(sys.argv[2:])"
)


class Holder:
    """One router. Raises FaultRefused if it can't be started, with its reason."""

    def __init__(self, id_: str, zones: int, mtu: int) -> None:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        maker = Identity.mine()
        told = [str(each) for each in (theirs.fileno(), *maker, id_, zones, mtu)]
        try:
            # A session of its own: Ctrl-C is for us, and we end it when we have tidied up.
            self._process = subprocess.Popen(
                [sys.executable, "-SEsP", "-c", _CODE, _SOURCE, *told],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except BaseException:
            mine.close()
            raise
        finally:
            theirs.close()
        self._control = mine
        self._lock = threading.Lock()
        try:
            self.identity = Identity.of(self._process.pid)
            self._control.settimeout(START_SECONDS)
            self.by, self.namespaces, self.in_user_namespace = self._answer()
            self._control.settimeout(ASK_SECONDS)
        except BaseException as error:
            self.close(kill=True)
            if isinstance(error, OSError):
                raise FaultRefused(
                    f"zones can't be made: their router did not come up ({error})"
                ) from error
            raise

    def __str__(self) -> str:
        return f"the zones' router (process {self.identity.pid})"

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def ask(self, verb: str, *rest: Any) -> Any:
        """What it answers. Raises FaultRefused if it has died, or says that it can't."""
        with self._lock:
            try:
                self._control.send(pickle.dumps((verb, *rest)))
                return self._answer()
            except OSError as error:
                self._control.close()  # a late answer would be taken for that to the next question
                raise FaultRefused(f"{self} has died or is stopped: {error}") from error

    def _answer(self) -> Any:
        said = self._control.recv(MESSAGE_BYTES)
        if not said:
            raise ConnectionResetError("it said nothing, and ended")
        well, answer = pickle.loads(said)  # noqa: S301  of the process that we started
        if not well:
            raise FaultRefused(str(answer))
        return answer

    def close(self, *, kill: bool = False) -> None:
        """Let it end, as it does when nobody speaks to it any more; kill it if it does not, or at once."""
        self._control.close()
        if not kill:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)
        if self._process.poll() is None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)
