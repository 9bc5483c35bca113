"""The scores of the pool, kept for selection: small tensors per image, never probability maps."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cdal.backend.errors import DamagedScoresError
from cdal.durable import put_in_place
from cdal.mixture_kind import MixtureKind
from cdal.models.predictions import Prediction
from cdal.selectors import Pool, means_of_regions

FORMAT = "1"
"""Of the files; one of another format counts as damaged, so that its images are scored again."""


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
    def of(cls, task_ids: Sequence[int], prediction: Prediction, kind: MixtureKind) -> Scores:
        """What is kept of a batch, on the CPU.

        Args:
            task_ids: of the B images.
            prediction: what the model says of them.
            kind: of the class mixtures.
        """
        mixtures = kind.mixtures(prediction)
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
        # Not their count: a damaged one may have been removed.
        taken = [int(file.stem) for file in _files(folder) if file.stem.isdecimal()]
        name = f"{max(taken, default=-1) + 1:08}"
        tensors = {field.name: getattr(self, field.name).contiguous() for field in fields(self)}
        unfinished = folder / f"{name}.unfinished"
        save_file(tensors, unfinished, {"format": FORMAT, "crc32": _checksum(tensors)})
        put_in_place(unfinished, folder / f"{name}.safetensors")

    @classmethod
    def remove_damaged(cls, folder: Path) -> int:
        """Remove the files that are damaged or of another format; returns how many there were."""
        removed = 0
        for file in _files(folder):
            try:
                cls._read(file)
            except DamagedScoresError:
                file.unlink(missing_ok=True)
                removed += 1
        return removed

    @staticmethod
    def scored(folder: Path) -> set[int]:
        """The tasks whose scores are in the folder.

        Raises:
            DamagedScoresError: a file cannot be read.
        """
        found: set[int] = set()
        for file in _files(folder):
            with _reading(file), safe_open(file, "pt") as tensors:
                found.update(tensors.get_tensor("task_ids").tolist())
        return found

    @staticmethod
    def mixtures_an_image(folder: Path) -> int | None:
        """R of the scores in the folder; None if there are none.

        Raises:
            DamagedScoresError: a file cannot be read.
        """
        for file in _files(folder):
            with _reading(file), safe_open(file, "pt") as tensors:
                return int(tensors.get_slice("mixtures").get_shape()[1])
        return None

    @classmethod
    def load(cls, folder: Path) -> Scores | None:
        """All scores in the folder, each image once; None if there are none.

        If an image was scored twice, because it was replaced or because a kill came between a
        file and the store's record of it, its later scores count.

        Raises:
            DamagedScoresError: a file is damaged or of another format.
        """
        files = _files(folder)
        if not files:
            return None
        joined = cls.concatenate([cls._read(file) for file in files])
        rows = {int(task_id): row for row, task_id in enumerate(joined.task_ids.tolist())}
        return joined.rows(torch.tensor(sorted(rows.values())))

    @classmethod
    def of_tasks(cls, folder: Path, task_ids: Collection[int]) -> Scores | None:
        """The saved scores of these tasks, without reading the others; None if there are none.

        It is for looking at: what cannot be read is left out, and checksums are not compared.
        """
        wanted = set(task_ids)
        parts: dict[int, Scores] = {}
        for file in _files(folder):
            with suppress(DamagedScoresError, FileNotFoundError):
                parts.update(cls._rows_of(file, wanted))
        return cls.concatenate([parts[task_id] for task_id in sorted(parts)]) if parts else None

    @classmethod
    def _rows_of(cls, file: Path, wanted: Collection[int]) -> dict[int, Scores]:
        with _reading(file), safe_open(file, framework="pt") as tensors:
            ids = tensors.get_tensor("task_ids").tolist()
            rows = {task_id: row for row, task_id in enumerate(ids) if task_id in wanted}
            if not rows:
                return {}
            slices = {field.name: tensors.get_slice(field.name) for field in fields(cls)}
            return {
                task_id: cls(**{name: part[row : row + 1] for name, part in slices.items()})
                for task_id, row in rows.items()
            }

    @classmethod
    def _read(cls, file: Path) -> Scores:
        """All scores in a file, after a comparison of its checksum."""
        with _reading(file), safe_open(file, "pt") as opened:
            written = opened.metadata() or {}
            tensors = {field.name: opened.get_tensor(field.name) for field in fields(cls)}
        # Earlier versions wrote the same tensors without a checksum.
        if written and (
            written.get("format") != FORMAT or written.get("crc32") != _checksum(tensors)
        ):
            raise DamagedScoresError(file.name)
        return cls(**tensors)


def _files(folder: Path) -> list[Path]:
    """The finished files, oldest first."""
    return sorted(folder.glob("*.safetensors"))


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 of the tensors' names, shapes and bytes."""
    sum_ = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        sum_ = zlib.crc32(f"{name} {tuple(tensor.shape)}".encode(), sum_)
        sum_ = zlib.crc32(tensor.numpy().tobytes(), sum_)
    return f"{sum_:08x}"


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turns what safetensors raises for a damaged file into one error."""
    try:
        yield
    except SafetensorError as error:
        raise DamagedScoresError(file.name) from error
