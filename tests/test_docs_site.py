"""The documentation as a site: every page and heading that a page links to is there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build a copy, since a build leaves files behind."""
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_the_site_is_built_without_a_dead_link(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    built = build(tmp_path)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
    site = tmp_path / "site"
    assert {page.parent.name for page in site.glob("*/index.html")} >= pages - {"index"}
    home = (site / "index.html").read_text()
    assert "fonts.googleapis.com" not in home
    with (tmp_path / "docs" / "labels.md").open("a") as page:
        page.write("\n[gone](settings.md#no-such-heading)\n")
    dead = build(tmp_path)
    assert dead.returncode == 1
    assert "anchor does not exist" in dead.stderr
