"""Near-duplicates: queued once, and on one side of the split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sqlalchemy import select
from support.offline import (
    FakeLabelStudio,
    add_project,
    add_round,
    add_tasks,
    add_version,
    make_services,
    make_work,
)
from torch.nn import functional

from cdal.backend.annotations.choices import ChoiceTruth
from cdal.backend.loop import select as select_job
from cdal.backend.loop.near_duplicates import ROWS_AT_ONCE, originals_of
from cdal.backend.loop.pool_scores import Scores
from cdal.backend.loop.split import position, split
from cdal.backend.loop.training_images import LabelledImage, TrainingImages
from cdal.backend.store.tables import Pick


def directions(*degrees: float) -> torch.Tensor:
    """Features that differ by these angles; a similarity of 0.97 is 14 degrees, of 0.99 is 8."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_an_image_repeats_the_first_similar_one() -> None:
    assert originals_of(directions(0, 40, 5, 43, 90)) == [None, None, 0, 1, None]
    assert originals_of(5 * directions(0, 0)) == [None, 0]


def test_a_slow_change_does_not_make_all_images_the_same() -> None:
    assert originals_of(directions(0, 7, 25, 32)) == [None, 0, None, 2]
    assert originals_of(directions(0, 7.9, 15)) == [None, 0, None]


def test_images_that_are_known_come_before_all_of_them() -> None:
    assert originals_of(directions(3, 60), directions(60, 0, 60)) == [1, 0]
    assert originals_of(directions(3, 60), directions(3)[:0]) == [None, None]


def test_features_of_nothing_are_like_nothing() -> None:
    assert originals_of(torch.zeros(3, 4)) == [None, None, None]


def test_many_images_are_compared_part_by_part() -> None:
    kinds = torch.arange(ROWS_AT_ONCE + 3) % (ROWS_AT_ONCE + 1)
    found = originals_of(functional.one_hot(kinds).float())
    assert found[: ROWS_AT_ONCE + 1] == [None] * (ROWS_AT_ONCE + 1)
    assert found[-2:] == [0, 1]


def test_they_come_last_in_the_queue_unless_it_is_random(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    client = FakeLabelStudio()
    client.add_tasks(range(1, 8))
    client.label(1)
    add_tasks(services, project, [1], annotations=1)
    add_tasks(services, project, range(2, 8))
    version = add_version(services, project)
    # By entropy the order is 2, 3, 4, ...; 3 looks like 2, and 4 like what is labelled.
    degrees = {1: 0.0, 2: 40.0, 3: 42.0, 4: 3.0, 5: 80.0, 6: 120.0, 7: 160.0}
    likely = torch.tensor([0.9, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75])
    probabilities = torch.stack([likely, 1 - likely], 1)
    entropy = torch.special.entr(probabilities).sum(1)
    Scores(
        task_ids=torch.tensor(list(degrees)),
        probabilities=probabilities,
        uncertainties=torch.stack([entropy] * 3, 1),
        features=directions(*degrees.values()),
        mixtures=probabilities[:, None],
        present=torch.ones(7, 1, dtype=torch.bool),
        region_counts=torch.ones(7, 2, dtype=torch.int64),
    ).save(services.config.scores_folder(project.id, version.number))

    def ranked(selector: str) -> list[tuple[int, Any]]:
        made = add_round(
            services, project, [], "selecting", selector=selector, model_version_id=version.id
        )
        settings = {"selector": selector, "budget": 2, "reserve": 2}
        work = make_work(services, project, client, "select", **settings)
        select_job.run(work)
        services.jobs.finish(work.job.id, "done")
        with services.store.reading() as session:
            rows = session.scalars(select(Pick).filter_by(round_id=made.id).order_by(Pick.rank))
            return [(row.task_id, row.reason.get("near_duplicate_of")) for row in rows]

    wanted = [(2, None), (5, None), (6, None), (7, None), (3, 2), (4, 1)]
    assert ranked("entropy") == wanted
    assert {repeated for _, repeated in ranked("random")} == {None}


def test_they_are_on_one_side_of_the_split() -> None:
    def image(number: int, content: int, twin: int) -> LabelledImage:
        label = ("cat", "dog")[number % 2]
        truth = ChoiceTruth(label, number % 2)
        return LabelledImage(number, "", truth, content.to_bytes(16), twin.to_bytes(16))

    low, high = 2**120, 2**127 + 2**126
    assert position(low.to_bytes(16)) < 0.2 < position(high.to_bytes(16))
    items = [
        image(1, low, low),
        image(2, high, low),  # a near-duplicate of the first
        image(3, high + 1, high + 1),
        image(4, low + 1, high + 1),  # a near-duplicate of one that is learnt from
        image(5, high + 2, high + 2),
        image(6, high + 3, high + 3),
    ]
    images = TrainingImages(None, items)  # type: ignore[arg-type]
    train, held_out = split(images, 0.2)
    assert [item.task_id for item in held_out.items] == [1, 2]
    assert [item.task_id for item in train.items] == [3, 4, 5, 6]
    # Nothing is held out if its near-duplicate was learnt from before.
    assert not split(images, 0.2, [high.to_bytes(16)])[1].items
