from __future__ import annotations

import gc
import os
import random
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Importing torch, Label Studio's SDK and the tests makes millions of objects, all of which stay;
# looking through them again and again for garbage takes a quarter of the time.
gc.disable()

# Several processes run the tests, each with its own servers; more threads would only wait for each
# other. It is set here because torch reads it when imported, also in the servers' processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nor does every process that tests start compile the whole code again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Tests reach nothing outside this machine, nor do the servers that they start.
os.environ["CDAL_DOWNLOADS"] = "false"

# How long an example takes to make or to check decides nothing, and neither does chance: the
# examples are the same in every run.
settings.register_profile(
    "cdal", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("cdal")

# Fixtures that start servers or a browser, or train for seconds: a test that uses one is slow.
SLOW_FIXTURES = {
    "label_studio",
    "backend",
    "start_backend",
    "new_backend",
    "held_backend",
    "chromium",
    "postgresql",
    "redis_server",
    "servers",
    "learnt",
    "trained",
}

# A test for each network is slow for these.
LARGE_NETWORKS = ("vgg16", "resnet50", "resnet101")

DATA = Path(__file__).parents[1] / "../shared/data"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        large = False
        if hasattr(item, "callspec"):  # a parameter may name a server, such as that of database_url
            used |= {value for value in item.callspec.params.values() if isinstance(value, str)}
            large = any(name in item.callspec.id for name in LARGE_NETWORKS)
        if large or used & SLOW_FIXTURES or item.get_closest_marker("label_studio"):
            item.add_marker(pytest.mark.slow)
    # Processes take whole files, in order: the long ones first, so that all end at the same time.
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What a test draws without a generator of its own depends on no test before it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # with Python's own, garbage takes a tenth of the tests' time
    gc.enable()


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
