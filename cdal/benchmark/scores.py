"""A model's scores of the pool: computing them, the pool they make, and keeping them in a file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.folder import SimulationFolder, read_json
from cdal.benchmark.loaded_data import Loaded, LoadedFeatures
from cdal.mixture_kind import MixtureKind, means_of
from cdal.models import Prediction, TaskNetwork
from cdal.models.features import ImageFeatures
from cdal.models.head import HeadNetwork
from cdal.models.inference import infer
from cdal.selectors import ClassMixtures, Pool


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of N images or regions, on the network's device.

    Attributes:
        features: (N, D) float32; None for regions.
        probabilities: (N, C) float32.
        uncertainties: (N, 3) float32.
        mixtures: of each requested kind.
        costs: of labelling each region, (N,) float32.
        image_of: the image of each region, (N,) int64.
    """

    features: Tensor | None
    probabilities: Tensor
    uncertainties: Tensor
    mixtures: Mapping[MixtureKind, ClassMixtures]
    costs: Tensor | None = None
    image_of: Tensor | None = None

    def pool(self, kind: MixtureKind, labelled: Sequence[int]) -> Pool:
        """The pool a selector gets when these rows are labelled."""
        mixtures = self.mixtures[kind]
        # If background is a class of the mixtures, the images' means lack it.
        more = max(0, mixtures.mixtures.shape[2] - self.probabilities.shape[1])
        return Pool(
            mixtures=mixtures.mixtures,
            present=mixtures.present,
            labelled=_mask(len(mixtures), labelled, self.probabilities.device),
            features=self.features,
            probabilities=functional.pad(self.probabilities, (0, more)),
            uncertainties=self.uncertainties,
            region_counts=mixtures.region_counts,
            costs=self.costs,
            image_of=self.image_of,
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Scores]) -> Scores:
        """Join batches along the images."""
        return cls(
            _joined([part.features for part in parts]),
            torch.cat([part.probabilities for part in parts]),
            torch.cat([part.uncertainties for part in parts]),
            {
                kind: ClassMixtures.concatenate([part.mixtures[kind] for part in parts])
                for kind in parts[0].mixtures
            },
            _joined([part.costs for part in parts]),
        )

    def save(self, path: Path, kind: MixtureKind) -> None:
        """Write ``features``, ``mixtures`` and ``present`` to a safetensors file, or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        mixtures = self.mixtures[kind]
        if self.features is None:
            raise TypeError("the plan keeps no scores of regions")
        arrays = {
            "features": self.features,
            "mixtures": mixtures.mixtures,
            "present": mixtures.present,
        }
        new = path.with_name(f"{path.name}.new")
        save_file({name: array.cpu().contiguous() for name, array in arrays.items()}, new)
        new.replace(path)


def unseen_pool(count: int, labelled: Sequence[int]) -> Pool:
    """A pool without scores: enough for the random selector."""
    return Pool(
        mixtures=torch.zeros(count, 1, 1),
        present=torch.zeros(count, 1, dtype=torch.bool),
        labelled=_mask(count, labelled, torch.device("cpu")),
    )


def score(
    network: TaskNetwork,
    images: Loaded,
    kinds: Collection[MixtureKind],
    progress: Callable[[float], None] = lambda _: None,
) -> Scores:
    """Score all images batch by batch; maps and boxes are not kept."""

    def keep(predicted: Prediction) -> Scores:
        means = means_of(predicted)
        return Scores(
            predicted.features,
            means.probabilities,
            means.uncertainties,
            {kind: kind.mixtures(predicted) for kind in kinds},
        )

    return infer_scores(network, images, keep, progress)


def infer_scores(
    network: TaskNetwork,
    images: Loaded,
    keep: Callable[[Prediction], Scores],
    progress: Callable[[float], None],
) -> Scores:
    """What is kept of the predictions of all images, batch by batch."""
    done = 0

    def kept(batch: _Batch, predicted: Prediction) -> Scores:
        nonlocal done
        found = keep(predicted)
        done += len(batch)
        progress(done / len(images))
        return found

    return Scores.concatenate(list(infer(network, batches_of(network, images), kept)))


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Prepared images, (B, 3, S, S) uint8, or the features of each."""

    images: Tensor | Sequence[ImageFeatures]

    def __len__(self) -> int:
        return len(self.images)

    def halves(self) -> tuple[_Batch, _Batch]:
        half = len(self) // 2
        return _Batch(self.images[:half]), _Batch(self.images[half:])


def batches_of(network: TaskNetwork, images: Loaded) -> Iterator[_Batch]:
    """All images, as many at once as a network predicts."""
    size = network.prediction_batch_size
    if isinstance(images, LoadedFeatures) and isinstance(network, HeadNetwork):
        size = network.judged_at_once
    for batch, _ in images.batches(torch.split(torch.arange(len(images)), size)):
        yield _Batch(batch)


@dataclass(frozen=True, slots=True, eq=False)
class KeptScores:
    """One model's scores of the N images of a pool, read from a file.

    Attributes:
        rows: the row of each image, by name.
        features: (N, D) float32.
        mixtures: (N, R, C) float32.
        present: (N, R) bool.
    """

    rows: Mapping[str, int]
    features: NDArray[np.float32]
    mixtures: NDArray[np.float32]
    present: NDArray[np.bool_]


def read_scores(folder: Path, selector: str, seed: int, labelled: int) -> KeptScores | None:
    """Read the scores of a run's model trained on ``labelled`` images; None if not kept.

    Raises:
        BenchmarkError: a file is damaged, or does not belong to the others.
    """
    file = SimulationFolder(folder).scores_file(selector, seed, labelled)
    if not file.exists():
        return None
    names = read_json(folder / "images.json").get("pool", [])
    try:
        arrays = load_file(file)
        scores = KeptScores(
            {name: row for row, name in enumerate(names)},
            arrays["features"],
            arrays["mixtures"],
            arrays["present"],
        )
    except (SafetensorError, KeyError) as error:
        raise BenchmarkError(f"{file} is damaged: {error}.") from error
    if not len(names) == len(scores.features) == len(scores.mixtures) == len(scores.present):
        raise BenchmarkError(f"{file} does not fit the images named in {folder}/images.json.")
    return scores


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None


def _mask(count: int, labelled: Sequence[int], device: torch.device) -> Tensor:
    mask = torch.zeros(count, dtype=torch.bool, device=device)
    mask[torch.tensor(list(labelled), dtype=torch.int64, device=device)] = True
    return mask
