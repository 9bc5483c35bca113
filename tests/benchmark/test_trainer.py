from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from support.recorded import SETTINGS

from cdal.benchmark.trainer import Trainer
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.classification.logistic import ITERATIONS


def work(task: str, network: str, labelled: int, **more: Any) -> float:
    """The estimated work of a step with 50 images in the pool and 10 test images."""
    loaded: Any = SimpleNamespace(pool=range(50), test=range(10), device=torch.device("cpu"))
    settings = replace(SETTINGS, task=task, network=network, image_size=64, **more)
    return Trainer(settings, loaded).work(labelled)


def test_full_training_sees_its_images_in_each_epoch() -> None:
    assert work("classification", "resnet18", 20, epochs=5) == 3 * 20 * 5 + 60


def test_logistic_regression_sees_the_features_in_each_iteration() -> None:
    assert work("classification", DEFAULT_BACKBONE, 20) == 3 * 20 * ITERATIONS + 60


def test_dense_heads_see_as_many_features_however_many_images_there_are() -> None:
    few, many = (work("detection", DEFAULT_BACKBONE, labelled) - 60 for labelled in (40, 200))
    assert few == many
