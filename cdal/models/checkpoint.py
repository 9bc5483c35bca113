"""Weights and manifest in a folder, written as a whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cdal.models.durable import sync_file, sync_folder
from cdal.models.errors import ModelError
from cdal.models.manifest import Manifest

WEIGHTS = "weights.safetensors"
MANIFEST = "manifest.json"
DIGEST = "weights.sha256"
"""As `sha256sum` writes and checks it."""

PREFIXES: Mapping[str, str] = {"": "", "features.": "", "base.": "layer"}
"""How names begin in others' weights, and in ours: torchvision's mobilenets have their features in
a part of that name, and the authors' segmentation networks of DRN number the levels of a base."""


def write(folder: Path, manifest: Manifest, weights: Mapping[str, Tensor]) -> None:
    """Write both files to a new folder, under another name until they are complete.

    After a kill or a power loss there is all of it or nothing under the folder's own name.

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
        (unfinished / DIGEST).write_text(f"{_digest(unfinished / WEIGHTS)}  {WEIGHTS}\n")
        for file in (WEIGHTS, MANIFEST, DIGEST):
            sync_file(unfinished / file)
        sync_folder(unfinished)
        unfinished.rename(folder)
        sync_folder(folder.parent)
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
        weights = load_file(folder / WEIGHTS)
        digest = folder / DIGEST
        # Folders of earlier versions have none.
        if digest.exists() and digest.read_text().split()[:1] != [_digest(folder / WEIGHTS)]:
            raise ModelError(f"{folder} does not hold a readable network: its checksum differs.")
        return manifest, weights
    except FileNotFoundError as error:
        raise ModelError(f"{error.filename or folder / WEIGHTS} is missing.") from error
    except (OSError, UnicodeDecodeError, SafetensorError) as error:
        raise ModelError(f"{folder} does not hold a readable network: {error}.") from error


def check_weights(folder: Path) -> None:
    """Check that the files of a network are there and whole.

    Raises:
        ModelError: one is missing or damaged.
    """
    read(folder)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_own(file: Path) -> dict[str, Tensor]:
    """The weights that a user brings: a safetensors file, or a state dict as torch saves it.

    Nothing in such a file is run: what is not tensors in plain containers is refused.

    Raises:
        ModelError: it cannot be read, holds no tensors by name, or some that are no numbers.
    """
    weights = _tensors(file)
    for name, tensor in weights.items():
        # What torch calls meta has a shape and nothing in it.
        if tensor.is_meta or (tensor.is_floating_point() and not tensor.isfinite().all()):
            raise ModelError(
                f"{file} cannot be started from: not all of {name} are finite numbers."
            )
    return weights


def _tensors(file: Path) -> dict[str, Tensor]:
    """What ``read_own`` reads, whatever numbers there are."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"There is no file {file}.") from error
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} does not hold readable weights: {error}.") from error
    # What a damaged file makes torch raise is not documented, and its words for a file with other
    # things than tensors advise to let it run code.
    except Exception as error:
        raise ModelError(
            f"{file} does not hold readable weights: it is damaged, or has other things in it than "
            "tensors by name, which may be code; save the network's state_dict() alone."
        ) from error
    for wrapper in ("state_dict", "model", "model_state_dict"):  # as training scripts save them
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    tensors = found if isinstance(found, dict) else {}
    tensors = {str(name): value for name, value in tensors.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ModelError(f"{file} holds no state dict: no tensors by name.")
    return {name.removeprefix("module."): value for name, value in tensors.items()}


def adopt(module: nn.Module, weights: Mapping[str, Tensor], architecture: str) -> int:
    """Take the weights that fit by name and shape, which are few where the classes differ.

    They may be those of the whole network or of one of its parts, such as its backbone.

    Returns:
        How many tensors were taken.

    Raises:
        ModelError: less than half of the module's tensors are among them.
    """
    own = module.state_dict()
    parts = ["", *(f"{name}." for name, _ in module.named_modules() if name)]
    best: dict[str, Tensor] = {}
    for part, (old, new) in product(parts, PREFIXES.items()):
        named = {
            part + (new + name.removeprefix(old) if name.startswith(old) else name): tensor
            for name, tensor in weights.items()
        }
        fitting = {
            name: tensor
            for name, tensor in named.items()
            if name in own and own[name].shape == tensor.shape
        }
        best = max(best, fitting, key=len)
    if 2 * len(best) < len(own):
        raise ModelError(
            f"The weights don't fit {architecture}: only {len(best)} of its {len(own)} tensors "
            "are among them by name and shape."
        )
    module.load_state_dict({**own, **best})
    return len(best)


def fill(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a module its weights.

    Raises:
        ModelError: names or shapes differ.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelError(f"The weights don't fit the manifest: {reason}") from error
