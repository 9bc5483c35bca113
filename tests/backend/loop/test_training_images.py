"""Labelled images as a network learns from them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from support.loopback import Loopback, in_turn, reply
from torch import Tensor
from torch.nn import functional

from cdal.backend.annotations.choices import ChoiceTruth
from cdal.backend.annotations.masks import MaskTruth
from cdal.backend.annotations.polygons import PolygonShape
from cdal.backend.images import retry
from cdal.backend.images.inputs import InputReader
from cdal.backend.images.retry import Patience
from cdal.backend.images.store import AllowedHosts, ImageError, ImageSource, ImageStore
from cdal.backend.loop.training_images import LabelledImage, TrainingImages
from cdal.models import Stopped, TaskNetwork, make_network
from cdal.models.data import PreparedImages
from cdal.models.feature_store import FeatureStore


def picture(width: int, height: int, grey: int = 0) -> str:
    file = BytesIO()
    Image.new("L", (width, height), grey).save(file, "PNG")
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()


ITEMS = [
    LabelledImage(7, picture(4, 3, 10), ChoiceTruth("dog", 1)),
    LabelledImage(5, "/etc/passwd", ChoiceTruth("cat", 0)),
    LabelledImage(6, picture(2, 2, 20), ChoiceTruth("cat", 0)),
]


@pytest.fixture
def images(tmp_path: Path) -> TrainingImages:
    store = ImageStore(tmp_path, 0, AllowedHosts.parse("public"))
    source = ImageSource("http://label-studio.test", dict)
    return TrainingImages(InputReader(store, FeatureStore(tmp_path, 0), source), ITEMS)


class FirstPixel:
    """Keeps one pixel of an image, and of a target only the size of its image."""

    image_size = 1
    learns_objects = False
    prediction_batch_size = 2

    def prepare(self, image: Tensor) -> Tensor:
        return image[:, :1, :1]

    def prepare_target(self, target: Tensor, height: int, width: int) -> Tensor:
        return torch.tensor([int(target), height, width], dtype=torch.uint8)

    def prepare_example(self, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return self.prepare(image), self.prepare_target(target, *image.shape[1:])

    def count_classes(self, target: Tensor) -> Tensor:
        return functional.one_hot(target[0].long(), 2)


NETWORK = cast(TaskNetwork, FirstPixel())


def test_an_image_and_its_class(images: TrainingImages) -> None:
    assert len(images) == 3
    image, target = images[0]
    assert (tuple(image.shape), image.dtype, target) == ((3, 3, 4), torch.uint8, torch.tensor(1))
    assert image[0, 0].tolist() == [10] * 4


def test_one_that_cannot_be_had_says_why(images: TrainingImages) -> None:
    with pytest.raises(ImageError, match="not a path at which Label Studio serves"):
        images[1]


def test_sizes_of_those_that_can_be_read(images: TrainingImages) -> None:
    assert images.sizes(3) == [(3, 4), (2, 2)]
    assert images.sizes(1) == [(3, 4)]


def test_reading_leaves_out_what_cannot_be_had_and_says_why(images: TrainingImages) -> None:
    shares: list[float] = []
    read = images.read(NETWORK, shares.append)
    readable, problems = read.images, read.problems
    assert read.sizes == {7: (3, 4), 6: (2, 2)}
    assert [item.task_id for item in readable.items] == [7, 6]
    assert list(problems) == [5]
    assert shares == [1 / 3, 2 / 3, 1]
    assert tuple(readable[0][0].shape) == (3, 3, 4)  # as it is
    prepared = readable.prepared_for(NETWORK)
    assert isinstance(prepared, PreparedImages)
    assert [prepared[n][0].flatten().tolist() for n in (0, 1)] == [[10] * 3, [20] * 3]
    assert [prepared[n][1].tolist() for n in (0, 1)] == [[1, 3, 4], [0, 2, 2]]
    assert prepared.class_counts.tolist() == [1, 1]


def test_what_was_prepared_is_not_read_again(label_studio: Loopback, tmp_path: Path) -> None:
    file = BytesIO()
    Image.new("RGB", (4, 3)).save(file, "PNG")
    for task in range(3):
        label_studio.routes[f"/data/upload/1/{task}.png"] = reply(file.getvalue())
    readable = fetched(label_studio, tmp_path, tasks=3).read(NETWORK, lambda _: None).images
    assert len(label_studio.requests) == 3
    some = readable.where(lambda item: item.task_id != 1)
    prepared = some.prepared_for(NETWORK)
    assert len(prepared) == 2
    assert [tuple(prepared[n][0].shape) for n in (0, 1)] == [(3, 1, 1)] * 2
    assert len(label_studio.requests) == 3


def test_a_network_of_another_size_has_the_images_as_they_are(images: TrainingImages) -> None:
    readable = images.read(NETWORK, lambda _: None).images
    larger = FirstPixel()
    larger.image_size = 2
    assert readable.prepared_for(cast(TaskNetwork, larger)) is readable
    assert images.prepared_for(NETWORK) is images  # which were not read yet


def test_where(images: TrainingImages) -> None:
    some = images.where(lambda item: "cat" in item.truth.classes)
    assert [item.task_id for item in some.items] == [5, 6]
    assert len(images.where(lambda _: False)) == 0


def test_nothing_to_read(images: TrainingImages) -> None:
    read = images.where(lambda _: False).read(NETWORK, lambda _: None)
    none, problems = read.images, read.problems
    assert (len(none), problems) == (0, {})


def test_an_image_whose_regions_prove_empty_teaches_nothing(tmp_path: Path) -> None:
    """Whether a mask covers a pixel shows only when it is painted at its image's size."""
    whole = PolygonShape(0, np.array([[0, 0], [100, 0], [100, 100], [0, 100]], np.float32))
    empty = PolygonShape(0, np.array([[1, 1], [2, 1], [2, 2]], np.float32))
    items = [
        LabelledImage(task, picture(4, 3), MaskTruth(("cat",), shapes, uncovered=1))
        for task, shapes in ((1, (empty,)), (2, (whole, empty)), (3, ()))
    ]
    store = ImageStore(tmp_path, 0, AllowedHosts.parse("public"))
    source = ImageSource("http://label-studio.test", dict)
    network = make_network("segmentation", classes=("cat", "x"), image_size=32, pretrained=False)
    images = TrainingImages(InputReader(store, FeatureStore(tmp_path, 0), source), items)
    read = images.read(network, lambda _: None)
    assert [item.task_id for item in read.images.items] == [2, 3]
    assert read.left_out == {1: ("covering no pixel",), 2: ("covering no pixel",)}
    assert read.problems == {}


@pytest.fixture
def label_studio() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


def fetched(
    label_studio: Loopback, folder: Path, tasks: int = 1, waiting: Patience | None = None
) -> TrainingImages:
    """Images on a server, without a cache."""
    store = ImageStore(folder, 0, AllowedHosts())
    items = [
        LabelledImage(task, f"/data/upload/1/{task}.png", ChoiceTruth("cat", 0))
        for task in range(tasks)
    ]
    source = ImageSource(label_studio.url, dict)
    reader = InputReader(store, FeatureStore(folder, 0), source)
    return TrainingImages(reader, items, patience=waiting)


def test_an_image_that_is_away_for_a_moment_is_waited_for(
    label_studio: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.01)
    file = BytesIO()
    Image.new("RGB", (4, 3)).save(file, "PNG")
    away = [reply(status=502)] * 6  # two requests and a repetition each
    label_studio.routes["/data/upload/1/0.png"] = in_turn(*away, reply(file.getvalue()))
    assert tuple(fetched(label_studio, tmp_path)[0][0].shape) == (3, 3, 4)


def test_once_one_was_waited_for_in_vain_no_other_is(
    label_studio: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "LONGEST_S", 0.0)
    label_studio.routes["/data/upload/1/0.png"] = reply(status=502)
    label_studio.routes["/data/upload/1/1.png"] = reply(status=502)
    images = fetched(label_studio, tmp_path, tasks=2)
    with pytest.raises(ImageError, match="answered with status 502"):
        images[0]
    once = len(label_studio.requests)
    monkeypatch.setattr(retry, "LONGEST_S", 600.0)
    with pytest.raises(ImageError, match="answered with status 502"):
        images.where(lambda item: item.task_id == 1)[0]
    assert len(label_studio.requests) == 2 * once


def test_one_that_is_gone_is_not_waited_for(label_studio: Loopback, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="has no such image"):
        fetched(label_studio, tmp_path)[0]
    assert len(label_studio.requests) == 1


def test_who_waits_hears_that_the_job_is_to_stop(label_studio: Loopback, tmp_path: Path) -> None:
    label_studio.routes["/data/upload/1/0.png"] = reply(status=502)
    waiting = Patience(stop=lambda: True)
    with pytest.raises(Stopped):
        fetched(label_studio, tmp_path, waiting=waiting)[0]
