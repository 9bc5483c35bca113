from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cdal.benchmark import scores as module
from cdal.benchmark.loaded_data import LoadedFeatures, LoadedImages
from cdal.benchmark.scores import score, unseen_pool
from cdal.mixture_kind import MixtureKind
from cdal.models import Prediction, TaskNetwork, make_network
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.feature_store import FeatureStore
from cdal.models.head import HeadNetwork
from cdal.selectors import ClassMixtures, means_of_regions, mixtures_of_regions

KINDS = (MixtureKind("class"), MixtureKind("image", "uniform"), MixtureKind("class", classes=(1,)))


def seen(task: str) -> tuple[TaskNetwork, LoadedImages]:
    network = make_network(task, classes=("a", "b", "c"), image_size=64, pretrained=False)
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8, generator=draws)
    targets = [torch.zeros(()) for _ in images]
    return network, LoadedImages(images, targets, torch.zeros(5, 3, dtype=torch.int64))


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection"])
def test_scores_are_what_the_network_says_of_all_images_at_once(task: str) -> None:
    network, images = seen(task)
    scores = score(network, images, KINDS)
    said = network.predict(images._images)
    pool = scores.pool(KINDS[0], labelled=[3, 1])
    wanted: ClassMixtures = mixtures_of_regions(said.regions, "class")
    torch.testing.assert_close(pool.mixtures, wanted.mixtures)
    torch.testing.assert_close(pool.probabilities, means_of_regions(said.regions).probabilities)
    torch.testing.assert_close(pool.features, said.features)
    assert pool.labelled.tolist() == [False, True, False, True, False]
    assert scores.pool(KINDS[1], []).mixtures.shape == (5, 1, 3)
    assert not scores.pool(KINDS[2], []).present[:, [0, 2]].any()


def test_what_a_full_disk_interrupts_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("full")

    network, images = seen("classification")
    scores = score(network, images, KINDS)
    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(OSError, match="full"):
        scores.save(tmp_path / "scores.safetensors", KINDS[0])
    assert not (tmp_path / "scores.safetensors").exists()


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection"])
def test_a_head_scores_features_as_it_does_images(task: str, tmp_path: Path) -> None:
    network = make_network(task, DEFAULT_BACKBONE, ("a", "b", "c"), 32)
    assert isinstance(network, HeadNetwork)
    draws = torch.Generator().manual_seed(0)
    images = list(torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=draws))
    nothing = {"classification": torch.tensor(0), "detection": torch.zeros(0, 5)}
    target = nothing.get(task, torch.zeros(32, 32, dtype=torch.uint8))
    data = [(image, target) for image in images]
    held = LoadedFeatures.read(data, network, FeatureStore(tmp_path, 2**30))
    said = network.predict(torch.stack([network.prepare(image) for image in images]))
    found = score(network, held, KINDS)
    wanted = mixtures_of_regions(said.regions, "class")
    torch.testing.assert_close(found.mixtures[KINDS[0]].mixtures, wanted.mixtures)
    torch.testing.assert_close(found.features, said.features)


def test_scoring_goes_on_in_smaller_batches_when_memory_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, images = seen("classification")
    wanted = score(network, images, KINDS)
    predict = type(network).predict
    shares: list[float] = []

    def full(self: TaskNetwork, batch: torch.Tensor) -> Prediction:
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return predict(self, batch)

    monkeypatch.setattr(type(network), "predict", full)
    found = score(network, images, KINDS, shares.append)
    torch.testing.assert_close(found.probabilities, wanted.probabilities)
    assert shares == pytest.approx([0.4, 0.6, 1.0])


def test_boxes_are_regions_as_the_kind_says() -> None:
    network, images = seen("detection")
    kinds = MixtureKind("class", confidence=0.99), MixtureKind("class", background=True)
    scores = score(network, images, kinds)
    # Untrained, it is confident of no box; the first one is always a region.
    assert scores.pool(kinds[0], []).region_counts.sum(1).tolist() == [1] * 5
    kept = scores.pool(kinds[1], [])
    assert kept.mixtures.shape == (5, 4, 4)
    torch.testing.assert_close(kept.mixtures.sum(2), kept.present.float())


def test_scores_are_saved(tmp_path: Path) -> None:
    network, images = seen("classification")
    scores = score(network, images, KINDS)
    scores.save(tmp_path / "new" / "scores.safetensors", KINDS[1])
    saved = load_file(tmp_path / "new" / "scores.safetensors")
    assert {name: tuple(array.shape) for name, array in saved.items()} == {
        "features": (5, 1024),
        "mixtures": (5, 1, 3),
        "present": (5, 1),
    }
    assert torch.equal(saved["features"], scores.features)


def test_a_pool_that_no_model_has_seen() -> None:
    assert unseen_pool(4, [2]).unlabelled.tolist() == [0, 1, 3]
