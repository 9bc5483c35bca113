"""Files of scores: without the classes that an image does not have, with a checksum per array.

A file holds the scores of some images, and is written whole or not at all. Mixtures by class are
kept as the vectors of the present classes, image by image, (P, C). Files of earlier versions hold
all of them, (N, C, C), and at most one checksum for the whole file; they are read as well.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cdal.backend.errors import DamagedScoresError
from cdal.durable import put_in_place
from cdal.selectors import mixture_vectors

FORMAT = "2"
"""Of the files. One of an unknown format counts as damaged, so that its images are scored again."""

_DENSE = "1"

ARRAYS = (
    "task_ids",
    "probabilities",
    "uncertainties",
    "features",
    "mixtures",
    "present",
    "region_counts",
)


@dataclass(frozen=True, slots=True)
class ScoreFile:
    """One file of scores."""

    path: Path

    @classmethod
    def all_in(cls, folder: Path) -> list[ScoreFile]:
        """The finished files, oldest first."""
        return [cls(path) for path in sorted(folder.glob("*.safetensors"))]

    @classmethod
    def write(cls, folder: Path, arrays: Mapping[str, Tensor]) -> None:
        """Add a file to the folder: all of it or, after a kill or a power loss, nothing.

        Args:
            folder: it is created if needed.
            arrays: all of ``ARRAYS``, as in `Scores`; the mixtures may be sparse.
        """
        folder.mkdir(parents=True, exist_ok=True)
        # Not their count: a damaged one may have been removed.
        taken = [int(file.path.stem) for file in cls.all_in(folder) if file.path.stem.isdecimal()]
        name = f"{max(taken, default=-1) + 1:08}"
        kept = {name: array.contiguous() for name, array in arrays.items() if name != "mixtures"}
        vectors = mixture_vectors(arrays["mixtures"], arrays["present"])
        kept["mixtures"] = vectors.contiguous()
        sums = {f"crc32.{name}": _checksum(array) for name, array in kept.items()}
        unfinished = folder / f"{name}.unfinished"
        save_file(kept, unfinished, {"format": FORMAT, **sums})
        put_in_place(unfinished, folder / f"{name}.safetensors")

    def task_ids(self) -> Tensor:
        """The tasks whose scores it has, (N,) int64, without a comparison of the checksum.

        Raises:
            DamagedScoresError: it cannot be read.
        """
        with self._opened() as opened:
            ids: Tensor = opened.get_tensor("task_ids")
            return ids

    def rows_per_image(self) -> int:
        """R of its mixtures.

        Raises:
            DamagedScoresError: it cannot be read.
        """
        with self._opened() as opened:
            return int(opened.get_slice("present").get_shape()[1])

    def columns(self) -> dict[str, int]:
        """The length of a row of each array but the task ids.

        Raises:
            DamagedScoresError: it cannot be read.
        """
        with self._opened() as opened:
            return {name: int(opened.get_slice(name).get_shape()[-1]) for name in ARRAYS[1:]}

    def read(self, names: Collection[str], check: bool = True) -> dict[str, Tensor]:
        """Read some arrays; mixtures as the vectors of the present classes, (P, C).

        Args:
            names: which of ``ARRAYS``.
            check: whether to compare checksums.

        Raises:
            DamagedScoresError: it is damaged, or of another format.
        """
        with self._opened() as opened:
            written = opened.metadata() or {}
            form = written.get("format", _DENSE)
            # Earlier versions wrote one checksum of everything, and before that none.
            wanted = ARRAYS if form == _DENSE else {*names, "task_ids", "present"}
            arrays = {name: opened.get_tensor(name) for name in wanted}
        if form not in (FORMAT, _DENSE):
            raise DamagedScoresError(self.path.name)
        if check and not _is_whole(form, written, arrays):
            raise DamagedScoresError(self.path.name)
        if form == _DENSE:
            arrays["mixtures"] = arrays["mixtures"][arrays["present"]]
        if "mixtures" in names and len(arrays["mixtures"]) != int(arrays["present"].sum()):
            raise DamagedScoresError(self.path.name)
        return {name: arrays[name] for name in names}

    def read_row(self, row: int) -> dict[str, Tensor]:
        """Read the arrays of one image, (1, …), with dense mixtures; checksums are not compared.

        Raises:
            DamagedScoresError: it cannot be read.
        """
        with self._opened() as opened:
            slices = {name: opened.get_slice(name) for name in ARRAYS}
            if (opened.metadata() or {}).get("format", _DENSE) == _DENSE:
                return {name: part[row : row + 1] for name, part in slices.items()}
            mixtures, present = slices.pop("mixtures"), opened.get_tensor("present")
            arrays = {name: part[row : row + 1] for name, part in slices.items()}
            first = int(present[:row].sum())
            vectors = mixtures[first : first + int(present[row].sum())]
        dense = vectors.new_zeros((1, present.shape[1], vectors.shape[1]))
        dense[0, present[row]] = vectors
        return {**arrays, "mixtures": dense}

    @contextmanager
    def _opened(self) -> Iterator[Any]:  # safetensors has no types
        """Turns what safetensors raises for a damaged file into one error."""
        try:
            with safe_open(self.path, "pt") as opened:
                yield opened
        except SafetensorError as error:
            raise DamagedScoresError(self.path.name) from error


def _is_whole(form: str, written: Mapping[str, str], arrays: Mapping[str, Tensor]) -> bool:
    if form == _DENSE:
        return not written or written.get("crc32") == _checksum_of_all(arrays)
    return all(written.get(f"crc32.{name}") == _checksum(arrays[name]) for name in arrays)


def _checksum(array: Tensor) -> str:
    """CRC-32 of an array's shape and bytes."""
    sum_ = zlib.crc32(f"{tuple(array.shape)}".encode())
    return f"{zlib.crc32(array.numpy().tobytes(), sum_):08x}"


def _checksum_of_all(arrays: Mapping[str, Tensor]) -> str:
    """CRC-32 of all arrays' names, shapes and bytes, as earlier versions wrote it."""
    sum_ = 0
    for name in sorted(arrays):
        sum_ = zlib.crc32(f"{name} {tuple(arrays[name].shape)}".encode(), sum_)
        sum_ = zlib.crc32(arrays[name].numpy().tobytes(), sum_)
    return f"{sum_:08x}"
