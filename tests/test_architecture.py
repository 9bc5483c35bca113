"""The documentation names files that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = (ROOT, ROOT / "cdal" / "backend", *(ROOT / "cdal" / "backend").iterdir())


def test_every_file_and_folder_that_it_names_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", text))
    assert len(named) > 30
    missing = {name for name in named if not any((place / name).exists() for place in PLACES)}
    assert missing == set()


def test_every_test_that_the_documentation_names_exists() -> None:
    known = {file.name for file in (ROOT / "tests").rglob("test_*.py")}
    named = {
        name
        for page in (ROOT / "docs").glob("*.md")
        for name in re.findall(r"\btest_\w+\.py\b", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 50
    assert named <= known
