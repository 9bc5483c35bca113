from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.colours import Colours, small_network
from torch import nn

from cdal.models import ARCHITECTURES, Recipe, fit, make_network
from cdal.models.classification.architectures import CLASSIFIERS, build_classifier
from cdal.models.classification.network import ClassificationPrediction

FEATURES = {
    "mobilenet_v3_small": 1024,
    "mobilenet_v3_large": 1280,
    "resnet18": 512,
    "resnet50": 2048,
    "vgg16": 4096,
    "vgg16_bn": 4096,
    "efficientnet_lite0": 1280,
}


@pytest.mark.parametrize("image_size", [32, 96])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES["classification"]))
def test_every_network_predicts(name: str, image_size: int) -> None:
    network = make_network(
        architecture=name, classes=("a", "b", "c"), image_size=image_size, pretrained=False
    )
    batch = torch.randint(0, 256, (2, 3, image_size, image_size), dtype=torch.uint8)
    prediction = network.predict(batch)
    assert isinstance(prediction, ClassificationPrediction)
    assert prediction.probabilities.shape == (2, 3)
    assert prediction.features.shape == (2, FEATURES[name])
    assert bool(prediction.features.isfinite().all())


def stem(module: nn.Module) -> tuple[int, ...]:
    convolution = module.get_submodule("conv1")
    assert isinstance(convolution, nn.Conv2d)
    return convolution.kernel_size


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_has_a_small_stem_for_small_images_only(name: str) -> None:
    assert stem(build_classifier(name, 32, pretrained=False)) == (3, 3)
    assert stem(build_classifier(name, 64, pretrained=False)) == (7, 7)


def test_pretrained_weights_keep_their_stem() -> None:
    assert stem(build_classifier("resnet18", 32, pretrained=True)) == (7, 7)


def test_running_statistics_adapt_in_a_short_training() -> None:
    network = build_classifier("mobilenet_v3_small", 32, pretrained=False)
    momenta = {layer.momentum for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert momenta == {0.1}


def test_vgg16_has_its_own_learning_rate() -> None:
    network = small_network(("red", "green"))  # in its place: the name decides
    network.manifest = replace(network.manifest, architecture="vgg16")
    plan = fit(network, Colours([0, 1]), None, Recipe(epochs=1)).plan
    assert plan.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("rate", "pretrained", "other"),
    [("learning_rate", False, "fine_tuning_rate"), ("fine_tuning_rate", True, "learning_rate")],
)
def test_an_architectures_rate_is_for_one_of_two_starts(
    monkeypatch: pytest.MonkeyPatch, rate: str, pretrained: bool, other: str
) -> None:
    entry = replace(CLASSIFIERS["mobilenet_v3_small"], **{rate: 1e-5})  # type: ignore[arg-type]
    monkeypatch.setitem(CLASSIFIERS, "mobilenet_v3_small", entry)  # type: ignore[misc]
    network, data = small_network(), Colours([0, 1, 2])

    def used(start: bool, recipe: Recipe) -> float:
        network.manifest = replace(network.manifest, pretrained=start)
        return fit(network, data, None, recipe).plan.learning_rate

    assert used(pretrained, Recipe(epochs=1)) == 1e-5
    assert used(pretrained, Recipe(epochs=1, learning_rate=1e-3)) == 1e-3
    assert used(not pretrained, Recipe(epochs=1)) == getattr(network.defaults, other)
