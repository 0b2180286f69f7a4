import pytest

from brownout.fleet import sharing


@pytest.fixture(autouse=True)
def _no_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the developer's shell shares into, the tests do not."""
    for name in ("BROWNOUT_FLEET", "BROWNOUT_SERVICE", "BROWNOUT_ZONE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sharing, "_refused", [])
