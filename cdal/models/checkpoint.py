"""Weights and manifest in a folder, written as a whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cdal.models.errors import ModelError
from cdal.models.manifest import Manifest

WEIGHTS = "weights.safetensors"
MANIFEST = "manifest.json"


def write(folder: Path, manifest: Manifest, weights: Mapping[str, Tensor]) -> None:
    """Write both files to a new folder, under another name until they are complete.

    Raises:
        ModelError: the folder exists.
    """
    if folder.exists():
        raise ModelError(f"{folder} exists; a network is saved to a new folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        save_file(plain, unfinished / WEIGHTS)
        (unfinished / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def read(folder: Path) -> tuple[Manifest, dict[str, Tensor]]:
    """Read both files.

    Raises:
        ModelError: one is missing or damaged.
    """
    try:
        manifest = Manifest.from_json((folder / MANIFEST).read_text(encoding="utf-8"))
        return manifest, load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise ModelError(f"{error.filename or folder / WEIGHTS} is missing.") from error
    except (OSError, UnicodeDecodeError, SafetensorError) as error:
        raise ModelError(f"{folder} does not hold a readable network: {error}.") from error
