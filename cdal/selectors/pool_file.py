"""Reads a pool from NumPy's ``.npz``, without pickle. See ``docs/pool-format.md``."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from cdal.selectors.pool import Pool, PoolError

_FLOAT_ARRAYS = (
    "mixtures",
    "features",
    "probabilities",
    "uncertainties",
    "samples",
    "disagreements",
    "predicted_losses",
    "likely_labelled",
    "costs",
)
_ARRAYS = (*_FLOAT_ARRAYS, "present", "labelled", "region_counts", "image_of")


_DAMAGED = (EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What NumPy and zipfile raise; RuntimeError for what only other programs can unpack."""


def load_pool(path: Path) -> Pool:
    """Read a pool.

    ``mixtures`` and ``present`` are required; without ``labelled``, nothing is labelled. Floating
    types are converted to float32, integer region counts to int64; arrays with other names are
    ignored.

    Raises:
        PoolError: the file cannot be read, or is not a valid pool.
    """
    try:
        with path.open("rb") as file:
            arrays = _read_all(path, file)
    except FileNotFoundError:
        raise PoolError(f"{path} does not exist") from None
    except OSError as error:
        raise PoolError(f"{path} cannot be read: {error.strerror}") from error
    for name in ("mixtures", "present"):
        if name not in arrays:
            raise PoolError(f"{path} has no array {name}")
    arrays.setdefault("labelled", torch.zeros(arrays["mixtures"].shape[:1], dtype=torch.bool))
    return Pool(**arrays, beside=())


def _read_all(path: Path, file: BinaryIO) -> dict[str, Tensor]:
    try:
        archive = np.load(file, allow_pickle=False)
    except _DAMAGED as error:
        raise PoolError(f"{path} is not an .npz file") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise PoolError(f"{path} is a single array, not an .npz file of named arrays")
    with archive:
        return {name: _read(archive, name) for name in _ARRAYS if name in archive}


def _read(archive: np.lib.npyio.NpzFile, name: str) -> Tensor:
    try:
        array = archive[name]
    except (OSError, *_DAMAGED) as error:
        raise PoolError(f"{name} cannot be read: it is damaged or not numeric") from error
    except MemoryError as error:
        raise PoolError(f"{name} is larger than the memory") from error
    if name in _FLOAT_ARRAYS or (name == "region_counts" and array.dtype.kind == "f"):
        wanted, kinds = "float32", "f"
    elif name in ("region_counts", "image_of"):
        wanted, kinds = "int64", "iu"
    else:
        wanted, kinds = "bool", "b"
    if array.dtype.kind not in kinds:
        raise PoolError(f"{name} must be {wanted}, not {array.dtype.name}")
    return torch.from_numpy(np.asarray(array, dtype=wanted, order="C"))
