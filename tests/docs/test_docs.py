"""The documentation is true: its code runs, its reference is what the code says, its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import brownout
from brownout import State

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
WRITTEN = [page for page in PAGES if page.parent.name not in {"reference", "decisions"}]
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize(
    "page", [p for p in WRITTEN if CODE.search(p.read_text("utf-8"))], ids=name_of
)
def test_the_code_of_a_page_runs(page: Path) -> None:
    code = "\n".join(CODE.findall(page.read_text("utf-8")))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="signatures and help read a bit otherwise elsewhere"
)
def test_the_reference_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/generate.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_documented() -> None:
    text = (ROOT / "docs/reference/api.md").read_text("utf-8")
    missing = [name for name in brownout.__all__ if f"## `{name}`" not in text]
    assert not missing
    undocumented = [name for name in brownout.__all__ if not getattr(brownout, name).__doc__]
    assert not undocumented


def test_every_state_is_explained() -> None:
    text = (ROOT / "docs/reference/states.md").read_text("utf-8")
    assert all(f"| {state.name} |" in text for state in State)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    targets = LINK.findall(page.read_text("utf-8"))
    broken = [target for target in targets if not (page.parent / target).exists()]
    assert not broken


def claims() -> list[tuple[str, str]]:
    """Each file that is said to enforce something, and each name in it ("" for the whole)."""
    told: list[tuple[str, str]] = []
    for line in (ROOT / "docs/reference/correctness.md").read_text("utf-8").splitlines():
        path = ""
        for word in re.findall(r"`([^`]+)`", line.rpartition(" | ")[2]):
            if word.startswith("tests/"):
                path = word
                told.append((path, ""))
            elif re.fullmatch(r"test_\w+|[A-Z]\w+", word):
                told.append((path, word))
    return told


def exists(path: str, name: str) -> bool:
    if not (ROOT / path).is_file():
        return False
    defined = rf"^(async )?(def|class) {name}\("
    return not name or bool(re.search(defined, (ROOT / path).read_text("utf-8"), re.MULTILINE))


def test_what_is_said_to_enforce_a_claim_exists() -> None:
    assert len(claims()) > 100
    assert [claim for claim in claims() if not exists(*claim)] == []


def test_every_claim_names_what_enforces_it() -> None:
    text = (ROOT / "docs/reference/correctness.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "| test |" not in line]
    assert len(rows) > 30
    assert [row for row in rows if "`tests/" not in row] == []
