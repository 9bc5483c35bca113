"""Typical images before there is a model: the pool is embedded, and the order refreshed."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import func, select
from support.offline import (
    FakeLabelStudio,
    add_project,
    add_round,
    jobs_of,
    make_services,
    make_work,
)

from cdal.backend.loop import embed, pool_map, queue, score, sync
from cdal.backend.loop import select as selecting
from cdal.backend.loop.pool_map import newest_map
from cdal.backend.loop.pool_scores import Scores
from cdal.backend.loop.rounds import begin_round
from cdal.backend.reports.pool_map import pool_map_view
from cdal.backend.services import Services
from cdal.backend.store.leftovers import remove_leftovers
from cdal.backend.store.tables import UNTRAINED, Event, Pick, Project, Round, Task
from cdal.models import ModelError

SETTINGS: dict[str, Any] = {"image_size": 32, "budget": 2, "reserve": 2, "min_labels": 4}
RED, BLUE = range(1, 8), range(8, 11)


def image(task_id: int) -> str:
    """One of seven reddish images or of three bluish ones."""
    file = BytesIO()
    colour = (200 + task_id, 0, 0) if task_id in RED else (0, 0, 200 + task_id)
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """A round that waits for typical images, beside the random order that people follow."""
    made = make_services(tmp_path)
    project = add_project(made, extra_params=SETTINGS)
    with made.store.transaction() as session:
        for task_id in [*RED, *BLUE]:
            session.add(Task(project_id=project.id, task_id=task_id, image=image(task_id)))
    add_round(made, project, [*RED, *BLUE], queued=4, queue_version="CDAL round 1.1")
    with made.store.transaction() as session:
        begin_round(session, made.jobs, project.id)
    return made


@pytest.fixture
def label_studio() -> FakeLabelStudio:
    made = FakeLabelStudio()
    made.add_tasks([*RED, *BLUE])
    return made


def run(services: Services, client: FakeLabelStudio, step: Any = score, **settings: Any) -> str:
    with services.store.reading() as session:
        project = session.get_one(Project, 1)
    kind = step.__name__.rpartition(".")[2]
    work = make_work(services, project, client, kind, **{**SETTINGS, **settings})
    outcome: str = step.run(work)
    services.jobs.finish(work.job.id, "done")
    return outcome


def newest(services: Services) -> Round:
    with services.store.reading() as session:
        ranked = select(func.max(Round.ranking)).scalar_subquery()
        return session.scalars(select(Round).where(Round.ranking == ranked)).one()


def events(services: Services) -> list[str]:
    with services.store.reading() as session:
        return list(session.scalars(select(Event.text)))


def test_typical_images_come_first(services: Services, label_studio: FakeLabelStudio) -> None:
    assert run(services, label_studio) == "10 of 10 images embedded"
    assert newest(services).state == "selecting"
    run(services, label_studio, selecting)
    run(services, label_studio, queue)
    opened = newest(services)
    assert (opened.state, opened.number, opened.selector) == ("open", 1, "typiclust")
    assert opened.cold_start == "There is no trained model yet."
    with services.store.reading() as session:
        picks = session.scalars(
            select(Pick).filter_by(round_id=opened.id).order_by(Pick.rank)
        ).all()
    assert sorted(pick.task_id for pick in picks) == [*RED, *BLUE]
    reasons = [set(pick.reason) - {"near_duplicate_of"} for pick in picks]  # they are plain colours
    assert all(names == {"cluster", "covered"} for names in reasons)
    assert all(pick.score > 0 for pick in picks[:2])
    run(services, label_studio, sync)
    assert newest(services).ranking == opened.ranking  # it is not made a second time


def test_after_a_restart_the_selection_goes_on(
    services: Services, label_studio: FakeLabelStudio
) -> None:
    run(services, label_studio)
    remove_leftovers(services.config, services.store)  # as a worker does that starts
    assert run(services, label_studio, selecting) == "10 images ranked by typiclust"


def test_the_map_of_the_pool_needs_no_model(
    services: Services, label_studio: FakeLabelStudio
) -> None:
    for step in (score, selecting, queue, pool_map):
        run(services, label_studio, step)
    with services.store.reading() as session:
        project = session.get_one(Project, 1)
        drawn = newest_map(session, services.config, project)
        assert drawn is not None
        told = pool_map_view(session, project, drawn)
    assert (told.version, told.classes, len(told.points)) == (None, [], 10)
    places = {point.task: (point.x, point.y) for point in told.points}
    assert len(set(places.values())) > 2


def test_a_large_pool_does_not_wait(
    services: Services, label_studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "MOST", 6)
    assert run(services, label_studio) == "6 of 10 images embedded"
    scores = Scores.load(services.config.scores_folder(1, UNTRAINED))
    assert scores is not None
    # A random part of the pool, not its beginning.
    assert sorted(scores.task_ids.tolist()) != [1, 2, 3, 4, 5, 6]
    assert "6 of 10 images have been embedded" in (newest(services).cold_start or "")
    assert run(services, label_studio, selecting) == "6 images ranked by typiclust"


def test_a_second_look_at_a_large_pool_is_said_once(
    services: Services, label_studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "MOST", 6)
    run(services, label_studio)
    with services.store.transaction() as session:  # its scores are gone
        session.get_one(Round, newest(services).id).state = "scoring"
    run(services, label_studio)
    assert (newest(services).cold_start or "").count("6 of 10 images have been embedded") == 1


@pytest.mark.parametrize("enough", ["time", "labels"])
def test_it_ends_early(
    services: Services, label_studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch, enough: str
) -> None:
    monkeypatch.setattr("cdal.models.head.HeadNetwork.prediction_batch_size", 2)
    if enough == "time":
        monkeypatch.setattr(embed, "LONGEST_S", 0.0)
    else:
        monkeypatch.setattr(embed, "LOOK_SECONDS", 0.0)
        with services.store.transaction() as session:
            for task_id in RED:
                session.get_one(Task, (1, task_id)).annotations = 1
    assert run(services, label_studio) == "2 of 10 images embedded"
    # Labels that are enough for a model need no typical images, but a training at once.
    assert newest(services).state == ("selecting" if enough == "time" else "closed")
    assert jobs_of(services)[-1] == ("select" if enough == "time" else "sync", "pending")


def test_without_a_backbone_the_order_stays_random(
    services: Services, label_studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ModelError("timm has none.")

    monkeypatch.setattr(embed, "new_network", refuse)
    run(services, label_studio)
    run(services, label_studio, selecting)
    run(services, label_studio, queue)
    opened = newest(services)
    assert (opened.selector, opened.state) == ("random", "open")
    assert "timm has none." in (opened.cold_start or "")
    assert any(
        "Round 1 is random" in text and "timm has none." in text for text in events(services)
    )
    assert "typical" not in run(services, label_studio, sync)


def test_a_round_that_was_given_up_stays_so(
    services: Services, label_studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = embed._scores

    def overtaken(*arguments: Any) -> Scores:
        with services.store.transaction() as session:
            session.get_one(Round, newest(services).id).state = "closed"
        return made(*arguments)

    monkeypatch.setattr(embed, "_scores", overtaken)
    run(services, label_studio)
    assert newest(services).state == "closed"
    assert ("select", "pending") not in jobs_of(services)


def test_the_sync_that_follows_the_random_order_requests_it(
    tmp_path: Path, label_studio: FakeLabelStudio
) -> None:
    services = make_services(tmp_path)
    add_project(services, extra_params=SETTINGS)
    run(services, label_studio, sync)
    assert newest(services).selector == "random"
    assert "as soon as they are found" in (newest(services).cold_start or "")
    run(services, label_studio, selecting)
    run(services, label_studio, queue)
    assert label_studio.stream()  # people have a queue before any image is embedded
    assert "typical images" in run(services, label_studio, sync)
    typical = newest(services)
    assert (typical.selector, typical.state, typical.number) == ("typiclust", "scoring", 1)
