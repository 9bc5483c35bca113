"""Damaged weights: the last good model serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select
from support.offline import (
    FakeLabelStudio,
    add_project,
    add_round,
    add_version,
    jobs_of,
    make_services,
    make_work,
    serving_id,
)

from cdal.backend.loop import score, train, versions
from cdal.backend.loop.versions import serve_last_good
from cdal.backend.services import Services
from cdal.backend.store.tables import Event, ModelVersion, Project, Round, Task
from cdal.backend.web.model import CDALModel
from cdal.models import make_network


def save(services: Services, number: int, damaged: bool = False) -> None:
    folder = services.config.version_folder(1, number)
    make_network("classification", "mobilenet_v3_small", ("cat", "dog"), 32).save(folder)
    if damaged:
        (folder / "weights.safetensors").write_bytes(b"lost")


def serving(services: Services) -> int | None:
    with services.store.reading() as session:
        return serving_id(session)


@pytest.mark.slow
def test_the_newest_good_one_that_was_promoted_serves(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    made = [add_version(services, project, number=number) for number in range(1, 6)]
    for number in (1, 2):
        save(services, number)  # the weights of the third were pruned
    save(services, 4, damaged=True)
    save(services, 5, damaged=True)
    with services.store.transaction() as session:
        session.get_one(ModelVersion, made[1].id).promoted = False
    serve_last_good(services, 1)
    assert serving(services) == made[0].id
    with services.store.reading() as session:
        assert not session.get_one(ModelVersion, made[4].id).promoted
    serve_last_good(services, 1)
    with services.store.reading() as session:
        (text,) = session.scalars(select(Event.text).filter_by(level="error"))
    assert text.startswith("Model version 5 cannot be loaded, so model version 1 serves again: ")


def test_without_any_none_serves(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    add_version(services, add_project(services))
    serve_last_good(services, 1)
    assert serving(services) is None


def test_a_version_that_began_to_serve_meanwhile_stays_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the damaged weights takes a while, in which a training may end."""
    services = make_services(tmp_path)
    project = add_project(services)
    add_version(services, project, number=1)
    add_version(services, project, number=2)
    save(services, 1)
    check = versions.check_weights

    def slowly(folder: Path) -> None:
        if folder.name == "2":
            newest = add_version(services, project, number=3)
            assert serving(services) == newest.id
        check(folder)

    monkeypatch.setattr(versions, "check_weights", slowly)
    serve_last_good(services, 1)
    assert serving(services) == 3


def test_a_scoring_goes_on_if_the_damaged_version_was_replaced_before(tmp_path: Path) -> None:
    """As by a worker at its start, before it resumes the scoring."""
    services = make_services(tmp_path)
    project = add_project(services)
    first, second = (add_version(services, project, number=number) for number in (1, 2))
    save(services, 1)
    save(services, 2, damaged=True)
    with services.store.transaction() as session:
        session.add(Task(project_id=1, task_id=7, image="/data/upload/7.png"))
    add_round(services, project, [], state="scoring", model_version_id=second.id)
    serve_last_good(services, 1)
    score.run(make_work(services, project, FakeLabelStudio(), "score"))
    with services.store.reading() as session:
        newest = session.scalars(select(Round).order_by(Round.id.desc())).first()
    assert newest is not None
    assert (newest.state, newest.model_version_id) == ("scoring", first.id)


def test_a_training_goes_on_if_another_process_replaces_the_damaged_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    first, _ = (add_version(services, project, number=number) for number in (1, 2))
    save(services, 1)
    save(services, 2, damaged=True)
    load = train.load_network

    def late(folder: Path, *others: Any, **options: Any) -> Any:
        if folder.name == "2":
            serve_last_good(services, 1)
        return load(folder, *others, **options)

    monkeypatch.setattr(train, "load_network", late)
    work = make_work(services, project, FakeLabelStudio(), "train")
    assert train.serving_model(work, torch.device("cpu"))[0] == first.id


def test_a_scoring_pass_whose_model_is_damaged_begins_a_round_with_the_last_good_one(
    tmp_path: Path,
) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    made = [add_version(services, project, number=number) for number in (1, 2)]
    save(services, 1)
    save(services, 2, damaged=True)
    with services.store.transaction() as session:
        session.add(Task(project_id=1, task_id=7, image="/data/upload/7.png"))
    add_round(services, project, [], state="scoring", model_version_id=made[1].id)
    score.run(make_work(services, project, FakeLabelStudio(), "score"))
    with services.store.reading() as session:
        rounds = session.execute(select(Round.state, Round.model_version_id)).all()
    assert [tuple(r) for r in rounds] == [
        ("closed", made[1].id),
        ("scoring", made[0].id),
    ]
    assert ("score", "pending") in jobs_of(services)


def test_a_training_goes_on_from_the_last_good_one(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    made = [add_version(services, project, number=number) for number in (1, 2)]
    save(services, 1)
    save(services, 2, damaged=True)
    work = make_work(services, project, FakeLabelStudio(), "train")
    assert train.serving_model(work, torch.device("cpu"))[1] is not None
    assert serving(services) == made[0].id


def test_what_was_predicted_goes_on_being_served(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    version = add_version(services, project, {7: "cat"})
    save(services, 1, damaged=True)
    add_round(services, project, [7], queue_version="CDAL round 1.1", model_version_id=version.id)
    with services.store.reading() as session:
        project = session.get_one(Project, 1)
    known, unseen = CDALModel(services, project).predict([{"id": 7}, {"id": 8, "data": {}}])
    assert known["result"][0]["value"]["choices"] == ["cat"]
    assert unseen == []  # none, so that Label Studio asks again
