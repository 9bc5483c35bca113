from __future__ import annotations

import os
from pathlib import Path

import pytest

# Two processes run the tests, each with servers of its own; more threads would only wait for each
# other. Set here, since torch reads it when it is imported, in the servers' processes too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

DATA = Path(__file__).parents[1] / "../shared/data"


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
