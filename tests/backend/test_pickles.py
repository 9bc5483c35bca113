"""Nothing that the backend reads can run code: no pickle is loaded, wherever it is.

A pickle that would leave a mark is put in the place of everything that the backend reads from disk,
from its queue and from the network. What reads it says that it cannot, and there is no mark.
"""

from __future__ import annotations

import ast
import io
import pickle
import sqlite3
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import torch
from huey import Huey
from sqlalchemy import select
from support.loopback import Loopback, reply
from support.offline import add_project, add_tasks, make_config, make_services
from support.servers import RedisServer
from torchvision.models import get_model_weights

from cdal.backend.addresses import AllowedHosts
from cdal.backend.images.cache import DiskCache
from cdal.backend.images.store import ImageError, ImageSource, ImageStore
from cdal.backend.jobs.messages import open_messages
from cdal.backend.loop.pool_scores import Scores
from cdal.backend.store.tables import Project
from cdal.models import ModelError, WeightSources, load_network, make_network
from cdal.models.checkpoint import MANIFEST, WEIGHTS
from cdal.models.pretrained import read_weights_file
from cdal.selectors import PoolError, make_selector
from cdal.selectors.pool_file import load_pool

ROOT = Path(__file__).parents[2]

LONG_AGO = datetime(2026, 1, 1)


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return make_mark, (str(self.mark),)


def make_mark(path: str) -> None:
    Path(path).write_text("run")


def plain(bomb: Bomb) -> bytes:
    return pickle.dumps({"weight": bomb})


def of_torch(bomb: Bomb) -> bytes:
    return saved({"weight": torch.ones(2), "other": bomb}, zipped=True)


def of_old_torch(bomb: Bomb) -> bytes:
    return saved({"weight": torch.ones(2), "other": bomb}, zipped=False)


def of_numpy(bomb: Bomb) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([bomb], dtype=object), allow_pickle=True)
    return file.getvalue()


def of_many_arrays(bomb: Bomb) -> bytes:
    file = io.BytesIO()
    np.savez(file, mixtures=np.array([bomb], dtype=object), present=np.array([bomb], dtype=object))
    return file.getvalue()


def in_a_zip(bomb: Bomb) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(bomb))
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def saved(value: object, *, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


KINDS = (plain, of_torch, of_old_torch, of_numpy, of_many_arrays, in_a_zip)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """The mark that a bomb leaves; checked after each test."""
    path = tmp_path / "mark"
    yield path
    assert not path.exists(), "a pickle was loaded"


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def bomb(request: pytest.FixtureRequest, mark: Path) -> bytes:
    made: bytes = request.param(Bomb(mark))
    return made


def test_a_bomb_goes_off_where_pickles_are_loaded(tmp_path: Path) -> None:
    """Otherwise these tests could not fail."""
    bomb = Bomb(tmp_path / "mark")
    loads: tuple[Callable[[], object], ...] = (
        lambda: pickle.loads(plain(bomb)),
        lambda: torch.load(io.BytesIO(of_torch(bomb)), weights_only=False),
        lambda: torch.load(io.BytesIO(of_old_torch(bomb)), weights_only=False),
        lambda: np.load(io.BytesIO(of_numpy(bomb)), allow_pickle=True),
        lambda: np.load(io.BytesIO(of_many_arrays(bomb)), allow_pickle=True)["present"],
        lambda: torch.load(io.BytesIO(in_a_zip(bomb)), weights_only=False),
    )
    assert len(loads) == len(KINDS)
    for load in loads:
        with suppress(RuntimeError):  # what torch misses of a whole file, it misses afterwards
            load()
        assert bomb.mark.exists()
        bomb.mark.unlink()


@pytest.mark.parametrize("file", [WEIGHTS, MANIFEST])
def test_as_a_model_version(tmp_path: Path, bomb: bytes, file: str) -> None:
    folder = tmp_path / "1"
    make_network("classification", "mobilenet_v3_small", ["cat", "dog"], 32).save(folder)
    (folder / file).write_bytes(bomb)
    with pytest.raises(ModelError):
        load_network(folder, torch.device("cpu"))


def test_as_scores(tmp_path: Path, bomb: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(bomb)
    with pytest.raises(Exception, match=r"header|Header|damaged|invalid"):
        Scores.load(tmp_path)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".safetensors", ""])
def test_as_weights_of_ones_own(tmp_path: Path, bomb: bytes, suffix: str) -> None:
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(bomb)
    with pytest.raises(ModelError, match="does not hold readable weights"):
        read_weights_file(file)


def test_as_pretrained_weights(tmp_path: Path, bomb: bytes) -> None:
    url = get_model_weights("resnet18").DEFAULT.url
    (tmp_path / url.rpartition("/")[2]).write_bytes(bomb)
    with pytest.raises(ModelError, match="does not hold readable weights"):
        make_network("classification", "resnet18", ["a", "b"], 32, sources=WeightSources(tmp_path))


def test_as_a_policy(tmp_path: Path, bomb: bytes) -> None:
    """CDAL-RL's policy; a project's settings cannot even name one."""
    file = tmp_path / "policy.safetensors"
    file.write_bytes(bomb)
    pool = load_pool(small_pool(tmp_path))
    with pytest.raises(Exception, match=r"policy"):
        make_selector("cdal-rl", {"weights": str(file), "epochs": 1}).select(pool, 1, seed=0)


def test_as_a_pool(tmp_path: Path, bomb: bytes) -> None:
    file = tmp_path / "bomb.npz"
    file.write_bytes(bomb)
    with pytest.raises(PoolError):
        load_pool(file)


def small_pool(folder: Path) -> Path:
    file = folder / "pool.npz"
    mixtures = np.full((4, 1, 2), 0.5, dtype="float32")
    np.savez(
        file,
        mixtures=mixtures,
        present=np.ones((4, 1), dtype=bool),
        features=np.ones((4, 3), dtype="float32"),
        probabilities=mixtures[:, 0],
    )
    return file


def test_as_a_cached_image(tmp_path: Path, bomb: bytes) -> None:
    cache = DiskCache(tmp_path / "images", 10_000_000)
    cache.put("ab", bomb)
    assert cache.get("ab") == bomb  # it holds any bytes; see below for what becomes of an image's
    (tmp_path / "images" / "ab" / "ab").write_bytes(zlib.crc32(bomb[1:]).to_bytes(4) + bomb)
    assert cache.get("ab") is None


def test_in_the_database(tmp_path: Path, bomb: bytes) -> None:
    """A pickle in place of JSON."""
    services = make_services(tmp_path)
    project = add_project(services, extra_params={"budget": 3})
    add_tasks(services, project, [1])
    services.store.close()
    with sqlite3.connect(tmp_path / "cdal.sqlite") as database:
        database.execute("UPDATE projects SET extra_params = ?", (bomb,))
    database.close()
    with pytest.raises((ValueError, TypeError)), services.store.reading() as session:
        session.scalars(select(Project)).all()
    services.store.close()


def test_in_the_file_of_messages(tmp_path: Path, bomb: bytes) -> None:
    messages = open_messages(make_config(tmp_path))
    messages.storage.enqueue(bomb)
    messages.storage.put_data("result", bomb)
    messages.storage.add_to_schedule(bomb, LONG_AGO)
    check(messages)
    messages.storage.close()


def test_in_redis(tmp_path: Path, bomb: bytes, redis_server: RedisServer) -> None:
    messages = open_messages(make_config(tmp_path, redis_url=redis_server.url))
    messages.flush()
    with redis.Redis.from_url(redis_server.url) as client:
        client.lpush(messages.storage.queue_key, bomb)
        client.hset(messages.storage.result_key, "result", bomb)
        client.zadd(messages.storage.schedule_key, {bomb: 1.0})
    check(messages)
    messages.flush()


def check(messages: Huey) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 — what the JSON module says of it
        messages.dequeue()
    with pytest.raises(ValueError):  # noqa: PT011
        messages.get("result")
    assert messages.read_schedule() == []


def test_as_an_image(tmp_path: Path, bomb: bytes) -> None:
    """A bomb is refused whatever it claims to be, and is not kept."""
    with Loopback() as server:
        server.routes["/data/upload/1/a.png"] = reply(bomb, Content_Type="image/png")
        store = ImageStore(tmp_path / "images", 10_000_000, AllowedHosts())
        with pytest.raises(ImageError, match="not an image"):
            store.read(ImageSource(server.url, dict), 1, "/data/upload/1/a.png")
        store.close()
    assert not [path for path in (tmp_path / "images").rglob("*") if path.is_file()]


FORBIDDEN = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal",
}  # fmt: skip


def faults(source: str) -> list[str]:
    """The calls in a program that could load a pickle or run text as code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.partition(".")[0] in FORBIDDEN]
        elif isinstance(node, ast.ImportFrom):  # with yaml, a loader would have a name of its own
            top = (node.module or "").split(".")[0]
            found += [top] if top in {*FORBIDDEN, "yaml"} else []
        elif isinstance(node, ast.Call):
            found += _faults_of(node)
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            found += [name] if name in ("PickleType", "PickleSerializer") else []
    return found


def _faults_of(call: ast.Call) -> list[str]:
    name = ast.unparse(call.func)
    given = {k.arg: ast.unparse(k.value) for k in call.keywords}
    if name in ("eval", "exec", "compile", "__import__"):
        return [name]
    if name in ("torch.load", "torch.hub.load_state_dict_from_url", "weights.get_state_dict"):
        return [] if given.get("weights_only") == "True" else [name]
    if name in ("torch.hub.load", "torch.jit.load", "torch.package.PackageImporter"):
        return [name]
    if name.startswith("yaml."):  # its other loaders can call functions that a file names
        return [] if name == "yaml.safe_load" else [name]
    if name in ("np.load", "numpy.load"):
        return [] if given.get("allow_pickle") == "False" else [name]
    if name in ("SqliteHuey", "RedisHuey"):
        return [] if "serializer" in given or None in given else [name]
    return []


@pytest.mark.parametrize("file", sorted(ROOT.glob("cdal/**/*.py")), ids=lambda f: f.stem)
def test_no_source_loads_pickles(file: Path) -> None:
    assert faults(file.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load(file)",
        "torch.load(file, weights_only=False)",
        "weights.get_state_dict(progress=False)",
        "np.load(file)",
        "np.load(file, allow_pickle=True)",
        "SqliteHuey('cdal', filename=file)",
        "yaml.load(text, Loader)",
        "from yaml import unsafe_load",
        "column(PickleType)",
        "eval(text)",
    ],
)
def test_a_fault_would_be_found(source: str) -> None:
    assert faults(source)
