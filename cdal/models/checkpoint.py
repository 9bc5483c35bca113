"""A network on disk: weights and manifest in one folder, written completely or not at all."""

from __future__ import annotations

import errno
import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cdal.durable import sync_file, sync_folder
from cdal.models.errors import ModelError
from cdal.models.manifest import Manifest

WEIGHTS = "weights.safetensors"
MANIFEST = "manifest.json"
DIGEST = "weights.sha256"
"""Checksums of the two, in the format of `sha256sum`."""

PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT})
"""What says nothing of the files: too many are open, or a network drive does not answer. Taken for
damage, it would let an older model serve."""


def write(folder: Path, manifest: Manifest, weights: Mapping[str, Tensor]) -> None:
    """Write weights, manifest and checksum to a new folder.

    They are written under a temporary name first, so that a kill or a power loss never leaves an
    incomplete folder under the final name.

    Raises:
        ModelError: the folder already exists.
    """
    if folder.exists():
        raise ModelError(f"{folder} already exists; save the network to a new folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        save_file(plain, unfinished / WEIGHTS)
        (unfinished / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        digests = [f"{_digest(unfinished / name)}  {name}\n" for name in (WEIGHTS, MANIFEST)]
        (unfinished / DIGEST).write_text("".join(digests))
        for file in (WEIGHTS, MANIFEST, DIGEST):
            sync_file(unfinished / file)
        sync_folder(unfinished)
        unfinished.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def read(folder: Path) -> tuple[Manifest, dict[str, Tensor]]:
    """Read the manifest and the weights.

    Raises:
        ModelError: a file is missing or damaged.
        OSError: the system has no room to open it now, or the network drive is away.
    """
    try:
        manifest = Manifest.from_json((folder / MANIFEST).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS)
        if not _is_intact(folder):
            raise ModelError(f"{folder} does not hold a readable network: the checksum differs.")
        return manifest, weights
    except FileNotFoundError as error:
        raise ModelError(f"{error.filename or folder / WEIGHTS} is missing.") from error
    except (OSError, ValueError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno in PASSING:
            raise
        raise ModelError(f"{folder} does not hold a readable network: {error}.") from error


def check_weights(folder: Path) -> None:
    """Check that the files of a saved network exist and are intact.

    Raises:
        ModelError: a file is missing or damaged.
    """
    read(folder)


def fill(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load all weights of a module.

    Raises:
        ModelError: the names or shapes differ.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelError(f"The weights do not fit the manifest: {reason}") from error


def _is_intact(folder: Path) -> bool:
    """Whether the files have their checksums; earlier versions wrote none, or only the weights'."""
    digests = folder / DIGEST
    if not digests.exists():
        return True
    recorded = {name: digest for digest, name in map(str.split, digests.read_text().splitlines())}
    if WEIGHTS not in recorded or not recorded.keys() <= {WEIGHTS, MANIFEST}:
        return False
    return all(_digest(folder / name) == digest for name, digest in recorded.items())


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
