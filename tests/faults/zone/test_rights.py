"""Users who may make no network namespace: in a user namespace of their own, or told why not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
    import os, subprocess, sys
    from brownout.errors import FaultRefused
    from brownout.fault import Partition, Zones
    try:
        with Zones("a", "b") as zones:
            listen = "import socket; s = socket.create_server(('', 9)); print(flush=True); open(0).read()"
            ask = f"import socket; socket.create_connection(({zones['b'].address!r}, 9), 5)"
            python, pipe = [sys.executable, "-S", "-c"], subprocess.PIPE
            server = zones["b"].popen([*python, listen], stdin=pipe, stdout=pipe)
            server.stdout.readline()
            quiet = {"stderr": subprocess.DEVNULL}
            codes = [zones["a"].popen([*python, ask], **quiet).wait()]
            with zones.between("a", "b").make(Partition(how="refuse")):
                codes.append(zones["a"].popen([*python, ask], **quiet).wait())
            print(zones.mechanism, *codes)
            server.communicate()
    except FaultRefused as refused:
        print(refused)
"""


def said(tmp_path: object, *prefix: str, program: str = PROGRAM) -> str:
    if not shutil.which("setpriv"):
        pytest.skip("setpriv (util-linux) is not installed")
    told = subprocess.run(
        ["setpriv", *prefix, sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "BROWNOUT_FAULTS": f"{tmp_path}/faults"},
        check=False,
    )
    assert told.stderr == ""
    return told.stdout.strip()


@pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to become less")
@pytest.mark.usefixtures("_allowed")
def test_without_the_capability_it_is_a_user_namespace(tmp_path: object) -> None:
    caps = "--bounding-set=-sys_admin,-net_admin"
    assert said(tmp_path, caps) == "network namespaces, in a user namespace 0 1"


@pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to become less")
@pytest.mark.usefixtures("_allowed")
def test_a_device_that_can_not_be_opened_is_told(tmp_path: object) -> None:
    hidden = """
        import errno, os
        from brownout.errors import FaultRefused
        from brownout.fault.zone import ground
        true_open = os.open
        def open_(path, *rest):
            if path == "/dev/net/tun":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return true_open(path, *rest)
        os.open = open_
        ground.dig()
        try:
            with ground.new_zone(1, "0123456789ab", 1500):
                pass
        except FaultRefused as refused:
            print(refused)
    """
    told = said(tmp_path, "--bounding-set=-sys_admin", program=hidden)
    assert "/dev/net/tun can't be opened (Permission denied)" in told
    assert "--device /dev/net/tun" in told
