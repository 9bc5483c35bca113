"""What a model says of the pool, as selectors need it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from cdal.benchmark.held_images import HeldImages
from cdal.benchmark.mixture_kind import MixtureKind
from cdal.models import TaskNetwork
from cdal.selectors import ClassMixtures, Pool, means_of_regions


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Of N images, on the network's device.

    Attributes:
        features: (N, D) float32.
        probabilities: (N, C) float32.
        uncertainties: (N, 3) float32.
        mixtures: of each kind that was asked for.
    """

    features: Tensor
    probabilities: Tensor
    uncertainties: Tensor
    mixtures: Mapping[MixtureKind, ClassMixtures]

    def pool(self, kind: MixtureKind, labelled: Sequence[int]) -> Pool:
        """What a selector sees, when these rows are labelled."""
        mixtures = self.mixtures[kind]
        # Where background is a class of the mixtures, the images' means are without it.
        more = mixtures.mixtures.shape[2] - self.probabilities.shape[1]
        return Pool(
            mixtures=mixtures.mixtures,
            present=mixtures.present,
            labelled=_mask(len(mixtures), labelled, self.features.device),
            features=self.features,
            probabilities=functional.pad(self.probabilities, (0, more)),
            uncertainties=self.uncertainties,
            region_counts=mixtures.region_counts,
        )

    def save(self, path: Path, kind: MixtureKind) -> None:
        """Write ``features``, ``mixtures`` and ``present`` to a safetensors file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        mixtures = self.mixtures[kind]
        arrays = {
            "features": self.features,
            "mixtures": mixtures.mixtures,
            "present": mixtures.present,
        }
        save_file({name: array.cpu().contiguous() for name, array in arrays.items()}, path)


def unseen_pool(count: int, labelled: Sequence[int]) -> Pool:
    """A pool of which no model has said anything: enough for the random selector."""
    return Pool(
        mixtures=torch.zeros(count, 1, 1),
        present=torch.zeros(count, 1, dtype=torch.bool),
        labelled=_mask(count, labelled, torch.device("cpu")),
    )


def score(
    network: TaskNetwork,
    images: HeldImages,
    kinds: Collection[MixtureKind],
    progress: Callable[[float], None] = lambda _: None,
) -> Scores:
    """Let a network look at all images, a batch at a time; maps and boxes are not kept."""
    features, probabilities, uncertainties = [], [], []
    mixtures: dict[MixtureKind, list[ClassMixtures]] = {kind: [] for kind in kinds}
    order = torch.split(torch.arange(len(images)), network.prediction_batch_size)
    for number, (batch, _) in enumerate(images.batches(order)):
        predicted = network.predict(batch)
        means = means_of_regions(predicted.regions)
        features.append(predicted.features)
        probabilities.append(means.probabilities)
        uncertainties.append(means.uncertainties)
        for kind, batches in mixtures.items():
            batches.append(kind.mixtures(predicted))
        progress((number + 1) / len(order))
    return Scores(
        torch.cat(features),
        torch.cat(probabilities),
        torch.cat(uncertainties),
        {kind: ClassMixtures.concatenate(batches) for kind, batches in mixtures.items()},
    )


def _mask(count: int, labelled: Sequence[int], device: torch.device) -> Tensor:
    mask = torch.zeros(count, dtype=torch.bool, device=device)
    mask[torch.tensor(list(labelled), dtype=torch.int64, device=device)] = True
    return mask
