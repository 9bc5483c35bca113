"""A project whose network tells touching objects apart, from labels to the queue; no server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select
from support.annotated import config_of, png_of, region
from support.offline import FakeLabelStudio, add_project, make_services, make_work
from support.patterned import as_address
from support.touching import Pairs, make_mask_rcnn_small

from cdal.backend.label_studio.data import ProjectInfo, TaskInfo
from cdal.backend.loop import train
from cdal.backend.loop.score import run as score
from cdal.backend.project_config import ProjectConfig, tells_objects_apart
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.tables import ModelVersion, Prediction

TAG = "BitmaskLabels"
CONFIG = config_of(TAG, ("disc", "square"))
SIDE = 64


def labelled(index: int) -> tuple[str, list[dict[str, Any]]]:
    """An image of two touching objects, and a bitmask of each."""
    image, (classes, numbers) = Pairs(5, SIDE).examples[index]
    regions = [
        region(
            TAG,
            {
                "imageDataURL": png_of((numbers == number).numpy() * np.uint8(255)),
                "bitmasklabels": [("disc", "square")[int(classes[numbers == number][0])]],
            },
            (SIDE, SIDE),
        )
        for number in (1, 2)
    ]
    return as_address(Image.fromarray(image.permute(1, 2, 0).numpy())), regions


@pytest.mark.slow
def test_objects_are_learnt_found_and_compared_with_a_network_that_knows_classes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_mask_rcnn_small(monkeypatch)
    services = make_services(tmp_path)
    project = add_project(services, labeling_config=CONFIG)
    client = FakeLabelStudio(info=ProjectInfo("Pairs", CONFIG, "", ""))
    for task_id in range(1, 6):
        image, regions = labelled(task_id - 1)
        known = task_id <= 4
        client.known[task_id] = TaskInfo(
            task_id, {"image": image}, int(known), 0, "2026-01-01T00:00:00Z"
        )
        if known:
            client.given[task_id] = [{"id": task_id, "result": regions, "was_cancelled": False}]
    short = {"image_size": SIDE, "epochs": 1, "min_labels": 2, "held_out": 0.5, "tolerance": 1.0}
    networks = ("lraspp_mobilenet_v3_large", "maskrcnn_resnet50_fpn")
    for network in networks:
        work = make_work(
            services, project, client, "train", **short, network=network, pretrained=False
        )
        train.run(work)
        services.jobs.finish(work.job.id, "done")
    score(make_work(services, project, client, "score"))

    with services.store.reading() as session:
        versions = list(session.scalars(select(ModelVersion).order_by(ModelVersion.number)))
        found = list(session.scalars(select(Prediction)))
    assert [version.architecture for version in versions] == [*networks]
    assert [version.metrics["main_name"] for version in versions] == ["miou", "miou"]
    assert "mask_map_50" in versions[1].metrics["values"]
    assert "before it" in versions[1].verdict
    assert versions[1].serves
    assert [one.task_id for one in found if "objects" in one.finding] == [*client.known]


@pytest.mark.parametrize(
    ("apart", "settings"),
    [
        (True, {"split_regions": "touching"}),
        (False, {"split_regions": True}),
        (False, {}),
        (False, {"split_regions": "touching", "unlabelled": "ignore"}),
        (False, {"split_regions": "touching", "pretrained": False}),
        (False, {"split_regions": "touching", "weights": "own.safetensors"}),
    ],
)
def test_full_training_tells_objects_apart_where_touching_ones_should_be(
    apart: bool, settings: dict[str, Any]
) -> None:
    control = ProjectConfig.parse(CONFIG, None).control
    assert tells_objects_apart(control, ProjectSettings.parse(settings)) is apart
