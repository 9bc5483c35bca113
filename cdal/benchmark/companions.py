"""What is trained beside a network for some selectors: a loss predictor, or VAAL's adversary.

Both are for choosing only: the network that is measured is trained without them, so that curves
differ by their picks alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cdal.benchmark.loaded_data import LoadedData, LoadedImages
from cdal.benchmark.trainer import Trainer
from cdal.models import fit
from cdal.models.learning_loss import LossPredictor
from cdal.models.vaal import Vaal
from cdal.selectors.learning_loss import LearningLoss
from cdal.selectors.selection import Selector
from cdal.selectors.vaal import VAAL


def companion_scores(
    selector: Selector,
    trainer: Trainer,
    loaded: LoadedData,
    rows: Sequence[int],
    seed: int,
    progress: Callable[[float], None] = lambda _: None,
) -> dict[str, Tensor]:
    """The arrays that a selector's companion adds to the pool, by name.

    Args:
        selector: one that has a companion.
        trainer: of the run.
        loaded: the data, with the images of the pool.
        rows: labelled images of the pool.
        seed: of the run.
        progress: called with the share that is done.
    """
    pool = loaded.pool
    if not isinstance(pool, LoadedImages):
        raise TypeError("the plan lets only full training have companions")
    if isinstance(selector, LearningLoss):
        return {
            "predicted_losses": _predicted_losses(selector, trainer, pool, rows, seed, progress)
        }
    if isinstance(selector, VAAL):
        batches = pool.batches([torch.arange(len(pool))])
        images = next(iter(batches))[0]
        adversary = Vaal(images, rows, selector.layers, seed, loaded.device)
        adversary.train(selector.epochs, progress)
        return {"likely_labelled": adversary.likely_labelled()}
    raise TypeError(f"{selector.name} has no companion")


def _predicted_losses(
    selector: LearningLoss,
    trainer: Trainer,
    pool: LoadedImages,
    rows: Sequence[int],
    seed: int,
    progress: Callable[[float], None],
) -> Tensor:
    network = trainer.new_network(seed)
    images = trainer.labelled(rows, seed, network)
    with LossPredictor(network, selector.weight, seed) as predictor:
        fit(
            network,
            images,
            None,
            trainer.recipe(seed),
            lambda done: progress(done.share),
            companion=predictor,
        )
        found = []
        order = torch.split(torch.arange(len(pool)), network.prediction_batch_size)
        for batch, _ in pool.batches(order):
            network.predict(batch)
            with torch.inference_mode():
                found.append(predictor.predicted())
    return torch.cat(found)
