from __future__ import annotations

import torch
from torch import Tensor

from cdal.benchmark.loaded_data import LoadedImages
from cdal.models import make_network


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
