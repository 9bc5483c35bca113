"""What is trained on, what is measured on, and which model serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from offline import FakeLabelStudio, add_project, add_version, make_services, make_work

from cdal.backend.dataset import LabelledImage, TaskImages
from cdal.backend.images import AllowedHosts, ImageSource, ImageStore
from cdal.backend.settings import ProjectSettings
from cdal.backend.work.train import (
    _kept_images_held_out,
    is_held_out,
    judge,
    read_labels,
    recipe_of,
    split,
    too_few,
)
from cdal.models import Metrics


def metrics(value: float, images: int = 20) -> Metrics:
    return Metrics("accuracy", {"accuracy": value}, {}, (), images)


# The held-out images.


def test_whether_an_image_is_held_out_is_fixed_for_good() -> None:
    """Were the split to change, images that were trained on would be measured on.

    `printf 8 | sha256sum` begins with 2c62, and 0x2c62 / 0x10000 is 0.17.
    """
    assert [task_id for task_id in range(1, 41) if is_held_out(task_id, 0.2)] == [8, 9, 39]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_share_is_about_right(share: float) -> None:
    count = sum(is_held_out(task_id, share) for task_id in range(10_000))
    assert abs(count / 10_000 - share) < 4 * (share * (1 - share) / 10_000) ** 0.5


def test_a_larger_share_only_adds_images() -> None:
    small = {n for n in range(1000) if is_held_out(n, 0.1)}
    assert small < {n for n in range(1000) if is_held_out(n, 0.3)}


def images(tmp_path: Path, targets: dict[int, int]) -> TaskImages:
    store = ImageStore(tmp_path, 0, AllowedHosts.parse("public"))
    source = ImageSource("http://host", dict)
    return TaskImages(
        store, source, [LabelledImage(task_id, "", target) for task_id, target in targets.items()]
    )


def test_the_split_follows_the_task_ids(tmp_path: Path) -> None:
    train, held_out = split(images(tmp_path, {n: n % 2 for n in range(1, 41)}), 0.2)
    assert [item.task_id for item in held_out.items] == [8, 9, 39]
    assert len(train) == 37


def test_nothing_is_held_out_where_one_class_alone_would_be_left(tmp_path: Path) -> None:
    train, held_out = split(images(tmp_path, {1: 0, 2: 0, 8: 1, 9: 1}), 0.2)
    assert (len(train), len(held_out)) == (4, 0)


# Which model serves.


def test_the_first_version_serves() -> None:
    verdict = judge(metrics(0.1), None, 0.02)
    assert verdict.promoted
    assert verdict.why == (
        "serves, as the first to be measured; accuracy 0.100 on 20 held-out images"
    )


def test_a_better_one_serves() -> None:
    verdict = judge(metrics(0.8), metrics(0.7), 0.02)
    assert verdict.promoted
    assert verdict.why == "serves; accuracy 0.800 on 20 held-out images, before it 0.700"


def test_a_worse_one_is_kept_and_does_not_serve() -> None:
    verdict = judge(metrics(0.6), metrics(0.7), 0.02)
    assert not verdict.promoted
    assert verdict.why == (
        "kept but does not serve, since it is worse: accuracy 0.600 on 20 held-out images, before "
        "it 0.700"
    )


@pytest.mark.parametrize(
    ("new", "tolerance", "promoted"),
    [
        (0.5, 0.25, True),  # worse by the tolerance exactly (all three are exact in binary)
        (0.4999, 0.25, False),
        (0.75, 0.0, True),
        (0.7499, 0.0, False),
        (0.0, 1.0, True),
    ],
)
def test_the_edge_of_the_tolerance(new: float, tolerance: float, promoted: bool) -> None:
    assert judge(metrics(new), metrics(0.75), tolerance).promoted == promoted


def test_without_held_out_images_it_serves_and_says_that_it_was_not_measured() -> None:
    verdict = judge(None, None, 0.02)
    assert verdict.promoted
    assert "no held-out images yet" in verdict.why


@pytest.mark.parametrize(("measured", "fair"), [(True, True), (False, False)])
def test_a_model_that_was_trained_on_every_image_is_not_measured_on_them(
    tmp_path: Path, measured: bool, fair: bool
) -> None:
    """It would look better than any that was not."""
    services = make_services(tmp_path)
    project = add_project(services)
    assert not _kept_images_held_out(make_work(services, project, FakeLabelStudio(), "train"))
    version = add_version(services, project)
    if not measured:
        with services.store.transaction() as session:
            session.merge(version).metrics = {}
    work = make_work(services, project, FakeLabelStudio(), "train")
    assert _kept_images_held_out(work) == fair


# Labels.


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([], "0 of at least 3 labels are there."),
        (["cat", "dog"], "2 of at least 3 labels are there."),
        (["cat"] * 3, "All 3 labels are of one class; a model needs two."),
        (["cat", "cat", "dog"], None),
    ],
)
def test_too_few(labels: list[str], why: str | None) -> None:
    assert too_few(labels, 3) == why


def annotation(label: str, at: str = "1", **more: Any) -> dict[str, Any]:
    choice = {"from_name": "label", "type": "choices", "value": {"choices": [label]}}
    return {"result": [choice], "updated_at": at, **more}


def test_the_labels_that_annotations_give(tmp_path: Path) -> None:
    """Drafts are not among annotations; that Label Studio keeps them apart is in test_loop.py."""
    services = make_services(tmp_path)
    label_studio = FakeLabelStudio()
    label_studio.given = {
        1: [annotation("cat", "1"), annotation("dog", "2")],
        2: [annotation("cat", "1", ground_truth=True), annotation("dog", "2")],
        3: [annotation("cat", was_cancelled=True)],
        4: [annotation("cat", "1"), annotation("dog", "2", was_cancelled=True)],
        5: [annotation("wolf")],
        6: [],
    }
    work = make_work(services, add_project(services), label_studio, "train")
    assert read_labels(work) == {1: "dog", 2: "cat", 4: "cat"}


def test_the_recipe_is_that_of_the_settings() -> None:
    settings = ProjectSettings(epochs=7, batch_size=16, learning_rate=0.01, seed=3)
    recipe = recipe_of(settings)
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.seed) == (7, 16, 0.01, 3)


def test_prepared_images_are_shared_by_the_parts_of_a_split(tmp_path: Path) -> None:
    pixels = {n: torch.full((3, 2, 2), n, dtype=torch.uint8) for n in range(1, 41)}
    store = ImageStore(tmp_path, 0, AllowedHosts.parse("public"))
    items = [LabelledImage(n, "", n % 2) for n in pixels]
    data = TaskImages(store, ImageSource("http://host", dict), items, pixels)
    _, held_out = split(data, 0.2)
    assert held_out[1][0] is pixels[9]
    assert held_out[1][1] == 1
