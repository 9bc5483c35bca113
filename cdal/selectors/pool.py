"""The input of a selector: a model's scores of each image, without pixels or files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

_SUM_TOLERANCE = 1e-3
_DISTRIBUTIONS = ("probabilities", "samples")
_NOT_NEGATIVE = ("uncertainties", "region_counts", "costs", "disagreements")


class PoolError(ValueError):
    """A pool cannot be used; the message names the array and what is wrong with it."""


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """N images as the current model sees them, on one device; checked on creation.

    Attributes:
        mixtures: class mixtures P^c_I of Eq. 1, (N, R, C) float32, where R is C for
            ``region="class"`` and 1 for ``region="image"``; rows that are not present are zero.
            They may be sparse, see ``sparse_mixtures``.
        present: which mixtures exist, (N, R) bool.
        labelled: the images that are already labelled, (N,) bool: centres, never picks.
        features: one feature vector per image, (N, D) float32.
        probabilities: one probability vector per image, the mean of its regions', (N, C) float32.
        uncertainties: entropy in bits, 1 - margin and 1 - confidence, each the mean over the
            image's regions, (N, 3) float32.
        region_counts: regions per pseudo-label, (N, C) int64 or float32.
        predicted_losses: what a loss predictor says, without a unit, (N,) float32.
        likely_labelled: how likely a discriminator takes the image for a labelled one, (N,)
            float32 in [0, 1].
        costs: of labelling the image or region, in any unit, (N,) float32, at least 0.
        image_of: the image that each region belongs to, (N,) int64, where regions are picked.
        samples: what S passes with dropout, or S models, say of the image, (N, S, C) float32.
        disagreements: how far such opinions differ about an image's regions, on average, as
            ``disagreements_of`` measures it, (N, 4) float32.
        beside: the same images as other models see them, for other labels: their contextual
            diversities are added by selectors that can.

    Raises:
        PoolError: shapes, types or devices do not agree, or a value is impossible.
    """

    mixtures: Tensor
    present: Tensor
    labelled: Tensor
    features: Tensor | None = None
    probabilities: Tensor | None = None
    uncertainties: Tensor | None = None
    region_counts: Tensor | None = None
    samples: Tensor | None = None
    disagreements: Tensor | None = None
    predicted_losses: Tensor | None = None
    likely_labelled: Tensor | None = None
    costs: Tensor | None = None
    image_of: Tensor | None = None
    beside: tuple[Pool, ...] = ()

    def __post_init__(self) -> None:
        self._check_shapes()
        for other in self.beside:
            if len(other) != len(self) or other.device != self.device:
                raise PoolError(
                    f"a pool beside it has {len(other)} images on {other.device}, not "
                    f"{len(self)} on {self.device}"
                )
        for name, array in self.arrays().items():
            _check_dtype(name, array)
            if array.device != self.mixtures.device:
                raise PoolError(
                    f"{name} is on {array.device}, but mixtures is on {self.mixtures.device}"
                )
        self._check_values()

    def _check_values(self) -> None:
        """Check numbers; those of each image are the last dimension of an array."""
        arrays = self.arrays()
        vectors = ("predicted_losses", "likely_labelled", "costs")
        arrays |= {name: arrays[name][:, None] for name in vectors if name in arrays}
        self._check_mixtures()
        checked = (*_DISTRIBUTIONS, "features", *_NOT_NEGATIVE, *vectors)
        for name in checked:
            if name in arrays:
                _check_finite(name, arrays[name])
        for name in (name for name in _DISTRIBUTIONS if name in arrays):
            _check_distributions(name, arrays[name])
        for name in (name for name in _NOT_NEGATIVE if name in arrays):
            _check_not_negative(name, arrays[name])
        if "likely_labelled" in arrays:
            likely = arrays["likely_labelled"]
            _check_distributions("likely_labelled", torch.cat([likely, 1 - likely], 1))

    def __len__(self) -> int:
        return len(self.mixtures)

    @property
    def device(self) -> torch.device:
        return self.mixtures.device

    @property
    def unlabelled(self) -> Tensor:
        """Rows of the images that may be picked, ascending, (U,) int64."""
        return (~self.labelled).nonzero()[:, 0]

    def arrays(self) -> dict[str, Tensor]:
        """The pool's arrays by name, without missing ones."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "beside"}
        return {name: array for name, array in named.items() if array is not None}

    def to(self, device: torch.device | str) -> Pool:
        """The same pool on another device."""
        beside = tuple(other.to(device) for other in self.beside)
        arrays = {name: array.to(device) for name, array in self.arrays().items()}
        return Pool(**arrays, beside=beside)

    def with_arrays(self, more: Mapping[str, Tensor]) -> Pool:
        """The same pool with more arrays, by name, from any device."""
        arrays = self.arrays() | {name: array.to(self.device) for name, array in more.items()}
        return Pool(**arrays, beside=self.beside)

    def take(self, rows: Tensor) -> Pool:
        """The pool of these rows, in this order."""
        arrays = {name: array.index_select(0, rows) for name, array in self.arrays().items()}
        if self.mixtures.is_sparse:
            arrays["mixtures"] = arrays["mixtures"].coalesce()
        return Pool(**arrays, beside=tuple(other.take(rows) for other in self.beside))

    def dense(self) -> Pool:
        """The same pool with dense mixtures, for what needs all of them at once."""
        if not any(pool.mixtures.is_sparse for pool in (self, *self.beside)):
            return self
        beside = tuple(other.dense() for other in self.beside)
        return replace(self, mixtures=self.mixtures.to_dense(), beside=beside)

    def of_classes(self, classes: Collection[int]) -> Pool:
        """The pool without the mixtures of other classes: only these count in CD.

        Raises:
            PoolError: the pool has one mixture per image, or no such class.
        """
        rows = self.mixtures.shape[1]
        if rows == 1:
            raise PoolError("mixtures has one row per image, so it cannot be reduced to classes")
        for index in classes:
            if not 0 <= index < rows:
                raise PoolError(f"there is no class {index}: the pool's are 0 to {rows - 1}")
        kept = torch.zeros(rows, dtype=torch.bool, device=self.device)
        kept[list(classes)] = True
        pool, present = self.dense(), self.present & kept
        return replace(pool, mixtures=pool.mixtures * kept[:, None], present=present)

    def need(self, name: str, selector: str) -> Tensor:
        """Return the array with this name.

        Raises:
            PoolError: the pool does not have it.
        """
        array = self.arrays().get(name)
        if array is None:
            raise PoolError(f"{name} is missing: the selector {selector} needs it")
        return array

    def _check_mixtures(self) -> None:
        if not self.mixtures.is_sparse:
            _check_finite("mixtures", self.mixtures)
            _check_distributions("mixtures", self.mixtures, self.present)
            return
        images, classes = self.mixtures.indices()
        there = self.present[images, classes]
        if len(images) != int(self.present.sum()) or not bool(there.all()):
            raise PoolError("mixtures has other classes than present")
        vectors = self.mixtures.values()
        bad = ~vectors.sum(-1, dtype=torch.float64).isfinite()
        if bad.any():
            image = int(images[_first_image(bad[:, None])])
            raise PoolError(f"mixtures has NaN or infinity in image {image}")
        bad = (vectors.amin(-1) < 0) | ((vectors.sum(-1) - 1).abs() > _SUM_TOLERANCE)
        if bad.any():
            first = _first_image(bad[:, None])
            at = f"[{int(images[first])}][{int(classes[first])}]"
            raise PoolError(f"mixtures{at} sums to {float(vectors[first].sum()):.6g}, not to 1")

    def _check_shapes(self) -> None:
        if self.mixtures.ndim != 3 or self.mixtures.shape[1] not in (1, self.mixtures.shape[2]):
            raise PoolError(
                "mixtures must have the shape (N, C, C) or (N, 1, C), "
                f"not {tuple(self.mixtures.shape)}"
            )
        n, r, c = self.mixtures.shape
        if c == 0:
            raise PoolError("mixtures has no classes")
        expected: dict[str, tuple[int | str, ...]] = {
            "present": (n, r),
            "labelled": (n,),
            "features": (n, "D"),
            "probabilities": (n, c),
            "uncertainties": (n, 3),
            "region_counts": (n, c),
            "samples": (n, "S", c),
            "disagreements": (n, 4),
            "predicted_losses": (n,),
            "likely_labelled": (n,),
            "costs": (n,),
            "image_of": (n,),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array is not None and not _fits(array, shape):
                wanted = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
                raise PoolError(
                    f"{name} must have the shape ({wanted}) to agree with mixtures "
                    f"{(n, r, c)}, not {tuple(array.shape)}"
                )


def _fits(array: Tensor, shape: tuple[int | str, ...]) -> bool:
    return array.ndim == len(shape) and all(
        size > 0 if isinstance(wanted, str) else size == wanted
        for size, wanted in zip(array.shape, shape, strict=True)
    )


def _check_dtype(name: str, array: Tensor) -> None:
    allowed = {
        "present": (torch.bool,),
        "labelled": (torch.bool,),
        "region_counts": (torch.int64, torch.float32),
        "image_of": (torch.int64,),
    }.get(name, (torch.float32,))
    if array.dtype not in allowed:
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
        raise PoolError(f"{name} must be {wanted}, not {str(array.dtype).removeprefix('torch.')}")


def _check_finite(name: str, array: Tensor) -> None:
    # The sum of a row with NaN or infinity is never finite: no mask as large as the array.
    bad = ~array.sum(-1, dtype=torch.float64 if array.is_floating_point() else None).isfinite()
    if bad.any():
        raise PoolError(f"{name} has NaN or infinity in image {_first_image(bad)}")


def _check_not_negative(name: str, array: Tensor) -> None:
    if array.numel() and array.min() < 0:
        raise PoolError(f"{name} is negative in image {_first_image(array < 0)}")


def _check_distributions(name: str, array: Tensor, present: Tensor | None = None) -> None:
    """Check that rows are probabilities that sum to 1, or to 0 where not present."""
    _check_not_negative(name, array)
    sums = array.sum(-1)
    wanted = torch.ones_like(sums) if present is None else present.to(sums)
    bad = (sums - wanted).abs() > _SUM_TOLERANCE
    if bad.any():
        at = tuple(int(i) for i in bad.nonzero()[0])
        row = "".join(f"[{i}]" for i in at)
        why = "" if present is None else ", since present is " + str(bool(present[at])).lower()
        raise PoolError(f"{name}{row} sums to {sums[at]:.6g}, not to {wanted[at]:.0f}{why}")


def _first_image(bad: Tensor) -> int:
    return int(bad.nonzero()[0, 0])
