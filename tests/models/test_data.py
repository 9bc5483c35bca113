from __future__ import annotations

import threading

import pytest
import torch
from support.colours import Colours
from torch import Tensor
from torch.nn import functional

from cdal.models import Stopped
from cdal.models.data import PreparedImages


class Counted(Colours):
    """Counts how often each image is read."""

    def __init__(self, targets: list[int]) -> None:
        super().__init__(targets)
        self.reads = [0] * len(targets)
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with self._lock:
            self.reads[index] += 1
        return super().__getitem__(index)


class Untouched:
    """Leaves examples as they are, and has four classes."""

    image_size = 32
    learns_objects = False

    def prepare_example(self, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return image, target

    def count_classes(self, target: Tensor) -> Tensor:
        return functional.one_hot(target, 4)


def prepared(data: Colours, memory_limit: int) -> PreparedImages:
    images = PreparedImages(data, Untouched(), memory_limit)
    images.load(lambda _: None, lambda: False)
    return images


ORDER = (torch.tensor([4, 0]), torch.tensor([3]), torch.tensor([2, 1]))
BYTES = 5 * 4 * 32 * 32  # each with a mask


@pytest.mark.parametrize(
    ("memory_limit", "reads"),
    [(BYTES, [1] * 5), (BYTES - 1, [1, 1, 1, 1, 2]), (0, [2] * 5)],
)
def test_batches_come_in_the_requested_order(memory_limit: int, reads: list[int]) -> None:
    data = Counted([0, 1, 2, 3, 0])
    images = prepared(data, memory_limit)
    batches = list(images.batches(ORDER))
    assert [[int(t) for t in targets] for _, targets in batches] == [[0, 0], [3], [2, 1]]
    for indices, (pixels, _) in zip(ORDER, batches, strict=True):
        assert pixels.dtype == torch.uint8
        assert torch.equal(pixels, torch.stack([data.images[int(i)] for i in indices]))
    assert data.reads == reads


@pytest.mark.parametrize("memory_limit", [BYTES, 0])
def test_prepared_images_are_a_data_set(memory_limit: int) -> None:
    data = Colours([0, 1, 2, 3, 0])
    images = prepared(data, memory_limit)
    assert len(images) == 5
    assert torch.equal(images[3][0], data.images[3])
    assert images[3][1] == 3


@pytest.mark.parametrize("memory_limit", [BYTES, 2 * BYTES // 5, 0])
def test_a_part_shares_what_was_read(memory_limit: int) -> None:
    data = Counted([0, 1, 2, 3, 0])
    part = prepared(data, memory_limit).take([4, 1, 3])
    assert part.class_counts.tolist() == [1, 1, 0, 1]
    ((pixels, targets),) = part.take([2, 0]).batches([torch.tensor([1, 0])])
    assert torch.equal(pixels, torch.stack([data.images[4], data.images[3]]))
    assert [int(target) for target in targets] == [0, 3]
    kept = memory_limit // (BYTES // 5)
    assert data.reads == [1 + (row in (3, 4) and row >= kept) for row in range(5)]


def test_images_that_were_read_elsewhere_are_put_in() -> None:
    data = Counted([0, 1, 2, 3, 0])
    images = PreparedImages(data, Untouched())
    for row in (0, 3):  # the others cannot be read
        images.put(row, *data[row])
    some = images.take([3, 0])
    assert some.class_counts.tolist() == [1, 0, 0, 1]
    assert torch.equal(some[0][0], data.images[3])
    assert data.reads == [1, 0, 0, 1, 0]


def test_without_images() -> None:
    none = PreparedImages(Colours([]), Untouched())
    none.load(lambda _: None, lambda: False)
    assert len(none) == 0
    assert list(none.batches([])) == []
    assert none.class_counts.tolist() == []


def test_reports_its_progress() -> None:
    shares: list[float] = []
    images = PreparedImages(Colours([0, 1]), Untouched())
    images.load(shares.append, lambda: False)
    assert shares == [0.5, 1.0]


@pytest.mark.parametrize("memory_limit", [BYTES, 0])
def test_classes_are_counted(memory_limit: int) -> None:
    assert prepared(Colours([0, 1, 3, 3, 0]), memory_limit).class_counts.tolist() == [2, 1, 0, 2]


def test_stops_between_images() -> None:
    data = Counted([0] * 500)
    images = PreparedImages(data, Untouched())
    with pytest.raises(Stopped):
        images.load(lambda _: None, lambda: True)
    assert sum(data.reads) < 500


def test_the_caller_learns_of_an_image_that_cannot_be_read() -> None:
    class Broken(Colours):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            raise OSError("no such image")

    with pytest.raises(OSError, match="no such image"):
        prepared(Broken([0]), BYTES)
