"""Labelling by region: only the picked cells of an image's grid are revealed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from cdal.benchmark.data_set import DataSet, Part
from cdal.benchmark.loaded_data import LoadedData, LoadedImages
from cdal.benchmark.scores import Scores, infer_scores
from cdal.mixture_kind import MixtureKind
from cdal.models import IGNORED, Prediction, TaskNetwork
from cdal.models.segmentation.network import SegmentationPrediction
from cdal.selectors import ClassMixtures, means_of_regions, mixtures_of_logits


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows and columns of cells, which are about equal, whatever the map's size."""

    rows: int
    columns: int

    @classmethod
    def of(cls, shape: tuple[int, int], side: int) -> Grid:
        """The grid whose cells come closest to squares of this side.

        Args:
            shape: rows and columns of the prepared images, in pixels.
            side: in pixels.
        """
        return cls(*(max(1, round(length / side)) for length in shape))

    def __len__(self) -> int:
        return self.rows * self.columns

    def cells(self, maps: Tensor) -> list[Tensor]:
        """The cells of maps (…, H, W), row by row: views (…, h, w)."""
        height, width = maps.shape[-2:]
        return [
            maps[..., top:bottom, left:right]
            for top, bottom in pairwise(_bounds(height, self.rows))
            for left, right in pairwise(_bounds(width, self.columns))
        ]


class LoadedRegions(LoadedImages):
    """The regions of N images, G per image; region r is cell r % G of image r // G.

    Args:
        images: with masks.
        grid: of G cells.
        classes: number of the network's classes.
    """

    def __init__(self, images: LoadedImages, grid: Grid, classes: int) -> None:
        self.images = images
        self.grid = grid
        counts = [
            torch.bincount(cell.flatten().long(), minlength=IGNORED + 1)[:classes]
            for row in range(len(images))
            for cell in grid.cells(images[row][1].cpu())
        ]
        super().__init__(torch.empty(len(counts), 0), [], torch.stack(counts))

    def take(self, rows: Sequence[int]) -> LoadedImages:
        """The images of these regions, with masks that are unknown beyond them."""
        of_image: dict[int, list[int]] = {}
        for row in rows:
            of_image.setdefault(row // len(self.grid), []).append(row % len(self.grid))

        def reveal(image: int, mask: Tensor) -> Tensor:
            revealed = torch.full_like(mask, IGNORED)
            known, seen = self.grid.cells(mask), self.grid.cells(revealed)
            for cell in of_image[image]:
                seen[cell].copy_(known[cell])
            return revealed

        classes = self.counts.shape[1]

        def count(mask: Tensor) -> Tensor:
            return torch.bincount(mask.flatten().long(), minlength=IGNORED + 1)[:classes]

        return self.images.take(list(of_image)).relabelled(reveal, count)

    def whole_images(self, budget: int, seed: int) -> list[int]:
        """All regions of random images, as many as a budget of regions allows."""
        order = np.random.default_rng([seed, 1]).permutation(len(self.images))
        cells = len(self.grid)
        return [
            int(image) * cells + cell for image in order[: budget // cells] for cell in range(cells)
        ]


def by_region(loaded: LoadedData, grid: Grid) -> LoadedData:
    """The same data with a pool of regions."""
    if not isinstance(loaded.pool, LoadedImages):
        raise TypeError("the plan lets only images be labelled by region")
    data = loaded.data
    names = tuple(f"{name}#{cell}" for name in data.pool.names for cell in range(len(grid)))
    pool = LoadedRegions(loaded.pool, grid, len(data.classes))
    regions = DataSet(data.task, data.classes, Part(names, data.pool.images), data.test)
    return replace(loaded, data=regions, pool=pool)


def score_regions(
    network: TaskNetwork,
    regions: LoadedRegions,
    kinds: Collection[MixtureKind],
    progress: Callable[[float], None] = lambda _: None,
) -> Scores:
    """Score all regions, image by image; their features are not known."""

    def keep(predicted: Prediction) -> Scores:
        if not isinstance(predicted, SegmentationPrediction):
            raise TypeError("only pixels make regions of a grid")
        cells = [cell.contiguous() for cell in regions.grid.cells(predicted.logits)]
        means = [means_of_regions(cell) for cell in cells]
        return Scores(
            features=None,
            probabilities=_by_image([mean.probabilities for mean in means]),
            uncertainties=_by_image([mean.uncertainties for mean in means]),
            mixtures={kind: _mixtures(kind, cells) for kind in kinds},
            costs=_by_image([boundaries(cell) for cell in cells]),
            image_of=None,
        )

    found = infer_scores(network, regions.images, keep, progress)
    image_of = torch.arange(len(regions), device=found.probabilities.device) // len(regions.grid)
    return replace(found, image_of=image_of)


def boundaries(logits: Tensor) -> Tensor:
    """How many neighbouring places of each map (B, C, h, w) have different classes, (B,) float32.

    Relative to a side, so that a straight boundary across a square costs 1.
    """
    labels = logits.argmax(1)
    across = (labels[:, 1:] != labels[:, :-1]).flatten(1).sum(1)
    down = (labels[:, :, 1:] != labels[:, :, :-1]).flatten(1).sum(1)
    side = math.sqrt(labels.shape[1] * labels.shape[2])
    return (across + down).float() / side


def _mixtures(kind: MixtureKind, cells: Sequence[Tensor]) -> ClassMixtures:
    found = [mixtures_of_logits(cell, kind.weights, kind.region, kind.classes) for cell in cells]
    return ClassMixtures(
        _by_image([each.mixtures for each in found]),
        _by_image([each.present for each in found]),
        _by_image([each.region_counts for each in found]),
    )


def _by_image(cells: Sequence[Tensor]) -> Tensor:
    """From one tensor (B, …) per cell to (B · G, …)."""
    return torch.stack(list(cells), 1).flatten(0, 1)


def _bounds(length: int, parts: int) -> list[int]:
    return [round(part * length / parts) for part in range(parts + 1)]
