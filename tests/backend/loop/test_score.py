"""A scoring pass: which images are scored again, and which are not."""

from __future__ import annotations

import shutil
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sqlalchemy import select
from support.offline import (
    CONFIG,
    FakeLabelStudio,
    add_project,
    add_round,
    add_version,
    jobs_of,
    make_services,
    make_work,
)

from cdal.backend.errors import DamagedScoresError
from cdal.backend.loop import score
from cdal.backend.loop import select as selecting
from cdal.backend.loop.pool_scores import Scores
from cdal.backend.loop.runner import run_job
from cdal.backend.services import Services
from cdal.backend.store.tables import Job, ModelVersion, Project, Round, Task, now
from cdal.models import Stopped, TaskNetwork, make_network

CLASSES = ("cat", "dog")


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """A round that waits for scores."""
    made = make_services(tmp_path)
    project = add_project(made)
    version = add_version(made, project)
    make_network("classification", "mobilenet_v3_small", CLASSES, 32).save(
        made.config.version_folder(1, 1)
    )
    add_round(made, project, [], state="scoring", model_version_id=version.id)
    return made


def add_image(services: Services, task_id: int) -> None:
    file = BytesIO()
    Image.new("RGB", (40, 30), (task_id, 0, 0)).save(file, "PNG")
    image = f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
    with services.store.transaction() as session:
        session.add(Task(project_id=1, task_id=task_id, image=image))


def run(services: Services, labels: str = "", **settings: Any) -> str:
    """Run the scoring job with the round back in its first state, perhaps with further labels."""
    with services.store.transaction() as session:
        project = session.get_one(Project, 1)
        project.labeling_config = CONFIG.replace("</Choices>", f"{labels}</Choices>")
        project.extra_params = settings
        session.get_one(Round, 1).state = "scoring"
    outcome = score.run(make_work(services, project, FakeLabelStudio(), "score"))
    services.jobs.finish(1, "done")
    return outcome


def kept(services: Services) -> Scores:
    scores = Scores.load(services.config.scores_folder(1, 1))
    assert scores is not None
    return scores


def test_only_what_is_new_is_scored(services: Services) -> None:
    add_image(services, 1)
    add_image(services, 2)
    assert run(services) == "2 images scored"
    add_image(services, 3)
    assert run(services) == "1 images scored"
    assert kept(services).task_ids.tolist() == [1, 2, 3]


def test_only_the_sample_of_a_large_pool_is_scored(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task_id in (1, 2, 3):
        add_image(services, task_id)
    monkeypatch.setattr(score, "sampled", lambda *_: {1, 3})
    assert run(services) == "2 images scored"
    assert kept(services).task_ids.tolist() == [1, 3]


def test_everything_is_scored_again_for_other_class_mixtures(services: Services) -> None:
    add_image(services, 1)
    add_image(services, 2)
    run(services)
    assert kept(services).mixtures.shape == (2, 1, 2)
    add_image(services, 3)
    assert run(services, region="class") == "3 images scored"
    assert kept(services).task_ids.tolist() == [1, 2, 3]
    assert kept(services).mixtures.shape == (3, 2, 2)
    assert run(services, region="class") == "0 images scored"


@pytest.fixture
def in_pairs(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five images, of which two are predicted at a time."""
    monkeypatch.setattr(TaskNetwork, "prediction_batch_size", 2)
    for task_id in range(1, 6):
        add_image(services, task_id)


@pytest.mark.usefixtures("in_pairs")
def test_scores_are_saved_once_they_take_much_memory(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "CHUNK_BYTES", 1)
    assert run(services) == "5 images scored"
    folder = services.config.scores_folder(1, 1)
    assert len(list(folder.glob("*.safetensors"))) == 3
    assert kept(services).task_ids.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("in_pairs")
def test_a_scoring_that_gives_way_goes_on_where_it_was(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "CHUNK", 2)
    job_id = services.jobs.ask(1, "score", "test")
    answers = iter([True, False, False])
    monkeypatch.setattr(services.jobs, "must_give_way", lambda _: next(answers))
    run_job(services, job_id, lambda: False)
    assert kept(services).task_ids.tolist() == [1, 2]
    with services.store.transaction() as session:
        job = session.get_one(Job, job_id)
        assert (job.state, job.attempts, job.error) == ("pending", 0, None)
        job.not_before = None
    run_job(services, job_id, lambda: False)
    with services.store.reading() as session:
        assert session.get_one(Job, job_id).outcome == "3 images scored"
    assert kept(services).task_ids.tolist() == [1, 2, 3, 4, 5]


def damage(services: Services) -> None:
    file = services.config.scores_folder(1, 1) / "00000000.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_damaged_scores_are_made_again(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "CHUNK", 1)
    monkeypatch.setattr(TaskNetwork, "prediction_batch_size", 1)
    add_image(services, 1)
    add_image(services, 2)
    run(services)
    damage(services)
    assert run(services) == "1 images scored"
    assert sorted(kept(services).task_ids.tolist()) == [1, 2]


def run_waiting(services: Services, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run the jobs that wait, and those that they request; returns the kind of each."""
    label_studio = FakeLabelStudio()
    label_studio.add_tasks([1, 2])
    monkeypatch.setattr(Services, "client", lambda *_: label_studio)
    monkeypatch.setattr(selecting, "ensure_read", lambda _: None)
    ran = []
    while True:
        with services.store.reading() as session:
            job = session.scalars(select(Job).filter_by(state="pending").order_by(Job.id)).first()
        if job is None or len(ran) > 9:
            return ran
        run_job(services, job.id, lambda: False)
        ran.append(job.kind)


def test_a_selection_that_finds_scores_damaged_goes_back_a_step(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_image(services, 1)
    add_image(services, 2)
    run(services)
    damage(services)
    assert run_waiting(services, monkeypatch) == ["select", "score", "select", "queue"]
    with services.store.reading() as session:
        assert session.get_one(Round, 1).state == "open"
        assert session.get_one(Project, 1).problem is None
    assert kept(services).task_ids.tolist() == [1, 2]


def test_a_selection_without_any_scores_goes_back_a_step(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ranked the pool by nothing at all, as after a restore of a backup without scores."""
    add_image(services, 1)
    add_image(services, 2)
    run(services)
    shutil.rmtree(services.config.scores_folder(1, 1))
    assert run_waiting(services, monkeypatch) == ["select", "score", "select", "queue"]
    assert kept(services).task_ids.tolist() == [1, 2]


def test_a_cancelled_selection_that_finds_scores_gone_requests_nothing(
    services: Services,
) -> None:
    with services.store.transaction() as session:
        session.get_one(Round, 1).state = "selecting"
        project = session.get_one(Project, 1)
    work = make_work(services, project, FakeLabelStudio(), "select")
    with services.store.transaction() as session:
        services.jobs.cancel(session, work.job.id, "ann")
    with pytest.raises(Stopped):
        score.score_again(work, DamagedScoresError(None))
    assert jobs_of(services) == [("select", "running")]


def test_a_scoring_whose_control_was_removed_begins_a_round_without_it(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round was begun before; nothing can be scored for it, nor selected."""
    add_image(services, 1)
    with services.store.transaction() as session:
        session.get_one(ModelVersion, 1).control = "gone"
        other = ModelVersion(
            project_id=1, number=2, control="label", serves=False, architecture="resnet18",
            classes=["cat", "dog"], fingerprint="f", labels=4, metrics={}, promoted=False,
            verdict="", seconds=1.0,
        )  # fmt: skip
        session.add(other)
        session.flush()
        session.get_one(Round, 1).beside = [other.id]
    run(services)
    with services.store.reading() as session:
        first, second = session.scalars(select(Round).order_by(Round.ranking))
    assert first.state == "closed"
    assert second.state == "scoring"


def test_damage_that_only_a_page_needs_makes_a_new_round(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_image(services, 1)
    add_image(services, 2)
    run(services)
    run_waiting(services, monkeypatch)
    damage(services)
    services.jobs.ask(1, "pool_map", "test")
    assert run_waiting(services, monkeypatch) == ["pool_map", "score", "select", "queue"]
    assert kept(services).task_ids.tolist() == [1, 2]


def test_a_paused_project_begins_no_round_for_damaged_scores(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_image(services, 1)
    run(services)
    run_waiting(services, monkeypatch)
    damage(services)
    with services.store.transaction() as session:
        session.get_one(Project, 1).paused_at = now()
    services.jobs.ask(1, "pool_map", "test")
    assert run_waiting(services, monkeypatch) == ["pool_map"]


def test_class_mixtures_follow_the_settings(services: Services) -> None:
    for task_id in (10, 20, 30):
        add_image(services, task_id)
    assert run(services, classes=["dog"]) == "3 images scored"
    scores = kept(services)
    # What the model takes for a dog has a mixture, and nothing else has.
    dogs = scores.probabilities.argmax(1) == 1
    assert torch.equal(scores.present[:, 0], dogs)
    assert run(services, classes=["dog"]) == "0 images scored"
    assert run(services, classes=["cat"]) == "3 images scored"
    assert torch.equal(kept(services).present[:, 0], ~dogs)
    # A label that the model has not learnt yet leaves all its classes.
    assert run(services, classes=["bird"], labels="<Choice value='bird'/>") == "3 images scored"
    assert kept(services).present.all()


def test_scores_of_an_earlier_version_are_kept(services: Services) -> None:
    add_image(services, 1)
    run(services)
    (services.config.scores_folder(1, 1) / "mixtures.json").unlink()
    assert run(services) == "0 images scored"
    (services.config.scores_folder(1, 1) / "mixtures.json").unlink()
    assert run(services, mixture_weights="uniform") == "1 images scored"


def test_the_background_of_boxes_is_a_class_if_the_setting_keeps_it(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    boxes = CONFIG.replace("Choices", "RectangleLabels").replace("Choice ", "Label ")
    project = add_project(services, labeling_config=boxes)
    version = add_version(services, project)
    name = "ssdlite320_mobilenet_v3_large"
    make_network("detection", name, CLASSES, 64).save(services.config.version_folder(1, 1))
    add_round(services, project, [], state="scoring", model_version_id=version.id)
    add_image(services, 1)
    for background, columns in (("drop", 2), ("keep", 3)):
        with services.store.transaction() as session:
            session.get_one(ModelVersion, version.id).architecture = name
            settings = {"training": "full", "box_background": background}
            session.get_one(Project, 1).extra_params = settings
            session.get_one(Round, 1).state = "scoring"
        outcome = score.run(make_work(services, project, FakeLabelStudio(), "score"))
        services.jobs.finish(1, "done")
        assert outcome == "1 images scored"
        pool = kept(services).pool([False])
        assert pool.mixtures.shape[2] == columns
