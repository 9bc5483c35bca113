"""Scoring by the engines and by a bare loop: processor time per image, and images per second.

    python measurements/engines.py --images ../shared/data/camvid.zip

A bare loop only reads, decodes, resizes and predicts the files of a folder. The engines get the
same images from a web server on this machine: the local one in one process and in two at the same
time, which share the pool, and Ray on a cluster of one and of two nodes, each with two cores. Only
what comes after the first result counts, since starting processes takes as long for any pool; a
small pool flatters Ray, whose nodes have fetched some images ahead by then.
Processor time says more than images per second where other programs run; it is not told for Ray,
whose processes come and go. Every process computes on one thread, with a worker's settings of the
allocator, without which half of the time may be the system's, or not, as chance has it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from scoring import copies
from shared import report, say

from cdal.allocator import keep_freed_memory
from cdal.backend.addresses import AllowedHosts
from cdal.backend.config import ServerConfig
from cdal.backend.images.decode import decode
from cdal.backend.images.inputs import InputReader
from cdal.backend.images.store import ImageSource, ImageStore
from cdal.backend.loop.engines.local import LocalEngine
from cdal.datasets import ImageSet, open_images
from cdal.mixture_kind import MixtureKind
from cdal.models import TaskNetwork, WeightSources, make_network
from cdal.models.feature_store import FeatureStore

if TYPE_CHECKING:
    from cdal.backend.loop.engines.ray import RayEngine

KIND = MixtureKind("class")
Items = list[tuple[int, object]]


def from_scratch(images: ImageSet, options: argparse.Namespace, seed: int = 0) -> TaskNetwork:
    """A network with random weights on the CPU, as ``network`` and ``image_size`` say."""
    return make_network(
        images.task,
        options.network,
        images.classes,
        options.image_size,
        device=torch.device("cpu"),
        pretrained=False,
        seed=seed,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="labelled images, any layout")
    parser.add_argument("--pool", type=int, default=4096, help="images, repeated if necessary")
    parser.add_argument("--network", default="lraspp_mobilenet_v3_large")
    parser.add_argument("--image-size", type=int, default=192)
    options = parser.parse_args()
    images = open_images(options.images)
    network = from_scratch(images, options)
    keep_freed_memory()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = copies(images.examples[:200], folder / "data" / "upload")
        files = [files[row % len(files)] for row in range(options.pool)]
        items: Items = [(n, f"/data/upload/{file.name}") for n, file in enumerate(files)]
        with served(folder) as url:
            bare = measured(bare_loop(network, files))
            tell("bare loop", bare, bare)
            tell("local, one process", measured(local(network, items, url, folder)), bare)
            tell("local, two processes", both(network, items, url, folder), bare)
            for nodes in (1, 2):
                tell(f"Ray, nodes: {nodes}", on_ray(network, items, url, folder, nodes), bare)


Measured = tuple[float, float]
"""Seconds of processor and of time per image."""


def tell(name: str, found: Measured, bare: Measured) -> None:
    processor = (
        f"{1000 * found[0]:.1f} ms of processor per image, {found[0] / bare[0]:.2f} times a bare "
        "loop; "
    )
    report(
        name,
        f"{processor if found[0] else ''}{1 / found[1]:.0f} images per second, "
        f"{bare[1] / found[1]:.2f} times a bare loop's",
    )


def measured(
    batches: Iterator[int], processor: Callable[[], float] = time.process_time
) -> Measured:
    """Measure what comes after the first batch; each item is the number of images of one."""
    next(batches)
    began, used = time.perf_counter(), processor()
    images = sum(batches)
    return (processor() - used) / images, (time.perf_counter() - began) / images


def bare_loop(network: TaskNetwork, files: Sequence[Path]) -> Iterator[int]:
    size = network.prediction_batch_size
    for start in range(0, len(files), size):
        batch = [network.prepare(decode(file.read_bytes())) for file in files[start : start + size]]
        network.predict(torch.stack(batch))
        yield len(batch)


def reader_of(url: str, folder: Path) -> InputReader:
    return InputReader(
        ImageStore(folder / "images", 0, AllowedHosts()),
        FeatureStore(folder / "features", 0),
        ImageSource(url, dict),
    )


def problem(_: int, why: Exception) -> None:
    raise why


def local(network: TaskNetwork, items: Items, url: str, folder: Path) -> Iterator[int]:
    for scores, _ in LocalEngine().scored(reader_of(url, folder), network, items, KIND, problem):
        yield len(scores)


def both(network: TaskNetwork, items: Items, url: str, folder: Path) -> Measured:
    """Two processes, each with half of the images."""
    network.save(folder / "network")
    context = get_context("spawn")
    results: Queue[Measured] = context.Queue()
    processes = [
        context.Process(target=half, args=(folder, items[n::2], url, results)) for n in (0, 1)
    ]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return (found[0][0] + found[1][0]) / 2, (found[0][1] + found[1][1]) / 4


def half(folder: Path, items: Items, url: str, results: Queue[Measured]) -> None:
    from cdal.models import load_network

    keep_freed_memory()
    torch.set_num_threads(1)
    network = load_network(folder / "network", torch.device("cpu"))
    results.put(measured(local(network, items, url, folder)))


def on_ray(network: TaskNetwork, items: Items, url: str, folder: Path, nodes: int) -> Measured:
    with ray_engine(folder, url, nodes) as engine:
        scored = engine.scored(reader_of(url, folder), network, items, KIND, problem)
        # Ray's processes come and go, and with them what they have used.
        return measured((len(scores) for scores, _ in scored), lambda: 0.0)


@contextmanager
def ray_engine(folder: Path, url: str, nodes: int = 1) -> Iterator[RayEngine]:
    """The engine on a cluster of nodes of this machine, each with two cores."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0")
    import ray
    from ray.cluster_utils import Cluster

    from cdal.backend.loop.engines.ray import RayEngine

    sessions = os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray-")
    node = {"num_cpus": 2, "object_store_memory": 200 * 2**20}
    head = {**node, "node_ip_address": "127.0.0.2", "include_dashboard": False}
    (Path(sessions) / "ray").mkdir()  # a cluster writes its address there, and does not make it
    cluster = Cluster(initialize_head=True, head_node_args={**head, "temp_dir": sessions})
    try:
        for number in range(1, nodes):
            cluster.add_node(**node, node_ip_address=f"127.0.0.{2 + number}")
        config = ServerConfig(
            MODEL_DIR=folder, engine="ray", ray_address=cluster.address, device="cpu"
        )
        yield RayEngine(config, WeightSources(), url, "none", None, lambda: None)
    finally:
        ray.shutdown()
        cluster.shutdown()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder by a process of its own."""
    command: list[Any] = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(
        [*command, "--directory", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().split("port ")[1].split()[0]
            say(f"images are served at port {port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
