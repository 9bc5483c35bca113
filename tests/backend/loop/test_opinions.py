"""Selectors that compare several opinions of the model, in a round."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
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

from cdal.backend.loop import comparison
from cdal.backend.loop import select as selecting
from cdal.backend.loop.pool_scores import Scores
from cdal.backend.services import Services
from cdal.backend.store.tables import Comparison, Pick, Project, Round
from cdal.models import make_network
from cdal.models.classification.head import ClassificationHead
from cdal.models.classification.stochastic import Committee
from cdal.selectors import mixtures_of_vectors
from cdal.selectors.uncertainty import uncertainties_of

TASKS = range(1, 7)


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """A round of a head that says "dog" by two features, of which task 4 has one of each sign."""
    made = make_services(tmp_path)
    project = add_project(made)
    add_tasks(made, project, TASKS)
    version = add_version(made, project)
    head = make_network("classification", "timm:tf_efficientnet_lite0", ("cat", "dog"), 32)
    assert isinstance(head, ClassificationHead)
    weight = torch.zeros(2, head.backbone.record.features)
    weight[1, :2] = 4.0
    head.module.load_state_dict({"weight": weight, "bias": torch.zeros(2)})
    head.save(made.config.version_folder(project.id, 1))
    features = torch.zeros(len(TASKS), weight.shape[1])
    features[:, 0] = 0.1
    features[3, 0], features[3, 1] = 2.1, -2.0
    probabilities = head.logits_of(features).softmax(1)
    mixtures = mixtures_of_vectors(probabilities)
    Scores(
        task_ids=torch.tensor(TASKS),
        probabilities=probabilities,
        uncertainties=uncertainties_of(probabilities).float(),
        features=features,
        mixtures=mixtures.mixtures,
        present=mixtures.present,
        region_counts=mixtures.region_counts,
    ).save(made.config.scores_folder(project.id, 1))
    add_round(made, project, [], state="selecting", model_version_id=version.id)
    return made


def rank(services: Services, selector: str) -> tuple[list[Pick], Round]:
    with services.store.transaction() as session:
        session.get_one(Round, 1).selector = selector
        project = session.get_one(Project, 1)
    client = FakeLabelStudio()
    client.add_tasks(TASKS)
    work = make_work(services, project, client, "select", selector=selector, budget=2, reserve=1)
    selecting.run(work)
    with services.store.reading() as session:
        picks = session.scalars(select(Pick).order_by(Pick.rank)).all()
        return list(picks), session.get_one(Round, 1)


def test_passes_of_the_head_find_where_it_is_not_robust(services: Services) -> None:
    picks, ranked = rank(services, "bald")
    assert picks[0].task_id == 4
    assert picks[0].score > 10 * picks[1].score
    assert ranked.warnings == []


def test_dropquery_ranks_the_whole_pool(services: Services) -> None:
    picks, _ = rank(services, "dropquery")
    assert sorted(pick.task_id for pick in picks) == list(TASKS)
    # Some of these images have the same features but for their length.
    own = [set(pick.reason) - {"near_duplicate_of"} for pick in picks]
    assert own == [{"disagree", "alike"}] * len(picks)


def test_a_committee_is_kept_with_its_model(services: Services) -> None:
    weight = torch.zeros(4, 2, 1280)
    weight[:2, 1, 0] = weight[2:, 0, 0] = 5.0  # two members say "dog", two "cat"
    Committee(weight, torch.zeros(4, 2)).save(services.config.version_folder(1, 1))
    picks, ranked = rank(services, "committee")
    assert picks[0].task_id == 4  # its first feature is the largest
    assert ranked.warnings == []


def test_without_a_committee_people_have_a_queue_all_the_same(services: Services) -> None:
    picks, ranked = rank(services, "committee")
    assert len(picks) == len(TASKS)
    (warning,) = ranked.warnings
    assert 'ranked by "margin"' in warning
    assert "trained without a committee" in warning


def test_the_comparison_says_what_is_missing(services: Services) -> None:
    with services.store.transaction() as session:
        session.get_one(Round, 1).state = "open"
        session.add_all(Comparison(round_id=1, selector=name) for name in ("bald", "committee"))
    with services.store.reading() as session:
        project = session.get_one(Project, 1)
    comparison.run(make_work(services, project, FakeLabelStudio(), "comparison"))
    with services.store.reading() as session:
        made: Mapping[str, Comparison] = {
            row.selector: row for row in session.scalars(select(Comparison))
        }
    assert made["bald"].problem is None
    assert "without a committee" in (made["committee"].problem or "")
