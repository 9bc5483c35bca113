"""Who may import whom: read from every import statement, also those inside functions."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("selectors", "models", "datasets", "backend", "benchmark", "demo")

# What each part may import, besides the standard library and itself.
ALLOWED = {
    "cdal.selectors": {"torch", "numpy", "safetensors"},
    "cdal.models": {"torch", "torchvision", "torchmetrics", "safetensors", "numpy"},
    # Of cdal.models, what targets look like.
    "cdal.datasets": {"cdal.models", "torch", "torchvision", "numpy", "PIL", "defusedxml"},
    "cdal.benchmark": {
        "cdal.selectors",
        "cdal.models",
        "cdal.datasets",
        "torch",
        "torchvision",
        "torchmetrics",
        "numpy",
        "safetensors",
        "sklearn",
        "scipy",
        "matplotlib",
        # torch brings it.
        "jinja2",
    },
    "cdal.backend": {
        "cdal.selectors",
        "cdal.models",
        "torch",
        "torchvision",
        "numpy",
        "safetensors",
        "PIL",
        "certifi",
        "cv2",
        "flask",
        "gunicorn",
        "httpcore",
        "httpx",
        "huey",
        "label_studio_sdk",
        "prometheus_client",
        "spectree",
        "pydantic",
        "pydantic_settings",
        "sklearn",
        "sqlalchemy",
        "urllib3",
        "werkzeug",
    },
    # It starts the backend as a process, as a user does.
    "cdal.demo": {
        "cdal.models",
        "cdal.datasets",
        "torch",
        "torchvision",
        "numpy",
        "PIL",
        "httpx",
        "label_studio_sdk",
        "rich",
    },
}
MAY_IMPORT_THE_BACKEND = {"cdal/cli.py", "cdal/__main__.py", "_wsgi.py"}


def sources() -> list[Path]:
    return sorted([*(ROOT / "cdal").rglob("*.py"), ROOT / "_wsgi.py"])


def package_of(file: Path) -> str:
    """The part that a file belongs to, such as cdal.backend; cdal for those beside the parts."""
    folder = file.relative_to(ROOT).parts
    return f"cdal.{folder[1]}" if len(folder) > 2 else "cdal"


def imported(file: Path, text: str) -> Iterator[str]:
    """The absolute name of every module that a file imports."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            yield node.module
            # `from cdal import backend` imports a module, too.
            if node.module == "cdal":
                yield from (f"cdal.{name.name}" for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = file.relative_to(ROOT).with_suffix("").parts[: -node.level]
            if node.module is None:
                yield from (".".join([*package, name.name]) for name in node.names)
            else:
                yield ".".join([*package, node.module])


def top(module: str) -> str:
    """What the rules speak of: a part of ours, or somebody else's package."""
    names = module.split(".")
    return ".".join(names[:2]) if names[0] == "cdal" else names[0]


def violations(file: Path, text: str) -> list[str]:
    package = package_of(file)
    found = (
        {top(name) for name in imported(file, text)}
        - set(sys.stdlib_module_names)
        - {package, "cdal"}
    )
    if package == "cdal":
        inside = str(file.relative_to(ROOT)) in MAY_IMPORT_THE_BACKEND
        return sorted(name for name in found if name == "cdal.backend" and not inside)
    return sorted(found - ALLOWED[package])


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_imports_only_what_its_part_may(file: Path) -> None:
    assert violations(file, file.read_text()) == []


def test_every_part_has_its_rule() -> None:
    assert {package_of(file) for file in sources()} <= {"cdal", *ALLOWED}


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("cdal/selectors/x.py", "import torchvision", ["torchvision"]),
        ("cdal/selectors/x.py", "def f():\n    from cdal.models import y", ["cdal.models"]),
        ("cdal/selectors/x.py", "from ..backend import y", ["cdal.backend"]),
        ("cdal/selectors/x.py", "from .. import backend", ["cdal.backend"]),
        ("cdal/selectors/x.py", "import json, torch.nn, numpy as np", []),
        ("cdal/models/x.py", "from cdal.selectors.pool import Pool", ["cdal.selectors"]),
        ("cdal/models/x.py", "import flask", ["flask"]),
        ("cdal/demo/x.py", "from cdal.backend.scores import Scores", ["cdal.backend"]),
        ("cdal/demo/x.py", "from cdal import backend", ["cdal.backend"]),
        ("cdal/backend/work/x.py", "from cdal.demo import y", ["cdal.demo"]),
        ("cdal/backend/x.py", "from cdal.datasets import y", ["cdal.datasets"]),
        ("cdal/models/x.py", "import defusedxml.ElementTree", ["defusedxml"]),
        ("cdal/datasets/x.py", "from cdal.models.targets import IGNORED", []),
        ("cdal/backend/x.py", "from cdal.backend import y", []),
        ("cdal/select_command.py", "from cdal.backend import y", ["cdal.backend"]),
        ("cdal/cli.py", "from cdal.backend import y", []),
        ("_wsgi.py", "from cdal.backend.app import create_app", []),
    ],
)
def test_a_violation_is_found(file: str, text: str, found: list[str]) -> None:
    assert violations(ROOT / file, text) == found


PROGRAM = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
import {module}
"""
SERVER_LIBRARIES = {
    "flask", "gunicorn", "httpx", "huey", "label_studio_sdk", "prometheus_client", "pydantic",
    "pydantic_settings", "rich", "sqlalchemy",
}  # fmt: skip


@pytest.mark.parametrize(
    ("module", "blocked"),
    [
        ("cdal.selectors", SERVER_LIBRARIES | {"torchvision", "torchmetrics", "sklearn"}),
        ("cdal.models", SERVER_LIBRARIES | {"defusedxml", "pycocotools"}),
        ("cdal.datasets", SERVER_LIBRARIES | {"defusedxml"}),
        # Only a report needs more, and it is imported when it is drawn.
        ("cdal.benchmark.commands", SERVER_LIBRARIES | {"defusedxml", "jinja2"}),
        ("cdal.cli", SERVER_LIBRARIES),
    ],
)
def test_it_imports_on_a_machine_without_the_others(module: str, blocked: set[str]) -> None:
    program = PROGRAM.format(module=module, blocked=blocked)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_blocking_works() -> None:
    program = PROGRAM.format(module="flask", blocked={"flask"})
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "flask is blocked" in ended.stderr
