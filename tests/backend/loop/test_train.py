"""Which model serves, and which network is trained."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sqlalchemy import delete, select
from support.offline import (
    FakeLabelStudio,
    add_project,
    add_version,
    make_services,
    make_work,
    serve,
    serving_id,
)
from support.patterned import as_address, patterned

from cdal.backend.annotations.labeling_config import served_control
from cdal.backend.errors import ImagesAwayError
from cdal.backend.label_studio.data import TaskInfo
from cdal.backend.loop import score, train
from cdal.backend.loop.changes import read_changes
from cdal.backend.loop.split import position
from cdal.backend.loop.train import (
    recipe_of,
    serving_model,
)
from cdal.backend.loop.version_images import VersionImages
from cdal.backend.loop.versions import OVERTAKEN, New, save
from cdal.backend.project_config import network_classes
from cdal.backend.services import Services
from cdal.backend.settings import ProjectSettings
from cdal.backend.store import tables
from cdal.backend.store.tables import ModelVersion, Prediction, Project, Round
from cdal.models import BACKGROUND, TaskNetwork, load_network, make_network

# Settings.


def test_the_recipe_is_that_of_the_settings() -> None:
    settings = ProjectSettings(epochs=7, batch_size=16, learning_rate=0.01, seed=3)
    recipe = recipe_of(settings)
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.seed) == (7, 16, 0.01, 3)


@pytest.mark.parametrize(
    ("tag", "unlabelled", "background"),
    [
        ("BrushLabels", "background", True),
        ("PolygonLabels", "background", True),
        ("BrushLabels", "ignore", False),
        ("RectangleLabels", "background", False),
        ("Choices", "background", False),
    ],
)
def test_what_has_no_label_is_a_class_where_pixels_are_classified(
    tag: str, unlabelled: Any, background: bool
) -> None:
    control = served_control(config(tag))
    classes = network_classes(control, ProjectSettings(unlabelled=unlabelled))
    assert classes == ("cat", "dog", *([BACKGROUND] if background else []))


def config(tag: str, labels: str = '<Label value="cat"/><Label value="dog"/>') -> str:
    if tag == "Choices":
        labels = labels.replace("<Label", "<Choice")
    return (
        f'<View><Image name="image" value="$image"/><{tag} name="label" toName="image">{labels}'
        f"</{tag}></View>"
    )


def served_by_cats_and_dogs(tmp_path: Path, labeling_config: str) -> TaskNetwork | None:
    """The network to fine-tune in a project that a network for cats and dogs serves."""
    services = make_services(tmp_path)
    project = add_project(services, labeling_config=labeling_config)
    version = add_version(services, project)
    network = make_network(
        architecture="mobilenet_v3_small",
        classes=("cat", "dog"),
        image_size=32,
        pretrained=False,
    )
    network.save(services.config.version_folder(project.id, version.number), "f")
    work = make_work(services, project, FakeLabelStudio(), "train")
    serving = serving_model(work, torch.device("cpu"))[1]
    return None if serving is None else serving.network


def test_a_renamed_label_is_known_by_its_former_name(tmp_path: Path) -> None:
    labels = '<Label value="dog"/><Label value="feline" predicted_values="tiger, cat"/>'
    network = served_by_cats_and_dogs(tmp_path, config("Choices", labels))
    assert network is not None
    assert network.classes == ("dog", "feline")
    before = make_network(
        architecture="mobilenet_v3_small", classes=("cat", "dog"), image_size=32, pretrained=False
    )
    head = before.module.get_submodule("head").state_dict()["weight"]
    now = network.module.get_submodule("head").state_dict()["weight"]
    assert torch.equal(now, head[[1, 0]])


@pytest.mark.parametrize("label", ['value="Cat"', 'value="Felis" alias="Cat"'])
def test_a_label_in_another_case_is_known_too(tmp_path: Path, label: str) -> None:
    network = served_by_cats_and_dogs(
        tmp_path, config("Choices", f'<Label value="dog"/><Label {label}/>')
    )
    assert network is not None
    assert network.classes == ("dog", "Cat")
    before = make_network(
        architecture="mobilenet_v3_small", classes=("cat", "dog"), image_size=32, pretrained=False
    )
    head = before.module.get_submodule("head").state_dict()["weight"]
    assert torch.equal(network.module.get_submodule("head").state_dict()["weight"], head[[1, 0]])


def test_a_model_of_another_task_is_not_gone_on_from(tmp_path: Path) -> None:
    assert served_by_cats_and_dogs(tmp_path, config("RectangleLabels")) is None


def new_version(project: Project) -> tuple[TaskNetwork, ModelVersion]:
    """A trained version that is not in the store yet."""
    network = make_network(
        task="classification",
        architecture="mobilenet_v3_small",
        classes=("cat", "dog"),
        image_size=32,
        device=torch.device("cpu"),
        pretrained=False,
    )
    version = ModelVersion(
        project_id=project.id,
        number=3,
        architecture="mobilenet_v3_small",
        classes=["cat", "dog"],
        fingerprint="f",
        labels=9,
        metrics={},
        promoted=True,
        verdict="serves",
        seconds=1.0,
    )
    return network, version


def test_one_that_is_trained_after_all_weights_were_lost_serves(tmp_path: Path) -> None:
    """The training itself found the damage, and no model served meanwhile."""
    services = make_services(tmp_path)
    project = add_project(services)
    add_version(services, project)
    work = make_work(services, project, FakeLabelStudio(), "train")
    with services.store.transaction() as session:
        serve(session, None)
    network, new = new_version(project)
    made = New(work.control, network, new, None, VersionImages(frozenset()), None)
    save(work, [made])
    assert (new.promoted, new.verdict) == (True, "serves")
    with services.store.reading() as session:
        assert serving_id(session) == new.id


def test_one_that_was_overtaken_by_a_rollback_does_not_serve(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    first, second = (add_version(services, project, number=number) for number in (1, 2))
    work = make_work(services, project, FakeLabelStudio(), "train")
    with services.store.transaction() as session:  # while it trains
        serve(session, first.id)
    network, new = new_version(project)
    made = New(work.control, network, new, None, VersionImages(frozenset()), second.id)
    save(work, [made])
    assert (new.promoted, new.verdict) == (False, OVERTAKEN)
    with services.store.reading() as session:
        assert serving_id(session) == first.id
        begun = session.scalars(select(Round)).one()
    assert begun.model_version_id == first.id != second.id


def test_two_that_are_saved_at_the_same_time_get_different_numbers(tmp_path: Path) -> None:
    """As a head and a whole network may be, by two workers."""
    services = make_services(tmp_path)
    project = add_project(services)
    work = make_work(services, project, FakeLabelStudio(), "train")
    network, new = new_version(project)

    class Overtaken:
        """Another worker saves a version while this one is written."""

        def save(self, folder: Path, fingerprint: str) -> None:
            network.save(folder, fingerprint)
            add_version(services, project, number=1)
            network.save(services.config.version_folder(project.id, 1), "the other's")

    made = New(work.control, Overtaken(), new, None, VersionImages(frozenset()), None)  # type: ignore[arg-type]
    save(work, [made])
    assert new.number == 2
    versions = services.config.version_folder(project.id, 1).parent
    assert sorted(folder.name for folder in versions.iterdir()) == ["1", "2"]
    networks = [load_network(versions / name, torch.device("cpu")) for name in ("1", "2")]
    written = [saved.manifest.data_fingerprint for saved in networks]
    assert written == ["the other's", new.fingerprint]


def coloured(red: int) -> str:
    """An image that needs no server."""
    file = BytesIO()
    Image.new("RGB", (40, 30), (red, 0, 0)).save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


@pytest.mark.slow
def test_a_training_is_repeated_only_where_it_would_come_to_something_else(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    client = FakeLabelStudio()
    for task_id in range(1, 7):
        data = {"image": coloured(40 * task_id)}
        client.known[task_id] = TaskInfo(task_id, data, 1, 0, "2026-01-01T00:00:00Z")
        value = {"choices": ["dog" if task_id % 2 else "cat"]}
        given = {"from_name": "label", "to_name": "image", "type": "choices", "value": value}
        client.given[task_id] = [{"result": [given], "was_cancelled": False}]

    def outcome(**more: Any) -> str:
        short = {"network": "mobilenet_v3_small", "image_size": 32, "epochs": 1, "min_labels": 2}
        work = make_work(services, project, client, "train", **short, **more)
        read_changes(work)  # as the sync before it does
        said = train.run(work)
        services.jobs.finish(work.job.id, "done")
        return said[: len("model version 1")]

    def roll_back() -> None:
        with services.store.transaction() as session:
            first = session.scalars(select(ModelVersion).filter_by(number=1)).one()
            serve(session, first.id)

    assert outcome() == "model version 1"
    assert outcome() == "not trained: no"
    assert outcome(warm_start=False) == "model version 2"
    assert outcome(warm_start=False) == "not trained: no"
    client.known[1] = replace(client.known[1], data={"image": coloured(250)})
    assert outcome(warm_start=False) == "model version 3"
    assert outcome() == "model version 4"
    assert outcome() == "not trained: no"
    # The same file at another address: what counts is an image's content.
    moved = coloured(250).replace("image/png;", "image/png;name=moved.png;")
    client.known[1] = replace(client.known[1], data={"image": moved})
    assert outcome() == "not trained: no"
    roll_back()
    assert outcome() == "model version 5"


def test_a_head_on_a_frozen_backbone_is_trained_served_and_rescored(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    client = FakeLabelStudio()
    for task_id in range(1, 9):
        data = {"image": as_address(patterned("navy" if task_id % 2 else "red", task_id))}
        client.known[task_id] = TaskInfo(task_id, data, 1, 0, "2026-01-01T00:00:00Z")
        value = {"choices": ["cat" if task_id % 2 else "dog"]}
        given = {"from_name": "label", "to_name": "image", "type": "choices", "value": value}
        client.given[task_id] = [{"result": [given], "was_cancelled": False}]
    client.known[9] = TaskInfo(
        9, {"image": as_address(patterned("red", 9))}, 0, 0, "2026-01-01T00:00:00Z"
    )
    settings = {"image_size": 64, "min_labels": 2}
    for version in (1, 2):
        work = make_work(services, project, client, "train", **settings, seed=version)
        assert train.run(work).startswith(f"model version {version} serves")
        services.jobs.finish(work.job.id, "done")
        work = make_work(services, project, client, "score", **settings, seed=version)
        score.run(work)
        services.jobs.finish(work.job.id, "done")
        folder = services.config.version_folder(project.id, version)
        assert (
            version == 1 or "labelled images, cross-validated" in found_version(services, 2).verdict
        )
        # The head alone is kept.
        assert sum(file.stat().st_size for file in folder.iterdir()) < 100_000
        with services.store.reading() as session:
            found = session.scalars(
                select(ModelVersion).filter_by(project_id=project.id, number=version)
            ).one()
            said = session.get_one(Prediction, (found.id, 9)).finding
        assert found.classes[said["label"]] == "dog"
        # It begins again from scratch each time, and does nothing that it has done already.
        assert (found.architecture, found.started_from) == ("timm:tf_efficientnet_lite0", None)
        work = make_work(services, project, client, "train", **settings, seed=version)
        assert train.run(work) == "not trained: nothing has changed since the newest model version"
        services.jobs.finish(work.job.id, "done")


def test_labelled_images_that_stay_away_do_not_hold_up_the_next_round(tmp_path: Path) -> None:
    """A training that waited for ever kept the images that are there from being queued."""
    services = make_services(tmp_path, image_hosts="127.0.0.1")
    project = add_project(services)
    client = FakeLabelStudio()
    away = "http://127.0.0.1:9/away.png"  # where nobody listens
    for task_id in range(1, 4):
        labelled = int(task_id < 3)
        data = {"image": away if labelled else coloured(9)}
        client.known[task_id] = TaskInfo(task_id, data, labelled, 0, "2026-01-01T00:00:00Z")
        value = {"choices": ["dog" if task_id % 2 else "cat"]}
        given = {"from_name": "label", "to_name": "image", "type": "choices", "value": value}
        if labelled:
            client.given[task_id] = [{"result": [given], "was_cancelled": False}]
    short = {"network": "mobilenet_v3_small", "image_size": 32, "min_labels": 2}
    work = make_work(services, project, client, "train", **short)
    with pytest.raises(ImagesAwayError):
        train.run(work)
    work.job.created_at -= timedelta(hours=2)
    assert train.run(work).startswith("not trained: 2 images could not be read")
    with services.store.reading() as session:
        begun = session.scalars(select(Round)).one()
    assert (begun.state, begun.model_version_id) == ("selecting", None)


def found_version(services: Services, number: int) -> ModelVersion:
    with services.store.reading() as session:
        return session.scalars(select(ModelVersion).filter_by(number=number)).one()


def images_of(services: Services, number: int) -> VersionImages:
    with services.store.reading() as session:
        version = session.scalars(select(ModelVersion).filter_by(number=number)).one()
        found = VersionImages.read(session, version.id)
    assert found is not None
    return found


class CatsAndDogs:
    """A project of coloured images that a small network is trained on, for one epoch."""

    def __init__(self, folder: Path) -> None:
        self.services = make_services(folder)
        self.project = add_project(self.services)
        self.client = FakeLabelStudio()

    def label(self, task_id: int, image: int, label: str) -> None:
        data = {"image": coloured(image)}
        self.client.known[task_id] = TaskInfo(task_id, data, 1, 0, "2026-01-01T00:00:00Z")
        value = {"choices": [label]}
        given = {"from_name": "label", "to_name": "image", "type": "choices", "value": value}
        self.client.given[task_id] = [{"result": [given], "was_cancelled": False}]

    def train(self, **settings: Any) -> str:
        short = {"network": "mobilenet_v3_small", "image_size": 32, "epochs": 1, "min_labels": 2}
        work = make_work(self.services, self.project, self.client, "train", **{**short, **settings})
        said = train.run(work)
        self.services.jobs.finish(work.job.id, "done")
        return said


def hash_of(image: int) -> bytes:
    """What names the file of a coloured image."""
    data = b64decode(coloured(image).partition(",")[2])
    return sha256(data).digest()[:16]


def test_the_same_image_in_two_tasks_is_learnt_from_or_held_out_but_not_both(
    tmp_path: Path,
) -> None:
    pets = CatsAndDogs(tmp_path)
    for task_id in range(40):
        pets.label(task_id + 1, task_id % 20, "dog" if task_id % 2 else "cat")
    pets.train(held_out=0.4)
    out = {image for image in range(20) if position(hash_of(image)) < 0.4}
    assert images_of(pets.services, 1).learnt == {hash_of(n) for n in set(range(20)) - out}
    assert found_version(pets.services, 1).metrics["images"] == 2 * len(out) > 0


@pytest.mark.slow
def test_after_held_out_was_raised_versions_are_compared_on_what_neither_has_learnt(
    tmp_path: Path,
) -> None:
    pets = CatsAndDogs(tmp_path)
    for task_id in range(40):
        pets.label(task_id + 1, task_id, "dog" if task_id % 2 else "cat")
    pets.train(held_out=0.2)
    out = {hash_of(image) for image in range(40) if position(hash_of(image)) < 0.2}
    more = {hash_of(image) for image in range(40) if position(hash_of(image)) < 0.6}
    assert out < more
    # A network of its own has learnt from fewer images, but the old one has from most of these.
    pets.train(held_out=0.6, warm_start=False)
    version = found_version(pets.services, 2)
    assert version.metrics["images"] == len(more)
    assert version.serving_metrics is None  # which the pages show as those on the same images
    assert f"on the same {len(out)} held-out images" in version.verdict
    assert images_of(pets.services, 2).learnt == {hash_of(n) for n in range(40)} - more
    # The old one, trained further, has learnt from them itself.
    with pets.services.store.transaction() as session:
        first = session.scalars(select(ModelVersion).filter_by(number=1)).one()
        serve(session, first.id)
    pets.train(held_out=0.6)
    version = found_version(pets.services, 3)
    assert version.started_from == first.id
    assert version.metrics["images"] == len(out)
    assert images_of(pets.services, 3).learnt == {hash_of(n) for n in range(40)} - out


@pytest.mark.slow
def test_of_an_earlier_version_nobody_knows_what_it_has_learnt_from(tmp_path: Path) -> None:
    pets = CatsAndDogs(tmp_path)
    for task_id in range(20):
        pets.label(task_id + 1, task_id, "dog" if task_id % 2 else "cat")
    pets.train()
    with pets.services.store.transaction() as session:
        session.execute(delete(tables.VersionImages))
    assert "uncompared" in pets.train(warm_start=False)
    # So a version that goes on from it is measured on no image that is there already.
    with pets.services.store.transaction() as session:
        session.execute(delete(tables.VersionImages))
    pets.label(21, 21, "cat")
    assert "no held-out images" in pets.train()
    assert images_of(pets.services, 3).learnt >= {hash_of(n) for n in range(20)}
