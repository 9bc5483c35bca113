from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.colours import Colours, small_network

from cdal.models import (
    ClassificationNetwork,
    FitReport,
    ModelError,
    choose_network,
    default_architecture,
    load_network,
    make_network,
)
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.classification.architectures import CLASSIFIERS, ClassifierEntry

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "image_size", "name"),
    [
        ("cpu", None, "mobilenet_v3_small"),
        ("cpu", 32, "resnet18"),
        ("cpu", 64, "mobilenet_v3_small"),
        ("cpu", 128, "mobilenet_v3_small"),
        ("cuda", 32, "resnet18"),
        ("cuda", 224, "resnet18"),
    ],
)
def test_the_default_suits_the_device_and_the_images(
    device: str, image_size: int | None, name: str
) -> None:
    assert default_architecture("classification", torch.device(device), image_size) == name


@pytest.mark.parametrize(
    ("sizes", "image_size", "chosen"),
    [
        ([(100, 90)], None, ("mobilenet_v3_small", 96)),
        ([(100, 90)], 64, ("mobilenet_v3_small", 64)),
        ([(32, 32)], None, ("resnet18", 32)),
    ],
)
def test_in_full_training_the_size_follows_the_images_unless_given(
    sizes: list[tuple[int, int]], image_size: int | None, chosen: tuple[str, int]
) -> None:
    found = choose_network("classification", CPU, sizes, image_size=image_size, training="full")
    assert found == chosen


@pytest.mark.parametrize(
    ("task", "side"), [("classification", 160), ("segmentation", 480), ("detection", 480)]
)
def test_a_head_on_the_default_backbone_sees_images_of_one_size(task: str, side: int) -> None:
    assert choose_network(task, CPU, [(32, 32)]) == (DEFAULT_BACKBONE, side)
    assert choose_network(task, CPU, image_size=100) == (DEFAULT_BACKBONE, 96)


def test_a_head_is_the_default() -> None:
    network = make_network(classes=("a", "b"))
    assert network.manifest.architecture == DEFAULT_BACKBONE
    assert network.manifest.pretrained


def test_a_network_that_accepts_one_size_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ClassifierEntry("vgg16", image_size=224, head="classifier.6")
    monkeypatch.setitem(CLASSIFIERS, "vgg16", entry)
    assert choose_network("classification", CPU, [(32, 32)], "vgg16") == ("vgg16", 224)
    with pytest.raises(ModelError, match=r"vgg16 .*224, not 64"):
        choose_network("classification", CPU, (), "vgg16", 64)


def test_without_pretrained_weights_the_default_is_a_network_that_learns_from_scratch() -> None:
    network = make_network(classes=("a", "b"), pretrained=False)
    assert network.manifest.architecture == "mobilenet_v3_small"
    assert network.manifest.image_size == 128


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "poetry"}, '"poetry".*classification, multilabel, segmentation, detection'),
        ({"architecture": "alexnet"}, '"alexnet".*mobilenet_v3_small, .*resnet18'),
        ({"classes": ()}, "at least one class"),
        ({"image_size": 0}, "image_size must be at least 32; it is 0"),
    ],
)
def test_refuses(arguments: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"classes": ("a", "b"), "pretrained": False} | arguments
    with pytest.raises(ModelError, match=message):
        make_network(**settings)


def test_weights_depend_on_the_seed_and_not_on_the_process() -> None:
    before = torch.get_rng_state()
    first, second, other = small_network(seed=1), small_network(seed=1), small_network(seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    batch = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(first.predict(batch).features, second.predict(batch).features)
    assert not torch.equal(first.predict(batch).features, other.predict(batch).features)


@pytest.fixture(scope="module")
def folder(
    trained: tuple[ClassificationNetwork, FitReport], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("networks") / "version"
    trained[0].save(folder)
    return folder


class TestLoadWithOtherClasses:
    """Renaming, adding, removing and reordering labels between trainings."""

    def test_reordered(self, folder: Path) -> None:
        network = load_network(folder, CPU, classes=("blue", "red", "green"))
        data = Colours([2, 0, 1] * 5, seed=1)
        data.targets = [0, 1, 2] * 5
        assert network.evaluate(data).main >= 0.9

    def test_removed(self, folder: Path) -> None:
        network = load_network(folder, CPU, classes=("green", "blue"))
        data = Colours([1, 2] * 5, seed=1)
        data.targets = [0, 1] * 5
        assert network.evaluate(data).main >= 0.9

    def test_added(self, folder: Path) -> None:
        network = load_network(folder, CPU, classes=("red", "green", "blue", "yellow"))
        assert network.evaluate(Colours([0, 1, 2] * 5, seed=1)).main >= 0.9
        assert network.manifest.classes == ("red", "green", "blue", "yellow")

    def test_all_new(self, folder: Path) -> None:
        network = load_network(folder, CPU, classes=("one", "two"))
        prediction = network.predict(torch.zeros((1, 3, 32, 32), dtype=torch.uint8))
        assert isinstance(prediction.regions, torch.Tensor)
        assert prediction.regions.shape == (1, 2)

    def test_the_same(self, folder: Path) -> None:
        same = load_network(folder, CPU, classes=["red", "green", "blue"])
        assert same.manifest == load_network(folder, CPU).manifest
