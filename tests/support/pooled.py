"""A project with scores, without a network: class mixtures that a reader can follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from cdal.backend.loop.pool_scores import Scores
from cdal.backend.services import Services
from cdal.backend.store.tables import Pick, Project, Round
from cdal.selectors import mixtures_of_vectors
from cdal.selectors.uncertainty import uncertainties_of
from support.offline import add_project, add_round, add_tasks, add_version

SURE, TORN, OTHER = (0.9, 0.1), (0.5, 0.5), (0.1, 0.9)


def add_scores(
    services: Services, project: Project, said: Mapping[int, Sequence[float]], number: int = 1
) -> None:
    """Store the probabilities of "cat" and "dog" that a version predicted for these images."""
    probabilities = torch.tensor(list(said.values()), dtype=torch.float32)
    mixtures = mixtures_of_vectors(probabilities, region="image")
    Scores(
        task_ids=torch.tensor(list(said)),
        probabilities=probabilities,
        uncertainties=uncertainties_of(probabilities).float(),
        features=torch.cat([probabilities, probabilities**2], 1),
        mixtures=mixtures.mixtures,
        present=mixtures.present,
        region_counts=mixtures.region_counts,
    ).save(services.config.scores_folder(project.id, number))


def pooled_project(services: Services) -> tuple[Project, Round]:
    """A project whose task 1 is labelled and whose round 2 ranked 3 first among tasks 2 to 6."""
    project = add_project(services, title="Pets")
    add_tasks(services, project, [1], annotations=1)
    add_tasks(services, project, [2, 3, 4, 5, 6])
    said = {1: SURE, 2: (0.85, 0.15), 3: OTHER, 4: TORN, 5: (0.2, 0.8), 6: (0.6, 0.4)}
    version = add_version(
        services,
        project,
        {task: "cat" if p[0] >= p[1] else "dog" for task, p in said.items()},
    )
    add_scores(services, project, said)
    made = add_round(
        services,
        project,
        [3, 4, 6, 5, 2],
        queued=3,
        number=2,
        budget=2,
        labels=1,
        selector="cdal-cs",
        model_version_id=version.id,
        queue_version="CDAL round 2.1",
    )
    with services.store.transaction() as session:
        first = session.get_one(Pick, (made.id, 0))
        first.reason = {"nearest": 1, "classes": {"1": 0.6, "0": 0.4}}
        first.score = 1.7
    return project, made
