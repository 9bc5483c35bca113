"""The scores of the pool, kept for selection: small tensors per image, never probability maps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cdal.models.durable import put_in_place
from cdal.models.predictions import Prediction
from cdal.selectors import Pool, Region, means_of_regions, mixtures_of_regions


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of N images, in any order.

    Attributes:
        task_ids: (N,) int64.
        probabilities: means over the regions, (N, C) float32.
        uncertainties: means over the regions, (N, 3) float32, see `cdal.selectors.UNCERTAINTIES`.
        features: (N, D) float32.
        mixtures: Eq. 1, (N, R, C) float32.
        present: which mixtures there are, (N, R) bool.
        region_counts: regions per pseudo-label, (N, C).
    """

    task_ids: Tensor
    probabilities: Tensor
    uncertainties: Tensor
    features: Tensor
    mixtures: Tensor
    present: Tensor
    region_counts: Tensor

    @classmethod
    def of(cls, task_ids: Sequence[int], prediction: Prediction, region: Region) -> Scores:
        """What is kept of a batch, on the CPU.

        Args:
            task_ids: of the B images.
            prediction: what the model says of them.
            region: "class" or "image", see `ClassMixtures`.
        """
        mixtures = mixtures_of_regions(prediction.regions, region)
        means = means_of_regions(prediction.regions)
        return cls(
            task_ids=torch.tensor(task_ids),
            probabilities=means.probabilities.cpu(),
            uncertainties=means.uncertainties.cpu(),
            features=prediction.features.cpu(),
            mixtures=mixtures.mixtures.cpu(),
            present=mixtures.present.cpu(),
            region_counts=mixtures.region_counts.cpu(),
        )

    def __len__(self) -> int:
        return len(self.task_ids)

    def pool(self, labelled: Sequence[bool]) -> Pool:
        """The same images as a selector sees them; `labelled` says which of them have a label."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        del arrays["task_ids"]
        return Pool(**arrays, labelled=torch.tensor(list(labelled), dtype=torch.bool))

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the tensors take."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    @classmethod
    def concatenate(cls, parts: Sequence[Scores]) -> Scores:
        """Join batches along the images."""
        return cls(
            **{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)}
        )

    def rows(self, rows: Tensor) -> Scores:
        """The scores in these M rows, (M,) int64, in that order."""
        return Scores(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def save(self, folder: Path) -> None:
        """Add a file to the folder: all of it or, after a kill or a power loss, nothing."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{len(list(folder.glob('*.safetensors'))):08}"
        tensors = {field.name: getattr(self, field.name).contiguous() for field in fields(self)}
        unfinished = folder / f"{name}.unfinished"
        save_file(tensors, unfinished)
        put_in_place(unfinished, folder / f"{name}.safetensors")

    @staticmethod
    def scored(folder: Path) -> set[int]:
        """The tasks whose scores are in the folder."""
        found: set[int] = set()
        for file in folder.glob("*.safetensors"):
            with safe_open(file, "pt") as tensors:
                found.update(tensors.get_tensor("task_ids").tolist())
        return found

    @staticmethod
    def mixtures_an_image(folder: Path) -> int | None:
        """R of the scores in the folder; None if there are none."""
        for file in folder.glob("*.safetensors"):
            with safe_open(file, "pt") as tensors:
                return int(tensors.get_slice("mixtures").get_shape()[1])
        return None

    @classmethod
    def load(cls, folder: Path) -> Scores | None:
        """All scores in the folder, each image once; None if there are none.

        If an image was scored twice, because it was replaced or because a kill came between a
        file and the store's record of it, its later scores count.
        """
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            return None
        joined = cls.concatenate([cls(**load_file(file)) for file in files])
        rows = {int(task_id): row for row, task_id in enumerate(joined.task_ids.tolist())}
        return joined.rows(torch.tensor(sorted(rows.values())))

    @classmethod
    def of_tasks(cls, folder: Path, task_ids: Collection[int]) -> Scores | None:
        """The saved scores of these tasks, without reading the others; None if there are none."""
        wanted = set(task_ids)
        parts: dict[int, Scores] = {}
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as tensors:
                ids = tensors.get_tensor("task_ids").tolist()
                rows = {task_id: row for row, task_id in enumerate(ids) if task_id in wanted}
                if not rows:
                    continue
                slices = {field.name: tensors.get_slice(field.name) for field in fields(cls)}
                for task_id, row in rows.items():
                    parts[task_id] = cls(**{n: part[row : row + 1] for n, part in slices.items()})
        return cls.concatenate([parts[task_id] for task_id in sorted(parts)]) if parts else None
