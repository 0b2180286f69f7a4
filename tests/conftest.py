"""Every test begins with no target, no listener and the real clock.

BROWNOUT_NO_SKIP=1: a run in which anything was skipped fails, and says what.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from brownout import _guard, _watch
from brownout._drive import wheel
from brownout._drive.clock import clock as the_clock
from brownout.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator


_SKIPPED: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _SKIPPED.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _SKIPPED.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _SKIPPED and os.environ.get("BROWNOUT_NO_SKIP") == "1":
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _SKIPPED and os.environ.get("BROWNOUT_NO_SKIP") == "1":
        terminalreporter.section("BROWNOUT_NO_SKIP=1: skipped, so failed", red=True)
        for name in _SKIPPED:
            terminalreporter.line(name)


@pytest.fixture(autouse=True, scope="session")
def _faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Faults go on record in a folder of this run, which must be empty at its end."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("state", numbered=True) / "faults"
        patch.setenv("BROWNOUT_FAULTS", str(folder))
        yield str(folder)
        assert [*folder.glob("*.json")] == []


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    _watch.stop()
    _guard._registry.clear()
    _guard._crowd._parts.clear()
    _guard._crowd._own.clear()
    the_clock.reset()
    wheel._late.clear()  # a fake clock begins anew, and so would find stalls of another test


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with FakeClock() as fake:
        yield fake
