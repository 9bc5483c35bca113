"""Drawn scenes as files, read like any other labelled images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cdal.datasets import TASKS, Example, open_images
from cdal.demo.scenes.files import SIZES, write_scenes
from cdal.demo.scenes.scene import CLASSES, Scene, draw_scene

SEED = 5
COUNT = 12


def scene_of(example: Example) -> Scene:
    return draw_scene(SEED, int(Path(example.name).stem), 48)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_written_scenes_are_read_back(tmp_path: Path, task: str) -> None:
    shares: list[float] = []
    write_scenes(tmp_path, task, COUNT, SEED, size=48, progress=shares.append)
    assert shares[-1] == 1.0
    images = open_images(tmp_path, task)
    assert set(images.classes) <= set(CLASSES)
    assert (len(images.train), len(images.test)) == (9, 3)
    assert sorted(int(Path(e.name).stem) for e in images.test) == [9, 10, 11]
    for example in images.examples:
        scene = scene_of(example)
        assert np.array_equal(example.pixels().permute(1, 2, 0).numpy(), scene.image)
        target = example.target()
        if task == "classification":
            assert images.classes[int(target)] == scene.label
        elif task == "segmentation":
            mask = torch.from_numpy(scene.mask).int()
            assert torch.equal(target[mask > 0].int(), mask[mask > 0] - 1)
            assert (target[mask == 0] == 255).all()
        else:
            expected = [[*item.box, images.classes.index(item.name)] for item in scene.objects]
            assert target.tolist() == expected


def test_each_task_has_its_size(tmp_path: Path) -> None:
    tasks = (*TASKS, "multilabel")
    for task in tasks:
        write_scenes(tmp_path / task, task, 2, test_share=0.5)
        (file, *_) = (tmp_path / task).rglob("0000.png")
        assert file.is_file()
    assert set(SIZES) == set(tasks)
    assert (tmp_path / "segmentation" / "classes.txt").read_text().split() == list(CLASSES)
