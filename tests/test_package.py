"""The wheel that people install, and the files that describe the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import httpx
import pytest
import yaml
from support.processes import serving

from cdal.demo.process import NO_TLS
from cdal.version import VERSION

ROOT = Path(__file__).parents[1]
SOURCES = ("cdal", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built from a copy, since a build leaves files."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy)
    subprocess.run([sys.executable, "-c", BUILD], cwd=copy, check=True, capture_output=True)
    return copy / "out"


BUILD = "import setuptools.build_meta as b; b.build_wheel('out'); b.build_sdist('out')"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (made,) = built.glob("*.whl")
    return made


def sources() -> set[str]:
    files = (f for f in (ROOT / "cdal").rglob("*") if f.is_file() and f.suffix != ".pyc")
    return {file.relative_to(ROOT).as_posix() for file in files}


def test_the_wheel_holds_every_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        packed = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert packed == sources()


def test_a_wheel_can_be_built_from_the_sdist(built: Path) -> None:
    (made,) = built.glob("*.tar.gz")
    with tarfile.open(made) as opened:
        packed = {name.partition("/")[2] for name in opened.getnames()}
    assert packed >= {*sources(), "pyproject.toml", "README.md", "LICENSE"}


def test_an_index_would_take_the_wheel_and_the_sdist(built: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("PASSED") == 2


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    """A virtual environment into which pip has installed the wheel, which finds its dependencies in
    the environment of the tests, and nothing in the checkout.
    """
    folder = tmp_path / "installed"
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Not --system-site-packages, which would find the checkout through its editable installation:
    # the .pth files of a folder that a .pth file names are not read.
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    # It ignores what is installed, since pip must not touch the environment of the tests.
    install(folder, "--no-deps", "--ignore-installed", str(wheel))
    return folder


def install(folder: Path, *arguments: str) -> None:
    """Run the `pip install` of a virtual environment, without an index."""
    command = [folder / "bin" / "python", "-m", "pip", "install", "--no-index", *arguments]
    ended = subprocess.run(command, env=OUTSIDE, capture_output=True, text=True, cwd=folder)
    assert ended.returncode == 0, ended.stderr


OUTSIDE = {**os.environ, "PYTHONPATH": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

WHERE = "import cdal, importlib.metadata as m; print(cdal.__file__, m.version('label-studio-cdal'))"


@pytest.mark.slow
def test_what_pip_installs_serves(installed: Path, tmp_path: Path) -> None:
    """Whether an index has the dependencies is not shown: the tests' environment has them."""
    where = subprocess.run(
        [installed / "bin" / "python", "-c", WHERE],
        env=OUTSIDE,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    file, version = where.stdout.split()
    assert Path(file).is_relative_to(installed)
    assert version == VERSION
    # Its dependencies by name and version: without an index, pip fails where one is not there.
    install(installed, "label-studio-cdal[backend]")
    cdal = str(installed / "bin" / "cdal")
    with serving(tmp_path / "data", (cdal,), PYTHONPATH="") as (_, url):
        page = httpx.get(f"{url}/projects", headers={"Accept": "text/html"}, verify=NO_TLS)
        style = httpx.get(f"{url}/pages/pages.css", verify=NO_TLS)
    assert (page.status_code, style.status_code) == (200, 200)
    assert f"Version {VERSION}" in page.text


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    images = {service.get("image") for service in compose["services"].values()}
    assert citation["version"] == VERSION
    assert f"label-studio-cdal:{VERSION}" in images


COMPILE = """
import pathlib, sys
for name in sys.argv[1:]:
    for file in sorted(pathlib.Path(name).rglob("*.py")):
        compile(file.read_bytes(), str(file), "exec")
"""


def interpreter(version: str) -> str | None:
    """A Python of this version, of the system or of pyenv; None if this machine has none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    known = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for command in filter(None, known):
        # A shim of pyenv may stand for a version that is not chosen.
        if subprocess.run([command, "--version"], capture_output=True).returncode == 0:
            return str(command)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_newer_pythons_read_every_source(version: str) -> None:
    """Without a warning. What the package needs is installed for one version, so nothing is run."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"this machine has no Python {version}")
    command = [python, "-W", "error", "-c", COMPILE, "cdal", "examples", "measurements", "tests"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
