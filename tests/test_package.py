"""The wheel that people install, and the files that describe the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from support.processes import environment

from cdal.version import VERSION

ROOT = Path(__file__).parents[1]
SOURCES = ("cdal", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since a build leaves files behind."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy)
    build = "import setuptools.build_meta as build; build.build_wheel('out')"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    (made,) = (copy / "out").glob("*.whl")
    return made


def test_the_wheel_holds_every_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        packed = {name for name in opened.namelist() if ".dist-info/" not in name}
    files = (f for f in (ROOT / "cdal").rglob("*") if f.is_file() and f.suffix != ".pyc")
    assert packed == {file.relative_to(ROOT).as_posix() for file in files}


ASK = f"""
import pathlib, cdal
from cdal.backend.commands import application

assert not pathlib.Path(cdal.__file__).is_relative_to({str(ROOT)!r})
browser = application().test_client()
page = browser.get("/projects", headers={{"Accept": "text/html"}})
style = browser.get("/pages/pages.css")
assert (page.status_code, style.status_code) == (200, 200)
print(page.get_data(as_text=True))
"""


@pytest.mark.slow
def test_the_wheel_serves_pages_without_the_sources(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(installed)
    ended = subprocess.run(
        [sys.executable, "-P", "-c", ASK],
        env=environment(tmp_path / "data", PYTHONPATH=str(installed)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert f"Version {VERSION}" in ended.stdout


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    images = {service.get("image") for service in compose["services"].values()}
    assert citation["version"] == VERSION
    assert f"label-studio-cdal:{VERSION}" in images
