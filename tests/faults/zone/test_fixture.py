"""`faults.zones`, as users of the pytest plugin meet it."""

from __future__ import annotations

import pytest

import brownout.fault.zone.place  # noqa: F401  a run within this process leaves it here

pytest_plugins = ["pytester"]


@pytest.mark.usefixtures("_allowed")
def test_the_fixture_has_zones_and_ends_them(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\n")
    pytester.makepyfile("""
        from brownout.fault import Partition, record
        started = []

        def test_forgotten(faults):
            zones = faults.zones("a", "b")
            started.append(zones["a"].popen(["sleep", "60"]))
            zones.between("a", "b").make(Partition(), seconds=50)
            assert len(record.read(record.folder()).records) == 2

        def test_gone():
            assert started[0].returncode == -15
            assert record.read(record.folder()).records == ()
    """)
    pytester.runpytest_inprocess("-q").assert_outcomes(passed=2)
