"""Class mixtures (Eq. 1 of CDAL, ECCV 2020): how each image confuses the model, class by class.

P^c_I = Σ w_r P_r / Σ w_r over the regions r of image I whose pseudo-label argmax P_r is c, with
w_r = H(P_r) + ε, the Shannon entropy in bits.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

Weights = Literal["entropy", "uniform"]
"""The weight of a region: its entropy (as in the paper) or the same for all (its ablation)."""
Region = Literal["class", "image"]
"""Mixtures per image: one per pseudo-label (as in the paper), or one for all its regions."""

EPSILON = 1e-6
"""ε of Eq. 1, in bits: the weight of a region whose class is certain."""

# Pixels at a time: C rows of this many floats fit into a processor's cache.
_CHUNK_PIXELS = {"cpu": 2**15, "cuda": 2**22}


@dataclass(frozen=True, slots=True, eq=False)
class ClassMixtures:
    """The class mixtures of N images (Eq. 1), on the device of their inputs.

    Attributes:
        mixtures: P^c_I, (N, R, C) float32, R being C or, for ``region="image"``, 1; zero where
            not present.
        present: whether the image has a region of that class, (N, R) bool.
        region_counts: regions per pseudo-label, (N, C) int64.
    """

    mixtures: Tensor
    present: Tensor
    region_counts: Tensor

    def __len__(self) -> int:
        return len(self.mixtures)

    @classmethod
    def concatenate(cls, batches: Iterable[ClassMixtures]) -> Self:
        """Join batches along the images."""
        parts = list(batches)
        return cls(
            torch.cat([part.mixtures for part in parts]),
            torch.cat([part.present for part in parts]),
            torch.cat([part.region_counts for part in parts]),
        )


def mixtures_of_logits(
    logits: Tensor,
    weights: Weights = "entropy",
    region: Region = "class",
    classes: Collection[int] | None = None,
) -> ClassMixtures:
    """Compute Eq. 1 of a batch of segmentation maps; a region is a pixel.

    Args:
        logits: the network's output before the softmax, (N, C, H, W), of any floating type, at
            its own stride: upsampling first gains nothing.
        weights: the regions' weights.
        region: one mixture per pseudo-label, or one per image.
        classes: only regions of these pseudo-labels count; None for all.
    """
    return _of_maps(logits, weights, region, classes, given="logits")


def mixtures_of_probabilities(
    probabilities: Tensor,
    weights: Weights = "entropy",
    region: Region = "class",
    classes: Collection[int] | None = None,
) -> ClassMixtures:
    """Compute Eq. 1 of a batch of probability maps, (N, C, H, W), which sum to 1 over C.

    The other arguments are those of ``mixtures_of_logits``, which is faster if logits are
    available.
    """
    return _of_maps(probabilities, weights, region, classes, given="probabilities")


def mixtures_of_boxes(
    boxes: Sequence[Tensor],
    weights: Weights = "entropy",
    region: Region = "class",
    classes: Collection[int] | None = None,
) -> ClassMixtures:
    """Compute Eq. 1 of a batch of detections; a region is a box.

    Args:
        boxes: for each of N images the class probabilities of its K boxes, (K, C), where K may be
            0. Rows are normalised, so a background column may simply be dropped; a row of zeros
            counts as the uniform distribution.
        weights: the regions' weights.
        region: one mixture per pseudo-label, or one per image.
        classes: only regions of these pseudo-labels count; None for all.

    Raises:
        ValueError: there is no image, so the number of classes is unknown.
    """
    if not boxes:
        raise ValueError("mixtures_of_boxes needs at least one image")
    sizes = torch.tensor([len(image) for image in boxes], device=boxes[0].device)
    images = torch.arange(len(boxes), device=boxes[0].device).repeat_interleave(sizes)
    return _of_vectors(torch.cat(list(boxes)), images, len(boxes), weights, region, classes)


def mixtures_of_vectors(
    probabilities: Tensor,
    weights: Weights = "entropy",
    region: Region = "image",
    classes: Collection[int] | None = None,
) -> ClassMixtures:
    """Compute Eq. 1 of a batch of classifications, (N, C); the region is the image.

    With ``region="class"``, which is Eq. 2 to the letter, only images of the same pseudo-label
    have a class in common; ``region="image"`` compares all of them.
    """
    images = torch.arange(len(probabilities), device=probabilities.device)
    return _of_vectors(probabilities, images, len(images), weights, region, classes)


def mixtures_of_independent(
    probabilities: Tensor, classes: Collection[int] | None = None
) -> ClassMixtures:
    """Class mixtures of a batch of multi-label classifications, (N, C); the region is the image.

    Each class is a distribution of its own, of yes and no. Row c has P(yes) in column c, and P(no)
    in the next column, where it meets the same of every other image. So Eq. 2 is the sum over the
    classes of the symmetric divergence between two such distributions.

    Args:
        probabilities: of each class, independent of the others; C is at least 2.
        classes: only these count; None for all.

    Raises:
        ValueError: there is only one class.
    """
    n, c = probabilities.shape
    if c < 2:
        raise ValueError("mixtures_of_independent needs at least two classes")
    yes = probabilities.float()
    rows = torch.arange(c, device=yes.device)
    kept = _kept(classes, c, yes.device)
    mixtures = yes.new_zeros((n, c, c))
    mixtures[:, rows, rows] = yes
    mixtures[:, rows, (rows + 1) % c] = 1 - yes
    return ClassMixtures(
        mixtures * kept[:, None], kept.expand(n, c).clone(), (yes >= 0.5).to(torch.int64)
    )


def _of_maps(
    maps: Tensor,
    weights: Weights,
    region: Region,
    classes: Collection[int] | None,
    given: Literal["logits", "probabilities"],
) -> ClassMixtures:
    n, c = maps.shape[:2]
    maps = maps.flatten(2)
    kept = _kept(classes, c, maps.device)
    sums = maps.new_zeros((n, c if region == "class" else 1, c), dtype=torch.float64)
    counts = torch.zeros((n, c), dtype=torch.int64, device=maps.device)
    for images, pixels in _map_chunks(n, maps.shape[2], maps.device):
        z = maps[images, :, pixels].float()
        if given == "probabilities":
            z = z.clamp(min=torch.finfo(z.dtype).tiny).log_()
        highest, label = z.max(1, keepdim=True)
        z = z - highest
        q = z.exp()
        total = q.sum(1, keepdim=True)
        weight = _weight(total.log() - z.mul_(q).sum(1, keepdim=True) / total, weights)
        weight = weight.mul_(kept[label]).div_(total)
        if region == "class":
            weight = z.zero_().scatter_(1, label, weight)
        sums[images] += weight @ q.transpose(1, 2)
        counts[images].scatter_add_(1, label.flatten(1), torch.ones_like(label).flatten(1))
    return _normalised(sums, counts, kept, region)


def _of_vectors(
    probabilities: Tensor,
    images: Tensor,
    n: int,
    weights: Weights,
    region: Region,
    classes: Collection[int] | None,
) -> ClassMixtures:
    """Compute Eq. 1 of N images from all their regions' vectors, (M, C), and their images, (M,)."""
    c = probabilities.shape[1]
    kept = _kept(classes, c, probabilities.device)
    p = distributions_of(probabilities.double())
    label = p.argmax(1)
    weight = _weight(torch.special.entr(p).sum(1), weights) * kept[label]
    rows = c if region == "class" else 1
    sums = p.new_zeros((n * rows, c))
    sums.index_add_(0, images * rows + label % rows, p * weight[:, None])
    counts = torch.bincount(images * c + label, minlength=n * c).view(n, c)
    return _normalised(sums.view(n, rows, c), counts, kept, region)


def distributions_of(vectors: Tensor) -> Tensor:
    """Divide vectors (M, C) by their sums; the uniform distribution where the sum is 0.

    A detector may be so sure that a box is background that nothing is left for the other classes.
    """
    total = vectors.sum(1, keepdim=True)
    return torch.where(total > 0, vectors / total, 1 / vectors.shape[1])


def _weight(nats: Tensor, weights: Weights) -> Tensor:
    """Turn entropies in nats into w_r of Eq. 1."""
    if weights == "uniform":
        return torch.ones_like(nats)
    # Rounding can push the entropy of a certain region below 0.
    return nats.clamp_(min=0).div_(math.log(2)).add_(EPSILON)


def _normalised(sums: Tensor, counts: Tensor, kept: Tensor, region: Region) -> ClassMixtures:
    present = (counts > 0) & kept
    if region == "image":
        present = present.any(1, keepdim=True)
    # Every P_r sums to 1, so the row sums are the sums of the weights.
    total = sums.sum(-1, keepdim=True)
    mixtures = torch.where(present[..., None], sums / total, 0)
    return ClassMixtures(mixtures.float(), present, counts)


def _kept(classes: Collection[int] | None, c: int, device: torch.device) -> Tensor:
    """Mark the pseudo-labels that count, (C,) bool."""
    kept = torch.full((c,), classes is None, device=device)
    for index in classes or ():
        if not 0 <= index < c:
            raise ValueError(f"class {index} is not one of the {c} classes, 0 to {c - 1}")
        kept[index] = True
    return kept


def _map_chunks(n: int, pixels: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Split N maps into parts that suit the device: several maps, or part of one."""
    most = _CHUNK_PIXELS.get(device.type, 2**15)
    images = max(1, most // max(1, pixels))
    for first in range(0, n, images):
        for start in range(0, pixels, most):
            yield slice(first, first + images), slice(start, start + most)
