from __future__ import annotations

import os
from pathlib import Path

import pytest

# Two processes run the tests, each with its own servers; more threads would only wait for each
# other. It is set here because torch reads it when imported, also in the servers' processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Fixtures that start servers or a browser: a test that uses one is slow.
SERVERS = {
    "label_studio",
    "backend",
    "start_backend",
    "held_backend",
    "chromium",
    "postgresql",
    "redis_server",
    "servers",
}

DATA = Path(__file__).parents[1] / "../shared/data"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        if hasattr(item, "callspec"):  # a parameter may name a server, such as that of database_url
            used |= {value for value in item.callspec.params.values() if isinstance(value, str)}
        if used & SERVERS or item.get_closest_marker("label_studio"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def cifar10() -> Path:
    return _file("cifar10.zip")


@pytest.fixture(scope="session")
def camvid() -> Path:
    return _file("camvid.zip")


@pytest.fixture(scope="session")
def bccd() -> Path:
    return _file("bccd.zip")


def _file(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        if os.environ.get("CI"):
            pytest.fail(f"{path} is missing")
        pytest.skip(f"{path} is missing")
    return path
