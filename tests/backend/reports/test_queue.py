"""Why an image was picked: its mixtures beside those of the nearest one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.offline import make_services
from support.pooled import pooled_project

from cdal.backend.loop.pool_scores import Scores
from cdal.backend.reports.queue import why_picked

CLASSES = ["cat", "dog", "owl"]


def by_class(folder: Path) -> None:
    """Task 1 says "cat" somewhere and "dog" elsewhere, task 2 only "cat"."""
    Scores(
        task_ids=torch.tensor([1, 2]),
        probabilities=torch.full((2, 3), 1 / 3),
        uncertainties=torch.ones(2, 3),
        features=torch.ones(2, 2),
        mixtures=torch.tensor(
            [
                [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0, 0, 0]],
                [[0.9, 0.05, 0.05], [0, 0, 0], [0, 0, 0]],
            ]
        ),
        present=torch.tensor([[True, True, False], [True, False, False]]),
        region_counts=torch.tensor([[5, 9, 0], [4, 0, 0]]),
    ).save(folder)


def test_the_mixture_of_the_class_that_made_the_distance(tmp_path: Path) -> None:
    by_class(tmp_path)
    reason = {"nearest": 2, "classes": {"0": 0.8, "1": 0.2}}
    why = why_picked(tmp_path, CLASSES, {1: reason})[1]
    assert (why.nearest, why.region) == (2, "cat")
    assert why.shares == {"cat": 0.8, "dog": 0.2}
    assert [bar.name for bar in why.bars] == ["cat", "dog", "owl"]
    assert [bar.here for bar in why.bars] == pytest.approx([0.6, 0.3, 0.1])
    assert [bar.there for bar in why.bars] == pytest.approx([0.9, 0.05, 0.05])
    assert [bar.name for bar in why.telling] == ["cat", "dog"]


def test_a_class_that_the_nearest_image_has_not(tmp_path: Path) -> None:
    by_class(tmp_path)
    reason = {"nearest": 2, "classes": {"1": 0.9}}
    why = why_picked(tmp_path, CLASSES, {1: reason})[1]
    assert why.region == "dog"
    assert [bar.there for bar in why.bars] == [None, None, None]


def test_a_class_that_the_image_has_not_is_no_mixture_of_it(tmp_path: Path) -> None:
    """Of two images, the one without a class is far from the other because of it."""
    by_class(tmp_path)
    reason = {"nearest": 1, "classes": {"1": 0.9, "0": 0.1}}
    assert why_picked(tmp_path, CLASSES, {2: reason})[2].region == "cat"


def test_without_a_nearest_image_the_most_frequent_class(tmp_path: Path) -> None:
    by_class(tmp_path)
    why = why_picked(tmp_path, CLASSES, {1: {}})[1]
    assert (why.nearest, why.region) == (None, "dog")


def test_one_mixture_of_the_whole_image(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project, _ = pooled_project(services)
    folder = services.config.scores_folder(project.id, 1)
    why = why_picked(folder, ["cat", "dog"], {3: {"nearest": 1, "classes": {"1": 0.6}}})[3]
    assert why.region is None
    assert [(bar.name, round(bar.here, 3)) for bar in why.bars] == [("dog", 0.9), ("cat", 0.1)]


def test_the_background_of_boxes_has_a_name(tmp_path: Path) -> None:
    by_class(tmp_path)
    reason = {"nearest": 2, "classes": {"2": 1.0}}
    why = why_picked(tmp_path, CLASSES[:2], {1: reason})[1]
    assert why.shares == {"(background)": 1.0}
    assert [bar.name for bar in why.bars] == ["dog", "cat", "(background)"]


def test_nothing_was_scored(tmp_path: Path) -> None:
    assert why_picked(tmp_path, CLASSES, {1: {}}) == {}
