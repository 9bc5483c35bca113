"""Who may import whom, read from every import statement, also those inside functions.

The parts of the package, the folders of the backend from the top down, and no circle anywhere.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each part may import, besides the standard library and itself.
ALLOWED = {
    "cdal.selectors": {"torch", "numpy", "safetensors"},
    "cdal.models": {
        "cdal.durable",
        "torch",
        "torchvision",
        "torchmetrics",
        "pycocotools",
        "safetensors",
        "numpy",
        "timm",
    },
    # Of cdal.models, what targets look like.
    "cdal.datasets": {
        "cdal.orientation",
        "cdal.models",
        "torch",
        "torchvision",
        "numpy",
        "PIL",
        "defusedxml",
        "pycocotools",
        # timm brings it.
        "yaml",
    },
    "cdal.benchmark": {
        "cdal.text",
        "cdal.mixture_kind",
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
    "cdal.export": {
        "cdal.models",
        "torch",
        "torchvision",
        "safetensors",
        "numpy",
        "onnxruntime",
    },
    "cdal.backend": {
        "cdal.allocator",
        "cdal.durable",
        "cdal.export",
        "cdal.mixture_kind",
        "cdal.orientation",
        "cdal.text",
        "cdal.version",
        "cdal.selectors",
        "cdal.models",
        "torch",
        "torchvision",
        "numpy",
        "safetensors",
        "PIL",
        "alembic",
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
        # An extra; only the engine that is chosen is imported.
        "ray",
        "sklearn",
        "sqlalchemy",
        "urllib3",
        "werkzeug",
    },
    # Arguments alone; what runs a command is imported when it is called.
    "cdal.cli": {
        "cdal.allocator",
        "cdal.version",
        "cdal.selectors",
        "cdal.models",
        "cdal.datasets",
        "cdal.benchmark",
        "cdal.backend",
        "cdal.demo",
        "torch",
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
MAY_IMPORT_THE_BACKEND = {"_wsgi.py"}

# The backend's folders and the files beside them, from the top down: a row imports itself and the
# rows below it.
BACKEND_LAYERS = (
    {"commands"},
    {"worker", "supervisor", "admin_cli", "prediction_files"},
    {"web"},
    {"actions"},
    {"reports"},
    {"loop"},
    {"services"},
    {"loaded_networks"},
    {"jobs"},
    {"label_studio"},
    {"store"},
    {"project_config"},
    {"annotations"},
    {"images"},
    {"settings"},
    {"extra_params"},
    {"config", "addresses", "connections"},
    {"logs", "text", "errors"},
)


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


def module_of(file: Path) -> str:
    names = list(file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def import_graph() -> dict[str, set[str]]:
    """Each module of ours with those of ours that it imports."""
    modules = {module_of(file): file for file in sources()}
    graph: dict[str, set[str]] = {}
    for module, file in modules.items():
        found: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found.update(name.name for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                # A name of a package is a module of it, or is defined in its __init__.py.
                names = {f"{node.module}.{name.name}" for name in node.names}
                found |= {name if name in modules else node.module for name in names}
        graph[module] = (found & set(modules)) - {module}
    return graph


def circles(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """What is left when those that import nothing, or nothing but what was taken, are taken."""
    left = {module: set(imported) for module, imported in graph.items()}
    while free := [module for module, imported in left.items() if not imported & set(left)]:
        for module in free:
            del left[module]
    return [[module, *sorted(imported & set(left))] for module, imported in left.items()]


def test_no_module_imports_itself_through_others() -> None:
    assert circles(import_graph()) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": ["b"], "d": ["a"]}) != []
    assert circles({"a": ["b", "c"], "b": ["c"], "c": []}) == []


def layer_of(module: str) -> int:
    """The row of a module of the backend, 0 at the top."""
    part = module.split(".")[2]
    return next(row for row, parts in enumerate(BACKEND_LAYERS) if part in parts)


def test_the_backend_imports_downwards_only() -> None:
    upwards = [
        f"{module} imports {imported}"
        for module, names in import_graph().items()
        for imported in names
        if module.startswith("cdal.backend.") and imported.startswith("cdal.backend.")
        if layer_of(imported) < layer_of(module)
    ]
    assert upwards == []


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
        ("cdal/backend/loop/x.py", "from cdal.demo import y", ["cdal.demo"]),
        ("cdal/backend/x.py", "from cdal.datasets import y", ["cdal.datasets"]),
        ("cdal/models/x.py", "import defusedxml.ElementTree", ["defusedxml"]),
        ("cdal/datasets/x.py", "from cdal.models.targets import IGNORED", []),
        ("cdal/backend/x.py", "from cdal.backend import y", []),
        ("cdal/__main__.py", "from cdal.backend import y", ["cdal.backend"]),
        ("cdal/cli/x.py", "from cdal.backend import y", []),
        ("cdal/cli/x.py", "import flask", ["flask"]),
        ("_wsgi.py", "from cdal.backend.app import create_app", []),
    ],
)
def test_a_violation_is_found(file: str, text: str, found: list[str]) -> None:
    assert violations(ROOT / file, text) == found


PROGRAM = """
import sys

sys.modules.update(dict.fromkeys({blocked!r}))
import {modules}
"""
SERVER_LIBRARIES = {
    "flask", "gunicorn", "httpx", "huey", "label_studio_sdk", "prometheus_client", "pydantic",
    "pydantic_settings", "rich", "sqlalchemy",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modules", "blocked"),
    [
        ("cdal.selectors", SERVER_LIBRARIES | {"torchvision", "torchmetrics", "sklearn"}),
        (
            "cdal.models, cdal.datasets, cdal.benchmark.command, cdal.cli",
            # Only a report needs jinja2 and sklearn, and it is imported when it is drawn.
            SERVER_LIBRARIES | {"defusedxml", "pycocotools", "jinja2", "sklearn"},
        ),
    ],
)
def test_they_import_on_a_machine_without_the_others(modules: str, blocked: set[str]) -> None:
    program = PROGRAM.format(modules=modules, blocked=blocked)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_blocking_works() -> None:
    program = PROGRAM.format(modules="flask", blocked={"flask"})
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "import of flask halted" in ended.stderr
