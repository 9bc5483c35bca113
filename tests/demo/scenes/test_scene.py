from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cdal.demo.scenes.scene import (
    CLASSES,
    SHARES,
    TYPICAL,
    TYPICAL_SHARE,
    Scene,
    draw_scene,
    hull,
)
from cdal.models import Recipe, fit, make_network

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed=0, index=index, size=32) for index in range(450)]


DIGEST = """
from cdal.demo.scenes.scene import draw_scene
from hashlib import sha256

def digest(seed, index):
    scene = draw_scene(seed, index)
    boxes = repr([(item.name, item.box) for item in scene.objects]).encode()
    return sha256(scene.image.tobytes() + scene.mask.tobytes() + boxes).hexdigest()
"""


def digest(seed: int, index: int) -> str:
    names: dict[str, Any] = {}
    exec(DIGEST, names)
    return str(names["digest"](seed, index))


def test_a_scene_is_the_same_in_another_process() -> None:
    program = DIGEST + "print(digest(3, 0), digest(3, 7))"
    other = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert other.stdout.split() == [digest(3, 0), digest(3, 7)]


def test_seed_and_index_make_different_scenes() -> None:
    drawn = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 10), (11, 0)]
    assert len({digest(seed, index) for seed, index in drawn}) == len(drawn)


@pytest.mark.parametrize("size", [32, 96, 130])
def test_shapes(size: int) -> None:
    scene = draw_scene(0, 0, size)
    assert scene.image.shape == (size, size, 3)
    assert scene.mask.shape == (size, size)
    assert scene.image.dtype == scene.mask.dtype == np.uint8


def test_hull_by_hand() -> None:
    mask = np.zeros((6, 8), np.bool_)
    mask[2, 3] = mask[4, 5] = True
    assert hull(mask) == (3, 2, 6, 5)


def test_boxes_are_the_hulls_of_the_masks(scenes: list[Scene]) -> None:
    for scene in scenes:
        for item in scene.objects:
            left, top, right, bottom = item.box
            rows, columns = np.nonzero(item.mask)
            assert (left, right) == (columns.min(), columns.max() + 1)
            assert (top, bottom) == (rows.min(), rows.max() + 1)


def test_the_mask_has_all_objects_without_overlap(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert sum(int(item.mask.sum()) for item in scene.objects) == np.count_nonzero(scene.mask)
        for item in scene.objects:
            assert np.all(scene.mask[item.mask] == CLASSES.index(item.name) + 1)


def test_the_main_object_is_the_first(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.objects[0].name == scene.label
        assert scene.objects[0].mask.mean() > 0.01
    alone = sum(len(scene.objects) == 1 for scene in scenes)
    assert 0.3 < alone / len(scenes) < 0.7


def test_the_mask_lies_on_the_object(scenes: list[Scene]) -> None:
    """Inside the mask of a cactus, the image is greener than around it."""
    greens = []
    for scene in scenes:
        if scene.label == "cactus" and scene.surroundings == "desert":
            pixels = scene.image[scene.objects[0].mask].mean(0)
            around = scene.image[scene.mask == 0].mean(0)
            greens.append(pixels[1] / pixels[0] > around[1] / around[0])
    assert len(greens) > 5
    assert all(greens)


def test_classes_have_their_frequencies(scenes: list[Scene]) -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    counts = Counter(scene.label for scene in scenes)
    for name in CLASSES:
        share = SHARES[name]
        deviation = (share * (1 - share) / len(scenes)) ** 0.5
        assert abs(counts[name] / len(scenes) - share) < 4 * deviation


def test_most_scenes_are_typical_and_the_others_use_all_surroundings(scenes: list[Scene]) -> None:
    typical = [scene for scene in scenes if scene.typical]
    assert all(scene.surroundings == TYPICAL[scene.label] for scene in typical)
    untypical = [scene for scene in scenes if not scene.typical]
    assert all(scene.surroundings != TYPICAL[scene.label] for scene in untypical)
    assert {scene.surroundings for scene in untypical} == set(TYPICAL.values())
    assert abs(len(typical) / len(scenes) - TYPICAL_SHARE) < 0.08


class Scenes:
    def __init__(self, scenes: list[Scene]) -> None:
        self._scenes = scenes

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        scene = self._scenes[index]
        image = torch.from_numpy(scene.image).permute(2, 0, 1).contiguous()
        return image, torch.tensor(CLASSES.index(scene.label))


def test_scenes_can_be_learnt_but_not_perfectly(scenes: list[Scene]) -> None:
    network = make_network(
        architecture="mobilenet_v3_small", classes=CLASSES, image_size=32, pretrained=False
    )
    fit(network, Scenes(scenes[:300]), None, Recipe(epochs=20))
    metrics = network.evaluate(Scenes(scenes[300:]))
    assert 0.45 < metrics.main < 0.98  # always guessing the most frequent class gives 0.22
