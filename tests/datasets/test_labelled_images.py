from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.drawn_files import annotation, make_folder, mask, picture

from cdal.datasets import DatasetError, ImageSet, LabelledImages, open_images
from cdal.models import Dataset
from cdal.models.predictions import BACKGROUND


@pytest.fixture
def folders(tmp_path: Path) -> ImageSet:
    return open_images(
        make_folder(tmp_path, {"train/cat/1.png": picture(3, 2), "test/dog/2.png": picture(1, 1)})
    )


@pytest.fixture
def masks(tmp_path: Path) -> ImageSet:
    files = {
        "classes.txt": b"road\ncar",
        "train/images/1.png": picture(3, 1),
        "train/masks/1.png": mask([[0, 1, 9]]),
    }
    return open_images(make_folder(tmp_path, files))


def test_an_image_and_its_target(folders: ImageSet) -> None:
    data: Dataset = LabelledImages(folders, folders.train)
    assert len(data) == 1
    image, target = data[0]
    assert (image.shape, image.dtype) == ((3, 2, 3), torch.uint8)
    assert int(target) == folders.classes.index("cat")


def test_classes_are_those_of_the_network(
    folders: ImageSet, masks: ImageSet, tmp_path: Path
) -> None:
    classes = ("dog", "mouse", "cat")
    assert int(LabelledImages(folders, folders.train, classes)[0][1]) == 2
    assert int(LabelledImages(folders, folders.test, classes)[0][1]) == 0
    target = LabelledImages(masks, masks.examples, ("car", "tree", "road"))[0][1]
    assert (target.tolist(), target.dtype) == ([[2, 0, 255]], torch.uint8)
    boxes = {
        "JPEGImages/1.jpg": picture(4, 4, "JPEG"),
        "Annotations/1.xml": annotation(("b", 1, 1, 2, 2), ("a", 3, 3, 4, 4)),
    }
    found = open_images(make_folder(tmp_path / "voc", boxes))
    target = LabelledImages(found, found.examples, ("b", "a"))[0][1]
    assert target.tolist() == [[0, 0, 2, 2, 0], [2, 2, 4, 4, 1]]


def test_pixels_without_a_class_are_background_if_the_network_has_one(masks: ImageSet) -> None:
    data = LabelledImages(masks, masks.examples, ("road", "car", BACKGROUND))
    assert data[0][1].tolist() == [[0, 1, 2]]


def test_a_network_that_lacks_a_class_is_refused(folders: ImageSet) -> None:
    with pytest.raises(DatasetError, match="lacks these classes: dog"):
        LabelledImages(folders, folders.test, ("cat", "mouse"))


def test_many_classes(tmp_path: Path) -> None:
    files = {f"train/{n:03}/1.png": picture(1, 1) for n in range(300)}
    images = open_images(make_folder(tmp_path, files | {"test/000/2.png": picture(1, 1)}))
    data = LabelledImages(images, images.train)
    assert [int(data[n][1]) for n in (0, 254, 255, 299)] == [0, 254, 255, 299]
