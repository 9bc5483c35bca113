"""What networks get from images: features, computed once, or pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.loopback import Loopback, reply
from torch import Tensor

from cdal.backend.errors import ImageError
from cdal.backend.images.inputs import InputReader, Inputs
from cdal.backend.images.store import AllowedHosts, ImageSource, ImageStore
from cdal.models import TaskNetwork, make_network
from cdal.models.backbone import DEFAULT_BACKBONE, Backbone, open_backbone
from cdal.models.dense_head import DenseHeadNetwork
from cdal.models.feature_store import FeatureStore
from cdal.models.features import ImageFeatures
from cdal.models.head import HeadNetwork

SIDE = 32
CLASSES = ("a", "b")


def file(grey: int) -> bytes:
    encoded = BytesIO()
    Image.new("L", (40, 20), grey).save(encoded, "PNG")
    return encoded.getvalue()


def path(task: int) -> str:
    return f"/data/upload/1/{task}.png"


@pytest.fixture(scope="module", autouse=True)
def backbone() -> Backbone:
    """Held, so that it is read once."""
    return open_backbone(DEFAULT_BACKBONE, torch.device("cpu"))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of images that a backbone was shown at a time."""
    shown: list[int] = []
    for kind in (type(network()), DenseHeadNetwork):
        extract = kind.extract

        def count(
            self: HeadNetwork, batch: Tensor, extract: object = extract
        ) -> list[ImageFeatures]:
            shown.append(len(batch))
            return extract(self, batch)  # type: ignore[operator, no-any-return]

        monkeypatch.setattr(kind, "extract", count)
    return shown


@pytest.fixture
def label_studio() -> Iterator[Loopback]:
    """Ten images, of which 3 is damaged and 4 is missing."""
    with Loopback() as server:
        for task in range(10):
            data = file(20 * task)
            server.routes[path(task)] = reply(data[:-30] if task == 3 else data)
        server.routes[path(4)] = reply(status=404)
        yield server


def network(task: str = "classification", side: int = SIDE, tile: int | None = None) -> HeadNetwork:
    made = make_network(task, DEFAULT_BACKBONE, CLASSES, side, tile=tile)
    assert isinstance(made, HeadNetwork)
    return made


def reader(label_studio: Loopback, folder: Path, features_mb: int = 64) -> InputReader:
    """The services of a process without an image cache."""
    return InputReader(
        ImageStore(folder / "images", 0, AllowedHosts()),
        FeatureStore(folder / "features", features_mb * 2**20),
        ImageSource(label_studio.url, dict),
    )


def read(
    images: InputReader, made: TaskNetwork, tasks: Sequence[int]
) -> tuple[dict[int, Tensor | ImageFeatures], list[int]]:
    """The network's input for each task, and the tasks with a problem."""
    problems: list[int] = []
    batches = images.batches(
        made, [(task, path(task)) for task in tasks], lambda task, _: problems.append(task)
    )
    found = {
        i: image for batch in batches for i, image in zip(batch.ids, batch.images, strict=True)
    }
    return found, problems


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_an_image_is_fetched_and_shown_to_the_backbone_once(
    label_studio: Loopback, tmp_path: Path, looks: list[int], task: str
) -> None:
    made = network(task)
    first, problems = read(reader(label_studio, tmp_path), made, range(10))
    assert sorted(problems) == [3, 4]
    assert sorted(first) == [0, 1, 2, 5, 6, 7, 8, 9]
    assert sum(looks) == 8
    assert len(label_studio.requests) == 10
    again, problems = read(reader(label_studio, tmp_path), network(task), range(10))
    assert sorted(problems) == [3, 4]
    assert sum(looks) == 8
    assert len(label_studio.requests) == 12  # only those two
    for number, features in first.items():
        kept = again[number]
        assert isinstance(features, ImageFeatures)
        assert isinstance(kept, ImageFeatures)
        assert kept.content == features.content
        pairs = zip(kept.maps, features.maps, strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_kept_ones_come_first_with_their_sizes(label_studio: Loopback, tmp_path: Path) -> None:
    read(reader(label_studio, tmp_path), network(), [5, 6])
    items = [(task, path(task)) for task in (0, 5, 1, 6)]
    batches = list(reader(label_studio, tmp_path).batches(network(), items, no_problem))
    assert [list(batch.ids) for batch in batches] == [[5, 6], [0, 1]]
    assert [size for batch in batches for size in batch.sizes] == [(20, 40)] * 4


def no_problem(task_id: int, why: ImageError) -> None:
    raise AssertionError(task_id, why)


def test_two_projects_with_the_same_images_compute_once(
    label_studio: Loopback, tmp_path: Path, looks: list[int]
) -> None:
    read(reader(label_studio, tmp_path), network(), range(3))
    for task in range(3):
        label_studio.routes[path(task + 100)] = label_studio.routes[path(task)]
    found, _ = read(reader(label_studio, tmp_path), network(), range(100, 103))
    assert sorted(found) == [100, 101, 102]
    assert sum(looks) == 3
    # But each fetched its own: whether a project may see a file is Label Studio's decision.
    assert len(label_studio.requests) == 6


def test_another_size_and_other_maps_are_computed(
    label_studio: Loopback, tmp_path: Path, looks: list[int]
) -> None:
    for made in (network(), network(side=64), network("detection"), network("segmentation")):
        read(reader(label_studio, tmp_path), made, [0, 1])
    assert sum(looks) == 6  # detection and segmentation share their maps


def test_tiles_are_seen_once_and_a_few_at_a_time(
    label_studio: Loopback, tmp_path: Path, looks: list[int]
) -> None:
    # An image of 20 by 40 pixels is enlarged to 120 by 240, which 12 tiles cover.
    first, _ = read(reader(label_studio, tmp_path), network("detection", 96, tile=16), [0, 1])
    assert looks == [4] * 6
    again, _ = read(reader(label_studio, tmp_path), network("detection", 96, tile=16), [0, 1])
    assert sum(looks) == 24
    for task, features in first.items():
        kept = again[task]
        assert isinstance(features, ImageFeatures)
        assert isinstance(kept, ImageFeatures)
        assert features.content == kept.content == (120, 240)
        pairs = zip(kept.maps, features.maps, strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    read(reader(label_studio, tmp_path), network("detection", 96, tile=24), [0])
    assert sum(looks) > 24


def test_an_image_that_changed_is_computed_again(
    label_studio: Loopback, tmp_path: Path, looks: list[int]
) -> None:
    images, made = reader(label_studio, tmp_path), network("segmentation")
    before, _ = read(images, made, [0])
    # The task has another image now.
    items = [(0, path(9))]
    (changed,) = images.batches(made, items, no_problem)
    assert sum(looks) == 2
    # Other bytes are found at an address of which nothing is kept, as once the store was full.
    for file_of_addresses in (tmp_path / "features" / "addresses").iterdir():
        file_of_addresses.unlink()
    label_studio.routes[path(0)] = reply(file(255))
    after, _ = read(reader(label_studio, tmp_path), made, [0])
    assert sum(looks) == 3
    vectors = [
        each.maps[0]
        for each in (before[0], changed.images[0], after[0])
        if isinstance(each, ImageFeatures)
    ]
    assert len({tuple(vector.flatten().tolist()) for vector in vectors}) == 3


def test_without_a_store_every_image_is_computed_each_time(
    label_studio: Loopback, tmp_path: Path, looks: list[int]
) -> None:
    for _ in range(2):
        found, _ = read(reader(label_studio, tmp_path, features_mb=0), network(), [0, 1])
        assert len(found) == 2
    assert sum(looks) == 4


def test_what_was_seen_is_kept_when_the_job_is_stopped(
    label_studio: Loopback, tmp_path: Path, looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = network()
    monkeypatch.setattr(type(made), "prediction_batch_size", 2)
    items = [(task, path(task)) for task in (0, 1, 2, 5)]
    batches = reader(label_studio, tmp_path).batches(made, items, no_problem)
    next(batches)
    batches.close()
    read(reader(label_studio, tmp_path), made, [0, 1])
    assert sum(looks) == 2


def test_a_full_device_is_shown_fewer_at_a_time(
    label_studio: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = network()
    shown: list[int] = []

    def extract(batch: Tensor) -> list[ImageFeatures]:
        shown.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [ImageFeatures((torch.zeros(4).half(),), (SIDE, SIDE)) for _ in batch]

    monkeypatch.setattr(made, "extract", extract)
    found, _ = read(reader(label_studio, tmp_path), made, [0, 1, 2, 5, 6])
    assert sorted(found) == [0, 1, 2, 5, 6]
    assert shown == [5, 2, 3, 1, 2]


def test_a_whole_network_gets_pixels_in_order(label_studio: Loopback, tmp_path: Path) -> None:
    made = make_network("classification", "mobilenet_v3_small", CLASSES, SIDE, pretrained=False)
    batches: list[Inputs] = []
    items = [(task, path(task)) for task in (9, 0, 5)]
    batches += reader(label_studio, tmp_path).batches(made, items, no_problem)
    assert [task for batch in batches for task in batch.ids] == [9, 0, 5]
    pixels = batches[0].images
    assert isinstance(pixels, Tensor)
    assert tuple(pixels.shape) == (3, 3, SIDE, SIDE)
    assert pixels[:, 0, 0, 0].tolist() == [180, 0, 100]
    assert not (tmp_path / "features").exists()
