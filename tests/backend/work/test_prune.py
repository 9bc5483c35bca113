from __future__ import annotations

from pathlib import Path

from offline import (
    FakeLabelStudio,
    add_project,
    add_round,
    add_version,
    make_services,
    make_work,
)
from sqlalchemy import select

from cdal.backend.tables import Prediction
from cdal.backend.work.prune import forget_old_scores


def test_only_what_earlier_versions_said_is_forgotten(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    versions = [add_version(services, project, {7: "cat"}, number) for number in (1, 2, 3)]
    folders = [services.config.scores_folder(project.id, number) for number in (1, 2, 3)]
    for folder in folders:
        folder.mkdir(parents=True)
    current = add_round(services, project, [7], model_version_id=versions[1].id)

    forget_old_scores(make_work(services, project, FakeLabelStudio(), "queue"), current)

    assert [folder.exists() for folder in folders] == [False, True, True]
    with services.store.reading() as session:
        kept = session.scalars(select(Prediction.model_version_id)).all()
    assert sorted(kept) == [versions[1].id, versions[2].id]


def test_a_random_round_forgets_nothing(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    version = add_version(services, project, {7: "cat"})
    current = add_round(services, project, [7])
    forget_old_scores(make_work(services, project, FakeLabelStudio(), "queue"), current)
    with services.store.reading() as session:
        assert session.scalars(select(Prediction.model_version_id)).all() == [version.id]
