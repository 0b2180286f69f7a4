"""Every test begins with no target, no listener and the real clock.

BROWNOUT_NO_SKIP=1: a run in which anything was skipped fails, and says what.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from brownout import _guard, _watch
from brownout._drive.clock import clock as the_clock
from brownout.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator


# In `make test` some run side by side (.ci/tests). A lane is run by one of them, in order: what makes
# faults of the machine does so one after the other, and those of the wire do, and both wait most of the time.
LANES = {
    "machine": ("disk", "process", "undo", "zone"),
    "wire": ("api", "http", "pool", "replica", "tcp"),
}
_LANE = {f"tests/faults/{folder}": lane for lane, folders in LANES.items() for folder in folders}
_SKIPPED: list[str] = []

# A machine that is busy with something else makes what is drawn slow, and no test wrong.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return _LANE.get(file.rpartition("/")[0], file)

    return Lanes(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """One that ran side by side has ended: what it left out as it collected its tests."""
    _SKIPPED.extend(getattr(node, "workeroutput", {}).get("skipped", ()))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _SKIPPED.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _SKIPPED.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["skipped"] = [
            name for name in _SKIPPED if "::" not in name
        ]  # the others are reported
        return
    if _SKIPPED and os.environ.get("BROWNOUT_NO_SKIP") == "1":
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _SKIPPED and os.environ.get("BROWNOUT_NO_SKIP") == "1":
        terminalreporter.section("BROWNOUT_NO_SKIP=1: skipped, so failed", red=True)
        for name in dict.fromkeys(_SKIPPED):  # each that runs side by side collects them all
            terminalreporter.line(name)


@pytest.fixture(autouse=True, scope="session")
def _faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Faults go on record in a folder of this run, which must be empty at its end."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("state", numbered=True) / "faults"
        patch.setenv("BROWNOUT_FAULTS", str(folder))
        yield str(folder)
        assert [*folder.glob("*.json")] == []


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """What this process does with signals its forked children would do too: they could not be ended."""
    before = [signal.getsignal(number) for number in _SIGNALS]
    yield
    after = [signal.getsignal(number) for number in _SIGNALS]
    for number, handler in zip(_SIGNALS, before, strict=True):
        signal.signal(number, handler)
    assert after == before


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    _watch.stop()
    _guard._registry.clear()
    _guard._crowd._parts.clear()
    _guard._crowd._own.clear()
    the_clock.reset()


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with FakeClock() as fake:
        yield fake
