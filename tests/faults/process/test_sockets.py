"""FillBacklog and AbortConnections: what a full queue and a reset look like to callers."""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import TYPE_CHECKING

import pytest

from brownout.errors import ConfigurationError, FaultRefused
from brownout.fault import (
    AbortConnections,
    ExhaustFiles,
    FillBacklog,
    Listener,
    Pause,
    Process,
    Schedule,
)
from brownout.fault.process import abort, place
from brownout.fault.process.diag import LISTEN, Diag
from tests.seen import within

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from brownout.fault.process.mechanism import Mechanism
    from brownout.fault.process.subject import Subject
    from tests.faults.process.conftest import Victim

# ---------------------------------------------------------------------------------- FillBacklog


def waiting(port: int) -> int:
    with Diag() as diag:
        return sum(one.waiting for one in diag.tcp(LISTEN) if one.local[1] == port)


def test_connecting_hangs_and_works_again(server: Victim) -> None:
    with server.connect() as first:
        assert first.ask("echo in") == "in"
    listener = Listener(f"127.0.0.1:{server.port}")
    # Without files it accepts nobody.
    with Process(server.pid).make(ExhaustFiles()), listener.make(FillBacklog()):
        assert waiting(server.port) == 17
        with pytest.raises(TimeoutError):
            server.connect(0.3)
        assert waiting(server.port) == 17
    assert within(lambda: waiting(server.port) == 0)
    assert server.ask("echo on") == "on"


def test_it_is_kept_full(victim: Callable[..., Victim]) -> None:
    """Who has been accepted is replaced."""
    slow = victim("slow", "0.05")
    with Listener(f"127.0.0.1:{slow.port}").make(FillBacklog()):
        before = len(os.listdir(f"/proc/{slow.pid}/fd"))
        assert within(lambda: len(os.listdir(f"/proc/{slow.pid}/fd")) >= before + 5)
        assert within(lambda: waiting(slow.port) == 5)
    assert within(lambda: waiting(slow.port) == 0)


def test_an_owner_that_is_stopped_too_keeps_the_dead(server: Victim) -> None:
    """Nobody else can take them out; it does once it runs."""
    with Process(server.pid).make(Pause()):
        with Listener(f"127.0.0.1:{server.port}").make(FillBacklog()):
            pass
        assert waiting(server.port) == 17
    assert server.ask("echo on") == "on"


@pytest.mark.alone
def test_who_accepts_at_once_is_not_filled(server: Victim) -> None:
    def refused() -> bool:
        try:
            with Listener(f"127.0.0.1:{server.port}").make(FillBacklog()):
                return False  # on a busy machine it may not have come to it at once
        except FaultRefused as error:
            return "accepts as fast as we connect" in str(error)

    assert within(refused)
    assert server.ask("echo on") == "on"


def test_a_unix_socket_is_filled(tmp_path: Path) -> None:
    path = str(tmp_path / "listener")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind(path)
        listener.listen(3)
        caller.setblocking(False)
        with Listener(f"unix:{path}").make(FillBacklog()), pytest.raises(BlockingIOError):
            caller.connect(path)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(
        FaultRefused, match=f"nobody on this machine .* listens on 127.0.0.1:{port}"
    ):
        Listener(f"127.0.0.1:{port}").make(FillBacklog())
    with pytest.raises(FaultRefused, match="can't be filled"):
        Listener("unix:/nowhere/at/all").make(FillBacklog())
    with pytest.raises(ConfigurationError, match="the one fault of a listener"):
        Listener(f"127.0.0.1:{port}").make(Pause())


# ----------------------------------------------------------------------------- AbortConnections


@pytest.fixture(params=[False, True], ids=["SOCK_DESTROY", "disconnect"])
def weaker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        with Diag() as diag:
            if why := diag.destroys():
                pytest.skip(f"connections can't be destroyed here: {why}")

    def made(subject: Subject, chosen: abort.Chooser) -> Mechanism:
        return abort.abort(subject, chosen, weaker=request.param)

    monkeypatch.setattr(place, "abort", made)
    return bool(request.param)


def is_reset(caller: socket.socket) -> bool:
    caller.settimeout(0.2)
    try:
        caller.recv(100)
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return False


def test_both_ends_are_told_at_once(
    weaker: bool, server: Victim, victim: Callable[..., Victim]
) -> None:
    beside = victim("serve")
    with server.connect() as caller, beside.connect() as other:
        assert caller.ask("echo in") == "in"
        with Process(server.process).make(AbortConnections()) as made:
            assert [decision.what for decision in made.log].count("reset") == 1
            assert is_reset(caller.socket)
            wanted = "ECONNRESET" if weaker else "ECONNABORTED"
            # Who was waiting in read(2) sees an end of the stream, or the error.
            assert within(lambda: server.ask("last read") in (wanted, "EPIPE", "ENOTCONN"))
        assert other.ask("echo on") == "on"  # another process' are not touched
    assert server.ask("echo on") == "on"


def test_chosen_by_number_and_by_peer(weaker: bool, server: Victim) -> None:
    callers = [server.connect() for _ in range(4)]
    assert [caller.ask("echo in") for caller in callers] == ["in"] * 4
    place = Process(server.pid)
    with place.make(AbortConnections(client="10.0.0.0/8")):
        assert not any(is_reset(caller.socket) for caller in callers)
    with place.make(AbortConnections(client="127.0.0.0/8", nth=2)):
        assert sum(is_reset(caller.socket) for caller in callers) == 2
    with place.make(AbortConnections()):
        assert sum(is_reset(caller.socket) for caller in callers) == 2  # the others now


def test_again_and_again(weaker: bool, server: Victim) -> None:
    flap = Schedule(on=0.05, off=0.05)
    with Process(server.pid).make(AbortConnections(schedule=flap)):
        for _ in range(2):
            caller = server.connect()
            caller.send("echo x")
            assert within(partial(is_reset, caller.socket))


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace takes root")
def test_in_another_network_namespace(weaker: bool, victim: Callable[..., Victim]) -> None:
    prefix = ("unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    inner = victim("own", prefix=prefix)
    with Process(inner.process).make(AbortConnections()):
        told = {inner.said.readline().strip() for _ in range(2)}
    assert told <= {"ECONNRESET", "EPIPE" if weaker else "ECONNABORTED"}
    assert len(told) >= 1


def test_a_kernel_that_destroys_no_sockets(server: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says EOPNOTSUPP: the weaker way is taken, and said."""

    def refused(_: Diag, __: int, ___: bytes) -> bool:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(Diag, "_destroy", refused)
    with server.connect() as caller:
        assert caller.ask("echo in") == "in"
        with Process(server.pid).make(AbortConnections()) as made:
            assert made.mechanism.endswith("was built without CONFIG_INET_DIAG_DESTROY")
            assert is_reset(caller.socket)
