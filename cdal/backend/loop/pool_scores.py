"""The scores of the pool, kept for selection: small tensors per image, never probability maps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from cdal.backend.errors import DamagedScoresError
from cdal.backend.loop.score_files import ARRAYS, ScoreFile
from cdal.mixture_kind import MixtureKind, means_of
from cdal.models.predictions import Prediction
from cdal.selectors import Pool, sparse_mixtures


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of N images, in any order. An array that was not loaded has no columns.

    Attributes:
        task_ids: (N,) int64.
        probabilities: means over the regions, (N, C) float32.
        uncertainties: means over the regions, (N, 3) float32, see `cdal.selectors.UNCERTAINTIES`.
        features: (N, D) float32.
        mixtures: Eq. 1, (N, R, C) float32; sparse where they were loaded from files and R is
            above 1. If they were not loaded, there are none, (N, 1, C).
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
    def of(cls, task_ids: Sequence[int], prediction: Prediction, kind: MixtureKind) -> Scores:
        """What is kept of a batch, on the CPU.

        Args:
            task_ids: of the B images.
            prediction: what the model says of them.
            kind: of the class mixtures.
        """
        mixtures = kind.mixtures(prediction)
        means = means_of(prediction)
        # If background is a class of the mixtures, the images' means lack it.
        more = mixtures.mixtures.shape[2] - means.probabilities.shape[1]
        return cls(
            task_ids=torch.tensor(task_ids),
            probabilities=pad(means.probabilities, (0, more)).cpu(),
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
        known = {name: array for name, array in arrays.items() if array.shape[1]}
        return Pool(**known, labelled=torch.tensor(list(labelled), dtype=torch.bool))

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

    @classmethod
    def of_the_same(cls, parts: Sequence[Scores]) -> list[Scores]:
        """The scores of the images that all of several models have scored, in the same order."""
        ids = [part.task_ids.numpy() for part in parts]
        if all(np.array_equal(each, ids[0]) for each in ids):
            return list(parts)
        common = reduce(np.intersect1d, ids)
        orders = [np.argsort(each) for each in ids]
        places = [
            order[np.searchsorted(each, common, sorter=order)]
            for each, order in zip(ids, orders, strict=True)
        ]
        return [part.rows(torch.from_numpy(rows)) for part, rows in zip(parts, places, strict=True)]

    def rows(self, rows: Tensor) -> Scores:
        """The scores in these M rows, (M,) int64, in that order."""
        arrays = {f.name: getattr(self, f.name).index_select(0, rows) for f in fields(self)}
        if arrays["mixtures"].is_sparse:
            arrays["mixtures"] = arrays["mixtures"].coalesce()
        return Scores(**arrays)

    def save(self, folder: Path) -> None:
        """Add a file to the folder: all of it or, after a kill or a power loss, nothing."""
        ScoreFile.write(folder, {field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def remove_damaged(cls, folder: Path) -> int:
        """Remove the files that are damaged or of another format; returns how many there were."""
        removed = 0
        for file in ScoreFile.all_in(folder):
            try:
                file.read(ARRAYS)
            except DamagedScoresError:
                file.path.unlink(missing_ok=True)
                removed += 1
        return removed

    @staticmethod
    def scored(folder: Path) -> set[int]:
        """The tasks whose scores are in the folder.

        Raises:
            DamagedScoresError: a file cannot be read.
        """
        found: set[int] = set()
        for file in ScoreFile.all_in(folder):
            found.update(file.task_ids().tolist())
        return found

    @staticmethod
    def mixtures_an_image(folder: Path) -> int | None:
        """R of the scores in the folder; None if there are none.

        Raises:
            DamagedScoresError: a file cannot be read.
        """
        files = ScoreFile.all_in(folder)
        return files[0].rows_per_image() if files else None

    @classmethod
    def load(
        cls, folder: Path, names: Collection[str] = ARRAYS, among: Collection[int] | None = None
    ) -> Scores | None:
        """The scores in the folder, each image once; None if there are none.

        Each array is filled file by file, so that nothing is in memory twice. If an image was
        scored twice, because it was replaced or because a kill came between a file and the store's
        record of it, its later scores count.

        Args:
            folder: of one model version's scores.
            names: the arrays that are needed; the others are not read.
            among: the tasks that are needed; None for all.

        Raises:
            DamagedScoresError: a file is damaged or of another format.
        """
        files = ScoreFile.all_in(folder)
        if not files:
            return None
        ids = [file.task_ids() for file in files]
        kept = _newest(ids, among)
        arrays = _read(files, kept, {name for name in names if name != "task_ids"})
        return cls(
            task_ids=torch.cat([some[rows] for some, rows in zip(ids, kept, strict=True)]), **arrays
        )

    @classmethod
    def of_tasks(cls, folder: Path, task_ids: Collection[int]) -> Scores | None:
        """The saved scores of these tasks, without reading the others; None if there are none.

        It is for looking at: what cannot be read is left out, and checksums are not compared.
        """
        wanted = set(task_ids)
        parts: dict[int, Scores] = {}
        for file in ScoreFile.all_in(folder):
            with suppress(DamagedScoresError, FileNotFoundError):
                rows = [row for row, task in enumerate(file.task_ids().tolist()) if task in wanted]
                found = [cls(**file.read_row(row)) for row in rows]
                parts.update((int(scores.task_ids[0]), scores) for scores in found)
        return cls.concatenate([parts[task_id] for task_id in sorted(parts)]) if parts else None


def _newest(ids: Sequence[Tensor], among: Collection[int] | None) -> list[Tensor]:
    """Which rows of each file count, (N,) bool: a task's last ones, if the task is needed."""
    joined = torch.cat(list(ids)).numpy()
    _, last = np.unique(joined[::-1], return_index=True)
    counts = np.zeros(len(joined), dtype=bool)
    counts[len(joined) - 1 - last] = True
    if among is not None:
        counts &= np.isin(joined, np.fromiter(among, np.int64, len(among)))
    return list(torch.split(torch.from_numpy(counts), [len(some) for some in ids]))


def _read(files: Sequence[ScoreFile], kept: Sequence[Tensor], names: set[str]) -> dict[str, Tensor]:
    """Read these arrays of the rows that count, (N, …); the others without columns."""
    columns = files[0].columns()
    if any(file.columns() != columns for file in files):
        raise DamagedScoresError(files[-1].path.name)
    count = sum(int(rows.sum()) for rows in kept)
    arrays = {
        name: torch.empty(count, columns[name] if name in names else 0, dtype=dtype)
        for name, dtype in _PER_IMAGE.items()
    }
    there = [file.read(["present"])["present"] for file in files]
    present = torch.cat([some[rows] for some, rows in zip(there, kept, strict=True)])
    wants_mixtures = "mixtures" in names
    vectors = torch.empty(int(present.sum()) if wants_mixtures else 0, columns["mixtures"])
    image = vector = 0
    for file, rows, some in zip(files, kept, there, strict=True):
        read = file.read(names)
        every, images = bool(rows.all()), int(rows.sum())
        for name in names & _PER_IMAGE.keys():
            arrays[name][image : image + images] = read[name] if every else read[name][rows]
        if wants_mixtures:
            found = read["mixtures"]
            found = found if every else found[rows.repeat_interleave(some.sum(1))]
            vectors[vector : vector + len(found)] = found
            vector += len(found)
        image += images
    mixtures, present = _mixtures(vectors, present) if wants_mixtures else _none(count, columns)
    return {**arrays, "mixtures": mixtures, "present": present}


_PER_IMAGE = {
    "probabilities": torch.float32,
    "uncertainties": torch.float32,
    "features": torch.float32,
    "region_counts": torch.int64,
}


def _mixtures(vectors: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Mixtures by class stay sparse; one per image is dense anyway."""
    mixtures = sparse_mixtures(vectors, present)
    return (mixtures if present.shape[1] > 1 else mixtures.to_dense()), present


def _none(count: int, columns: Mapping[str, int]) -> tuple[Tensor, Tensor]:
    """Mixtures that take no memory, and which of them there are: none."""
    nothing = torch.zeros(1, 1, columns["probabilities"])
    return nothing.expand(count, -1, -1), torch.zeros(count, 1, dtype=torch.bool)
