"""Train a network: all of it, or the head on its frozen backbone."""

from __future__ import annotations

from collections.abc import Callable

from cdal.models import training
from cdal.models.data import Dataset
from cdal.models.errors import ModelError
from cdal.models.features import LabelledFeatures
from cdal.models.head import HeadNetwork, fit_head
from cdal.models.network import TaskNetwork
from cdal.models.recipe import Recipe
from cdal.models.reports import FitProgress, FitReport


def fit(
    network: TaskNetwork,
    train: Dataset | LabelledFeatures,
    held_out: Dataset | LabelledFeatures | None,
    recipe: Recipe,
    progress: Callable[[FitProgress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> FitReport:
    """Train a network from its current weights: only its head if its backbone is frozen.

    Args:
        network: is changed in place.
        train: what to learn from.
        held_out: what to measure on; None or no images: nothing is measured.
        recipe: how.
        progress: called after each epoch, and while images are read.
        stop: asked before each step.

    Raises:
        ModelError: there is nothing to learn from, or the loss became infinite.
        Stopped: ``stop`` said so; the weights are those of that moment.
    """
    if isinstance(network, HeadNetwork):
        return fit_head(network, train, held_out, recipe, progress, stop)
    if isinstance(train, LabelledFeatures) or isinstance(held_out, LabelledFeatures):
        raise ModelError(f"{network.manifest.architecture} learns from images, not from features.")
    return training.fit(network, train, held_out, recipe, progress, stop)
