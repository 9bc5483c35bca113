"""The Ray engine on a cluster of this machine's, one of whose nodes is killed.

Ray's processes talk to each other on loopback addresses only, with a token, and end with the tests.
`make endurance` runs these tests; tests/backend/loop/test_engines.py and tests/models/test_peers.py
have what needs no cluster.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from threading import Event, Lock
from typing import Any

import pytest
import torch
from PIL import Image
from support.loopback import Answer, Loopback, reply
from support.offline import make_config
from support.processes import PATIENCE, wait_until
from torch import Tensor

from cdal.backend.addresses import AllowedHosts
from cdal.backend.errors import ImageError
from cdal.backend.images.inputs import InputReader
from cdal.backend.images.store import ImageSource, ImageStore
from cdal.backend.loop.engines.local import LocalEngine
from cdal.backend.loop.inference import Scored
from cdal.mixture_kind import MixtureKind
from cdal.models import Recipe, Stopped, TaskNetwork, WeightSources, make_network
from cdal.models.feature_store import FeatureStore

pytestmark = [
    pytest.mark.endurance,
    # Ray sets settings of its own that it calls deprecated.
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*"),
    pytest.mark.filterwarnings(r"ignore::FutureWarning:ray\..*"),
]

MB = 2**20
HEAD, OTHER = "127.0.0.2", "127.0.0.3"
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    # By default Ray's processes give way to all others, and would wait for the other tests.
    "RAY_worker_niceness": "0",
    # What torch's processes talk through.
    "GLOO_SOCKET_IFNAME": "lo",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """The head of a cluster, which is a node itself; a test adds another."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        patch.setenv(
            "PYTHONPATH",
            os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]),
        )
        folder = tempfile.mkdtemp(prefix="ray-")  # a short path: it holds sockets
        patch.setenv("RAY_TMPDIR", folder)
        import ray
        from ray.cluster_utils import Cluster

        made = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 2,
                "node_ip_address": HEAD,
                "object_store_memory": 80 * MB,
                "include_dashboard": False,
            },
        )
        try:
            yield made
        finally:
            ray.shutdown()
            made.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def engine(cluster: Any, tmp_path: Path) -> Any:
    from cdal.backend.loop.engines.ray import RayEngine

    config = make_config(tmp_path, engine="ray", ray_address=cluster.address, device="cpu")
    return RayEngine(config, WeightSources(), "", "the-token", None, lambda: None)


def png(number: int) -> bytes:
    file = BytesIO()
    pixels = torch.randint(0, 256, (3600,), generator=torch.Generator().manual_seed(number))
    Image.frombytes("RGB", (40, 30), bytes(pixels.tolist())).save(file, "PNG")
    return file.getvalue()


class Kill:
    """Kills a node when the first of some images is requested, before any of them is answered."""

    def __init__(self, kill: Callable[[], None]) -> None:
        self._kill = kill
        self._lock = Lock()
        self.done = False

    def before(self, answer: Answer) -> Answer:
        def write(handler: Any) -> None:
            with self._lock:
                if not self.done:
                    self._kill()
                    self.done = True
            answer(handler)

        return write


def untrained() -> TaskNetwork:
    return make_network(
        "classification",
        "mobilenet_v3_small",
        ("cat", "dog"),
        32,
        device=torch.device("cpu"),
        pretrained=False,
    )


def by_task(found: list[Scored]) -> dict[int, tuple[Any, ...]]:
    """What is kept of each task's image, every bit of it."""
    return {
        int(task): (
            scores.probabilities[row].tolist(),
            scores.features[row].tolist(),
            scores.mixtures[row].tolist(),
            findings[row],
        )
        for scores, findings in found
        for row, task in enumerate(scores.task_ids)
    }


def test_a_node_that_dies_loses_nothing_and_changes_no_bit(
    cluster: Any, engine: Any, tmp_path: Path
) -> None:
    from ray.util import placement_group, remove_placement_group

    from cdal.backend.loop.engines.cluster import connect

    model = untrained()
    kind = MixtureKind("image")
    items: list[tuple[int, object]] = [(n, f"/data/upload/{n}.png") for n in range(1, 401)]
    items += [(401, "http://10.0.0.1/private.png"), (402, 5)]
    problems: dict[int, ImageError] = {}
    other = cluster.add_node(num_cpus=2, node_ip_address=OTHER, object_store_memory=80 * MB)
    connect(cluster.address)
    # As long as it is held, both stages run on the other node.
    held = placement_group([{"CPU": 2, f"node:{HEAD}": 0.01}])
    assert held.wait(60)

    def kill() -> None:
        remove_placement_group(held)
        cluster.remove_node(other, allow_graceful=False)

    killed = Kill(kill)
    with Loopback() as server:
        for number in range(1, 401):
            answer = reply(png(number), Content_Type="image/png")
            late = number > 200
            server.routes[f"/data/upload/{number}.png"] = killed.before(answer) if late else answer
        engine = replace(engine, url=server.url)
        reader = InputReader(
            ImageStore(tmp_path / "images", 0, AllowedHosts()),
            FeatureStore(tmp_path / "features", 0),
            ImageSource(server.url, dict),
        )
        found = list(engine.scored(reader, model, items, kind, problems.__setitem__))
        tokens = {headers["Authorization"] for path, headers in server.requests}
        expected = list(LocalEngine().scored(reader, model, items, kind, lambda *_: None))
    assert killed.done
    assert by_task(found) == by_task(expected)
    assert sum(len(scores) for scores, _ in found) == 400, "an image was scored twice"
    assert problems.keys() == {401, 402}
    assert "10.0.0.1" in problems[401].reason
    assert tokens - {None} == {"Token the-token"}


def wait_until_free() -> None:
    """Wait until nothing runs on the cluster."""
    import ray

    def is_free() -> bool:
        free: float = ray.available_resources().get("CPU", 0.0)
        return free == ray.cluster_resources()["CPU"]

    wait_until("cluster on which nothing runs", is_free)


def test_a_cancelled_scoring_leaves_the_cluster(engine: Any, tmp_path: Path) -> None:
    cancelled = Event()

    def held(answer: Answer) -> Answer:
        def write(handler: Any) -> None:
            cancelled.wait(PATIENCE)
            answer(handler)

        return write

    def check_stop() -> None:
        if cancelled.is_set():
            raise Stopped

    items: list[tuple[int, object]] = [(n, f"/data/upload/{n}.png") for n in range(1, 401)]
    with Loopback() as server:
        for number in range(1, 401):
            answer = reply(png(number), Content_Type="image/png")
            server.routes[f"/data/upload/{number}.png"] = held(answer) if number > 200 else answer
        reader = InputReader(
            ImageStore(tmp_path / "images", 0, AllowedHosts()),
            FeatureStore(tmp_path / "features", 0),
            ImageSource(server.url, dict),
        )
        engine = replace(engine, url=server.url, check_stop=check_stop)
        scored = engine.scored(reader, untrained(), items, MixtureKind("image"), lambda *_: None)
        assert len(next(scored)[0])
        cancelled.set()
        with pytest.raises(Stopped):
            list(scored)
        wait_until_free()


def two_classes() -> list[tuple[Tensor, Tensor]]:
    """Dark and bright images, which are easy to tell apart."""
    generator = torch.Generator().manual_seed(0)
    images = [
        (torch.randint(0, 100, (3, 32, 32), generator=generator) + 100 * (n % 2)) for n in range(32)
    ]
    return [(image.to(torch.uint8), torch.tensor(n % 2)) for n, image in enumerate(images)]


def test_a_cancelled_training_leaves_the_cluster(engine: Any) -> None:
    data = two_classes()
    told: list[object] = []
    with pytest.raises(Stopped):
        engine.fit(
            untrained(),
            data,
            [],
            Recipe(epochs=10**6, batch_size=32),
            told.append,
            lambda: bool(told),
        )
    wait_until_free()


def test_two_processes_train_one_network(engine: Any) -> None:
    data = two_classes()
    model = untrained()
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    told = []
    report = engine.fit(
        model, data[:24], data[24:], Recipe(epochs=2, batch_size=24), told.append, lambda: False
    )
    assert report.images == 24
    assert report.held_out_images == 8
    assert len(report.losses) == 2
    assert told[-1].epoch == 2
    changed = [n for n, v in model.module.state_dict().items() if not torch.equal(v, before[n])]
    assert len(changed) > 100
