from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cdal.benchmark import loaded_data
from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.loaded_data import LoadedFeatures, LoadedImages
from cdal.models import Recipe, fit, make_network
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.feature_store import FeatureStore
from cdal.models.features import ImageFeatures
from cdal.models.head import HeadNetwork


class Grey:
    """Five images, each brighter than the one before; their classes are 0, 1, 0, 1, 0."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        self.read.append(index)
        return torch.full((3, 8, 6), index, dtype=torch.uint8), torch.tensor(index % 2)


NETWORK = make_network(classes=("a", "b"), image_size=32, pretrained=False)


def test_each_image_is_read_once_and_prepared() -> None:
    data = Grey()
    held = LoadedImages.read(data, NETWORK)
    assert sorted(data.read) == [0, 1, 2, 3, 4]
    image, target = held[3]
    assert image.shape == (3, 32, 32)
    assert image.unique().tolist() == [3]
    assert int(target) == 1
    NETWORK.evaluate(held)
    assert len(data.read) == 5


def test_a_part_counts_its_own_classes() -> None:
    held = LoadedImages.read(Grey(), NETWORK)
    assert held.class_counts.tolist() == [3, 2]
    part = held.take([4, 1, 3])
    assert len(part) == 3
    assert part.class_counts.tolist() == [1, 2]
    assert [int(part[row][0][0, 0, 0]) for row in range(3)] == [4, 1, 3]
    assert part.take([2, 0]).counts.tolist() == [[0, 1], [1, 0]]


def test_batches_are_in_the_order_that_is_asked_for() -> None:
    part = LoadedImages.read(Grey(), NETWORK).take([4, 1, 3])
    batches = list(part.batches([torch.tensor([2, 0]), torch.tensor([1])]))
    assert [images[:, 0, 0, 0].tolist() for images, _ in batches] == [[3, 4], [1]]
    assert [[int(target) for target in targets] for _, targets in batches] == [[1, 0], [1]]


def test_other_targets_leave_the_first_ones_as_they_were() -> None:
    held = LoadedImages.read(Grey(), NETWORK)
    asked: list[int] = []

    def zero(row: int, target: Tensor) -> Tensor:
        asked.append(row)
        return torch.zeros_like(target)

    part = held.take([3, 0]).relabelled(zero, NETWORK.count_classes)
    assert asked == [3, 0]
    assert part.class_counts.tolist() == [2, 0]
    assert int(part[0][1]) == 0
    assert int(held[3][1]) == 1
    assert held.class_counts.tolist() == [3, 2]


class Masks(Grey):
    """The same images, with masks of one class each."""

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        image, label = super().__getitem__(index)
        return image, torch.full((8, 6), int(label), dtype=torch.uint8)


def head(task: str = "classification", tile: int | None = None) -> HeadNetwork:
    network = make_network(task, DEFAULT_BACKBONE, ("a", "b"), tile or 32, tile=tile)
    assert isinstance(network, HeadNetwork)
    return network


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images a backbone is shown, time after time."""
    counts: list[int] = []
    look = HeadNetwork.look

    def watched(self: HeadNetwork, batch: Tensor) -> list[ImageFeatures]:
        counts.append(len(batch))
        return look(self, batch)

    monkeypatch.setattr(HeadNetwork, "look", watched)
    return counts


@pytest.mark.parametrize(("task", "data"), [("classification", Grey), ("segmentation", Masks)])
def test_a_backbone_sees_each_image_once(
    task: str, data: type[Grey], seen: list[int], tmp_path: Path
) -> None:
    network = head(task)
    first = LoadedFeatures.read(data(), network, FeatureStore(tmp_path, 2**30))
    again = LoadedFeatures.read(data(), network, FeatureStore(tmp_path, 2**30))
    assert sum(seen) == 5
    for one, other in zip(first.features, again.features, strict=True):
        assert all(torch.equal(*maps) for maps in zip(one.maps, other.maps, strict=True))
    prepared = LoadedImages.read(data(), network)
    assert torch.equal(first.counts, prepared.counts)
    for row in range(5):
        assert torch.equal(first.targets[row], prepared[row][1])
        wanted = network.extract(prepared[row][0][None])[0]
        for kept, computed in zip(first.features[row].maps, wanted.maps, strict=True):
            torch.testing.assert_close(kept, computed, atol=0.05, rtol=0.01)


class Large(Grey):
    """Images of different sizes, with masks."""

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        size = (40 * (index + 1), 200)
        return torch.full((3, *size), 90, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)


def test_images_in_tiles_are_of_any_size(tmp_path: Path) -> None:
    network = head("segmentation", tile=96)
    loaded = LoadedFeatures.read(Large(), network, FeatureStore(tmp_path, 2**30))
    assert [each.content for each in loaded.features] == [
        (40, 200),
        (80, 200),
        (120, 200),
        (160, 200),
        (200, 200),
    ]
    assert network.evaluate(loaded.take([4, 0])).images == 2


def test_what_is_kept_before_a_kill_is_not_computed_again(seen: list[int], tmp_path: Path) -> None:
    class Ends(Grey):
        def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
            if index == 3:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    network = head()
    network._halved = 10  # batches of one image
    store = FeatureStore(tmp_path, 8 * network.backbone.record.features * 2)  # writes each image
    with pytest.raises(KeyboardInterrupt):
        LoadedFeatures.read(Ends(), network, store)
    assert sum(seen) == 3
    LoadedFeatures.read(Grey(), network, FeatureStore(tmp_path, 2**30))
    assert sum(seen) == 5


def test_a_head_learns_from_a_part_of_the_features(seen: list[int], tmp_path: Path) -> None:
    network = head()
    held = LoadedFeatures.read(Grey(), network, FeatureStore(tmp_path, 2**30))
    part = held.take([4, 1, 3])
    assert [int(target) for target in part.targets] == [0, 1, 1]
    assert part.counts.sum(0).tolist() == [1, 2]
    assert part.take([2, 0]).rows == [3, 4]
    fit(network, part, None, Recipe())
    assert network.evaluate(held).images == 5
    assert sum(seen) == 5


def test_other_targets_of_features_leave_the_first_ones_as_they_were(tmp_path: Path) -> None:
    network = head()
    held = LoadedFeatures.read(Grey(), network, FeatureStore(tmp_path, 2**30))
    part = held.take([3, 0]).relabelled(lambda row, _: torch.tensor(row % 3), lambda t: t[None])
    assert [int(target) for target in part.targets] == [0, 0]
    assert part.counts.tolist() == [[0], [0]]
    assert [int(target) for target in held.targets] == [0, 1, 0, 1, 0]


def test_features_that_do_not_fit_are_refused_before_the_backbone_goes_on(
    seen: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = head()
    network._halved = 10
    monkeypatch.setattr(loaded_data, "MEMORY_SHARE", 1e-9)
    with pytest.raises(BenchmarkError, match="--limit"):
        LoadedFeatures.read(Grey(), network, FeatureStore(tmp_path, 2**30))
    assert sum(seen) == 1
