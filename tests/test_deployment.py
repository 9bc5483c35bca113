"""The files that docs/deployment.md offers for copying."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        missing = "systemd-analyze is missing: install Debian's package systemd"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    text = (DOCS / "deployment.md").read_text()
    found = re.search(r"<!-- systemd:begin -->\n```\n(.*?)```", text, re.DOTALL)
    assert found is not None
    # Neither the program nor its user need be on this machine.
    unit = found[1].replace("/opt/cdal/bin/cdal", "/bin/true").replace("User=cdal", "User=root")
    (tmp_path / "cdal.service").write_text(unit)
    ended = subprocess.run(
        [analyze, "verify", "--man=no", tmp_path / "cdal.service"], capture_output=True, text=True
    )
    said = [line for line in ended.stderr.splitlines() if "cdal.service" in line]
    assert (ended.returncode, said) == (0, [])


def test_systemd_would_notice(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is missing")
    unit = "[Service]\nExecStart=/bin/true\nProtectSystm=strict\n"
    (tmp_path / "cdal.service").write_text(unit)
    ended = subprocess.run(
        [analyze, "verify", "--man=no", tmp_path / "cdal.service"], capture_output=True, text=True
    )
    assert "ProtectSystm" in ended.stderr


def test_what_the_threat_table_names_is_there() -> None:
    tests = {path.name for path in (DOCS.parent / "tests").rglob("test_*.py")}
    named = set(re.findall(r"`(test_\w+\.py)`", (DOCS / "security.md").read_text()))
    assert len(named) > 10
    assert named <= tests
