"""The example runs, and shows what its README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parents[2] / "examples" / "payments"
KEY = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    command = [sys.executable, str(FOLDER / "service.py"), str(tmp_path / "payments.db"), "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as service:
        try:
            assert service.stderr is not None
            seen = []
            for line in service.stderr:
                seen.append(line)
                if found := re.search(r"running on (http://[\d.:]+)", line):
                    yield found[1]
                    break
            else:
                pytest.fail("".join(seen))
        finally:
            service.terminate()


def test_the_example_shows_what_its_readme_says(url: str, tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "client.py"), url, f"sqlite:///{tmp_path}/unknown.db"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    [_, shown] = re.findall(r"```\n(.*?)```", (FOLDER / "README.md").read_text("utf-8"), re.DOTALL)
    assert KEY.sub("KEY", done.stdout) == KEY.sub("KEY", shown)


@pytest.mark.parametrize("name", ["service.py", "client.py"])
def test_each_side_has_less_than_60_lines(name: str) -> None:
    assert len((FOLDER / name).read_text("utf-8").splitlines()) < 60
