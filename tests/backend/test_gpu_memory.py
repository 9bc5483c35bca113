"""Serving and scoring while another process has the GPU's memory.

There is no GPU here: a network on the CPU fakes one, by raising what CUDA would.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.offline import add_project, add_round, add_version, make_services, picture
from torch import Tensor, nn

from cdal.backend.images.inputs import Inputs
from cdal.backend.loaded_networks import LoadedNetworks
from cdal.backend.loop.inference import score_images
from cdal.backend.services import Services
from cdal.backend.store.tables import Project
from cdal.backend.web.model import CDALModel
from cdal.mixture_kind import MixtureKind
from cdal.models import TaskNetwork, load_network, make_network

FULL = torch.OutOfMemoryError("CUDA out of memory.")


def with_memory_for(network: TaskNetwork, images: int) -> list[int]:
    sizes: list[int] = []

    def full(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        sizes.append(len(arguments[0]))
        if len(arguments[0]) > images:
            raise FULL

    network.module.register_forward_pre_hook(full)
    return sizes


@pytest.mark.slow
def test_scoring_goes_on_in_halves_and_misses_no_image() -> None:
    network = make_network("classification", "mobilenet_v3_small", ("cat", "dog"), 32)
    sizes = with_memory_for(network, 10)
    pixels = torch.randint(0, 256, (100, 3, 32, 32), dtype=torch.uint8)

    def batches() -> Iterator[Inputs]:
        left = list(range(100))
        while rows := left[: network.prediction_batch_size]:
            del left[: len(rows)]
            yield Inputs(rows, [b""] * len(rows), [(32, 32)] * len(rows), pixels[rows])

    found = list(score_images(network, batches(), MixtureKind("image")))
    assert [row for scores, _ in found for row in scores.task_ids.tolist()] == list(range(100))
    assert sum(size > 10 for size in sizes) < 8
    assert sizes[-1] <= 10


@pytest.mark.slow
def test_an_unseen_image_is_predicted_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    version = add_version(services, project)
    folder = services.config.version_folder(1, 1)
    make_network("classification", "mobilenet_v3_small", ("cat", "dog"), 32).save(folder)
    add_round(services, project, [7], queue_version="CDAL round 1.1", model_version_id=version.id)
    on_gpu = services.networks.get(folder)
    with_memory_for(on_gpu, 0)
    (prediction,) = predict(services)
    assert prediction["result"][0]["value"]["choices"][0] in ("cat", "dog")
    assert services.networks.get(folder) is not on_gpu

    # And a network that does not even fit into the memory is loaded elsewhere.
    def full(folder: Path, device: Any, sources: Any) -> TaskNetwork:
        if device == torch.device("cuda"):
            raise FULL
        return load_network(folder, device)

    monkeypatch.setattr("cdal.backend.loaded_networks.load_network", full)
    monkeypatch.setattr("cdal.backend.loaded_networks.choose_device", torch.device)
    assert LoadedNetworks("cuda").get(folder).device == torch.device("cpu")


def predict(services: Services) -> list[Any]:
    with services.store.reading() as session:
        project = session.get_one(Project, 1)
    return CDALModel(services, project).predict([{"id": 9, "data": {"image": picture()}}])
