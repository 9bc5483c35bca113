"""The cost of scoring compared with a bare loop, of building results, and the growth of memory.

    python measurements/scoring.py --images ../shared/data/camvid.zip
    python measurements/scoring.py --images ../shared/data/camvid.zip --memory

Trains a network on some of the images for a few epochs, so that its predictions are realistic.
Then the job ``score`` runs over the rest, alternating with a loop that only reads, decodes, resizes
and predicts the same files. A local web server stands in for Label Studio's files; nothing else of
Label Studio is needed. With ``--memory``, separate processes run the job over 500 and over 5,000
images, the same ones repeatedly, and their peaks are compared.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any

import torch
from pydantic import SecretStr
from shared import report, say, timed
from sqlalchemy import delete, insert, select, update

from cdal.backend.annotations.labeling_config import served_control
from cdal.backend.config import ServerConfig
from cdal.backend.images.decode import decode
from cdal.backend.loop.given_up import on_job_given_up
from cdal.backend.loop.predictions import result_of
from cdal.backend.loop.runner import run_job
from cdal.backend.services import Services
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.tables import ModelVersion, Prediction, Project, Round, Task
from cdal.datasets import Example, ImageSet, LabelledImages, open_images
from cdal.demo.project import LABELING_CONFIGS
from cdal.models import Recipe, TaskNetwork, choose_device, choose_network, fit, make_network

PROJECT, VERSION = 1, 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="labelled images, any layout")
    parser.add_argument(
        "--pool", type=int, default=1000, help="images to score, repeated if necessary"
    )
    parser.add_argument("--queue", type=int, default=100, help="images queued per round")
    parser.add_argument("--train", type=int, default=60, help="images to train on")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--score", type=Path, help=argparse.SUPPRESS)  # by --memory itself
    options = parser.parse_args()
    if options.score is not None:
        score_alone(options.score, options.device)
        return
    images = open_images(options.images)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = trained(images, options)
        if options.memory:
            memory(network, images, folder, options.device)
        else:
            speed(network, images, folder, options)


def trained(images: ImageSet, options: argparse.Namespace) -> TaskNetwork:
    """A network trained on some of the images."""
    device = choose_device(options.device)
    some = images.train[: options.train]
    sizes = [example.size() for example in some]
    architecture, side = choose_network(images.task, device, sizes, training="full")
    network = make_network(
        images.task, architecture, images.classes, side, device, pretrained=False
    )
    say(f"training {architecture} at {side}×{side} on {len(some)} images")
    fit(network, LabelledImages(images, some), None, Recipe(epochs=options.epochs))
    return network


def speed(
    network: TaskNetwork, images: ImageSet, folder: Path, options: argparse.Namespace
) -> None:
    files = copies(images.examples[-options.pool :], folder / "images")
    files = [files[row % len(files)] for row in range(options.pool)]
    with served(folder / "images") as url:
        services = set_up(network, images, folder, url, files, len(files))
        job = partial(score, services)
        job()  # fills the image cache
        bare = partial(bare_loop, network, files)
        mine, theirs = [], []
        for _ in range(options.repeats):
            mine.append(timed(job))
            theirs.append(timed(bare))
    ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
    ours = statistics.median(mine)
    report(
        f"scoring {len(files)} images",
        f"{1000 * ours / len(files):.1f} ms an image against "
        f"{1000 * statistics.median(theirs) / len(files):.1f} ms for a bare loop: median ratio "
        f"{ratio:.2f}",
    )
    for tag in {"segmentation": ("BrushLabels", "PolygonLabels")}.get(images.task, (None,)):
        built = timed(partial(build_results, services, tag, options.queue))
        report(
            f"building the results of {options.queue} images{f' as {tag}' if tag else ''}",
            f"{1000 * built / options.queue:.1f} ms an image: {100 * built / ours:.0f}% of the "
            "scoring pass",
        )
    services.store.close()


def memory(network: TaskNetwork, images: ImageSet, folder: Path, device: str) -> None:
    files = copies(images.examples[-100:], folder / "images")
    peaks = []
    with served(folder / "images") as url:
        for count in (500, 5000):
            data = folder / str(count)
            set_up(network, images, data, url, files, count).store.close()
            command = [sys.executable, __file__, "--images", ".", "--device", device]
            answer = subprocess.run(
                [*command, "--score", str(data)], check=True, capture_output=True, text=True
            )
            peaks.append(float(answer.stdout.split()[-1]))
            report(f"peak memory, {count} images", f"{peaks[-1]:.0f} MiB")
    report("5,000 against 500 images", f"{peaks[1] / peaks[0]:.3f} times")


def score_alone(data: Path, device: str) -> None:
    """Score in this process, and print its peak memory in MiB."""
    services = Services.open(configuration(data, device), on_job_given_up)
    score(services)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"{peak}\n")


def score(services: Services) -> None:
    """Run the job as the worker does."""
    with services.store.transaction() as session:
        session.execute(delete(Prediction))
        session.execute(update(Round).values(state="scoring"))
        job_id = services.jobs.request(session, PROJECT, "score", "benchmark")
    run_job(services, job_id, lambda: False)
    with services.store.reading() as session:
        assert session.scalars(select(Round.state)).one() == "selecting", "the job failed"


def bare_loop(network: TaskNetwork, files: Sequence[Path]) -> None:
    size = network.prediction_batch_size
    for start in range(0, len(files), size):
        batch = [network.prepare(decode(file.read_bytes())) for file in files[start : start + size]]
        network.predict(torch.stack(batch))


def build_results(services: Services, tag: str | None, count: int) -> None:
    """Build the results of some predictions, as for the label stream."""
    with services.store.reading() as session:
        project = session.get_one(Project, PROJECT)
        classes = session.get_one(ModelVersion, VERSION).classes
        findings = session.scalars(select(Prediction.finding).limit(count)).all()
    config = project.labeling_config
    control = served_control(config.replace("BrushLabels", tag) if tag else config)
    settings = ProjectSettings()
    for finding in findings:
        result_of(control, settings, classes, finding)


def set_up(
    network: TaskNetwork,
    images: ImageSet,
    folder: Path,
    url: str,
    files: Sequence[Path],
    count: int,
) -> Services:
    """Create a project with ``count`` tasks and this model, ready to be scored."""
    folder.mkdir(parents=True, exist_ok=True)
    services = Services.open(configuration(folder, network.device.type), on_job_given_up)
    network.save(services.config.version_folder(PROJECT, VERSION))
    rows: list[dict[str, Any]] = [
        {"project_id": PROJECT, "task_id": row, "image": f"{url}/{files[row % len(files)].name}"}
        for row in range(count)
    ]
    with services.store.transaction() as session:
        session.add(
            Project(
                id=PROJECT,
                uid="1.1",
                label_studio_id=1,
                url=url,
                labeling_config=LABELING_CONFIGS[images.task](images.classes),
                extra_params=None,
                access_token="unused",
            )
        )
        session.flush()
        session.add(
            ModelVersion(
                id=VERSION,
                project_id=PROJECT,
                number=VERSION,
                architecture=network.manifest.architecture,
                classes=list(network.classes),
                fingerprint="",
                labels=0,
                metrics={},
                promoted=True,
                verdict="",
                seconds=0.0,
            )
        )
        session.flush()
        session.add(
            Round(
                project_id=PROJECT,
                ranking=1,
                number=1,
                model_version_id=VERSION,
                state="scoring",
                selector="random",
                budget=1,
                seed=0,
            )
        )
        session.execute(insert(Task), rows)
    return services


def configuration(folder: Path, device: str) -> ServerConfig:
    config = ServerConfig()
    config.data_folder = folder
    config.device = device
    config.image_hosts = "127.0.0.1"
    config.label_studio_api_key = SecretStr("unused")
    return config


def copies(examples: Sequence[Example], folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    files = []
    for row, example in enumerate(examples):
        file = folder / f"{row:05}{PurePosixPath(example.name).suffix}"
        file.write_bytes(example.image())
        files.append(file)
    return files


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    handler = partial(Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


if __name__ == "__main__":
    main()
