"""Several opinions about each image of the pool, for the selectors that compare them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cdal.benchmark.curve import Curve
from cdal.benchmark.loaded_data import Loaded, LoadedData
from cdal.benchmark.scores import Scores, batches_of
from cdal.benchmark.trainer import Trainer
from cdal.models import Prediction, TaskNetwork, fit
from cdal.models.classification.head import ClassificationHead
from cdal.models.classification.stochastic import PASSES, Committee, dropout_passes
from cdal.models.inference import Batch, infer, predict
from cdal.models.opinions import dropping, regions_of
from cdal.selectors.disagreement import disagreements_of

MEMBERS = 4
"""The size of a committee whose members each take as long to train as the network itself."""

Progress = Callable[[float], None]


def opinions_about(
    curve: Curve,
    network: TaskNetwork,
    scores: Scores,
    trainer: Trainer,
    loaded: LoadedData,
    rows: Sequence[int],
    seed: int,
    progress: Progress = lambda _: None,
) -> dict[str, Tensor]:
    """The array that opinions add to the pool, by name.

    In classification, it is ``samples``, (N, S, C). An image of another task has many regions, and
    ``disagreements``, (N, 4), are means over them, so that no opinion is kept.

    Args:
        curve: whose selector compares opinions.
        network: the one that has scored the pool.
        scores: the scores.
        trainer: of the run, for a committee.
        loaded: the data, with the images of the pool.
        rows: labelled images of the pool.
        seed: of all that is random.
        progress: called with the share that is done.
    """
    labelled = trainer.labelled(rows, seed, network)
    if isinstance(network, ClassificationHead) and scores.features is not None:
        if curve.opinions == "dropout":
            return {"samples": dropout_passes(network, scores.features, seed)}
        committee = Committee.train(network, labelled, seed)
        return {"samples": committee.opinions(scores.features)}
    if curve.opinions == "dropout":
        with dropping(network, seed):
            return _compared([network] * PASSES, loaded.pool)
    return _compared(_committee(trainer, labelled, seed, progress), loaded.pool)


def _committee(
    trainer: Trainer, labelled: Loaded, seed: int, progress: Progress
) -> list[TaskNetwork]:
    """Networks that have each learnt from as many labelled images, drawn with replacement."""
    draws = torch.Generator().manual_seed(seed)
    members = []
    for number in range(MEMBERS):
        member = trainer.new_network(seed + number)
        images = labelled.take(_drawn(labelled, draws))
        fit(member, images, None, trainer.recipe(seed + number))
        members.append(member)
        progress((number + 1) / MEMBERS)
    return members


def _drawn(labelled: Loaded, draws: torch.Generator) -> list[int]:
    """Rows drawn with replacement, with at least one that there is something to learn from."""
    while True:
        rows = torch.randint(len(labelled), (len(labelled),), generator=draws)
        if labelled.counts[rows].any():
            return rows.tolist()


def _compared(networks: Sequence[TaskNetwork], images: Loaded) -> dict[str, Tensor]:
    """What is kept of these networks' opinions about all images."""
    first, *others = networks

    def keep(batch: Batch, predicted: Prediction) -> Tensor:
        opinions = [predicted, *(predict(other, batch.images) for other in others)]
        found = regions_of(opinions)
        if first.task == "classification":
            return torch.cat(found)
        return torch.stack([disagreements_of(image).mean(0).float() for image in found])

    name = "samples" if first.task == "classification" else "disagreements"
    return {name: torch.cat(list(infer(first, batches_of(first, images), keep)))}
