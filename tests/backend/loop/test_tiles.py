"""A project whose images are seen in tiles, from the training to the scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select
from support.offline import FakeLabelStudio, add_project, make_services, make_work
from support.patterned import as_address

from cdal.backend.annotations.packing import unpack
from cdal.backend.label_studio.data import ProjectInfo, TaskInfo
from cdal.backend.loop import score, train
from cdal.backend.store.tables import ModelVersion, Prediction, Project, Round
from cdal.models import Segmentation

WIDTH, HEIGHT = 300, 200
CORNERS = [[40, 40], [50, 40], [50, 55], [40, 55]]
CONFIG = (
    '<View><Image name="image" value="$image"/><PolygonLabels name="label" toName="image">'
    '<Label value="cat"/><Label value="dog"/></PolygonLabels></View>'
)
REGION = {
    "from_name": "label",
    "to_name": "image",
    "type": "polygonlabels",
    "original_width": WIDTH,
    "original_height": HEIGHT,
    "value": {"points": CORNERS, "closed": True, "polygonlabels": ["cat"]},
}


def scene(number: int) -> str:
    """A black object on a coarse pattern, which the number decides: they are no duplicates."""
    draws = np.random.default_rng(number)
    coarse = Image.fromarray(draws.integers(60, 256, (6, 6, 3), dtype=np.uint8))
    image = coarse.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
    image.paste("black", (120, 80, 150, 110))
    return as_address(image)


@pytest.mark.slow
def test_a_model_that_sees_tiles_follows_one_that_does_not(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services, labeling_config=CONFIG)
    client = FakeLabelStudio(info=ProjectInfo("Pets", CONFIG, "", ""))
    for task_id in range(1, 8):
        data = {"image": scene(task_id)}
        labelled = int(task_id < 7)
        client.known[task_id] = TaskInfo(task_id, data, labelled, 0, "2026-01-01T00:00:00Z")
        if labelled:
            client.given[task_id] = [{"result": [REGION], "was_cancelled": False}]
    settings: dict[str, Any] = {"min_labels": 2, "epochs": 1, "held_out": 0.4, "image_size": 128}
    for version, more in ((1, {}), (2, {"tile": 128})):
        work = make_work(services, project, client, "train", **settings, **more)
        assert train.run(work).startswith(f"model version {version}")
        services.jobs.finish(work.job.id, "done")
    with services.store.transaction() as session:
        second = session.scalars(select(ModelVersion).filter_by(number=2)).one()
        assert "before it" in second.verdict  # measured on the same images
        # Whichever of the two is better.
        session.get_one(Project, project.id).serving_version_id = second.id
        newest = session.scalars(select(Round).order_by(Round.id.desc()).limit(1)).one()
        newest.model_version_id = second.id
    work = make_work(services, project, client, "score", **settings, tile=128)
    assert score.run(work) == "7 images scored"
    with services.store.reading() as session:
        finding, size = unpack(session.get_one(Prediction, (second.id, 7)).finding)
    assert size == (HEIGHT, WIDTH)
    assert isinstance(finding, Segmentation)
    assert finding.labels.shape == (HEIGHT, WIDTH)  # and not that of the network's input
    kept = {folder.name for folder in (tmp_path / "features").iterdir()}
    assert any(name.endswith("-tile-128") for name in kept)
