"""The weights that a network starts from: torchvision's, or those in a file that the user provides.

Files are never unpickled as code.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Literal
from urllib.error import URLError
from urllib.parse import urlparse

import torch
import torchvision.models
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cdal.models.errors import ModelError

Pretrained = Literal["auto"] | bool
"""True: required, downloaded if missing; False: not used; "auto": used if already on disk."""

PREFIXES: Mapping[str, str] = {"": "", "features.": "", "base.": "layer"}
"""Prefixes of tensor names in published weights, and ours in their place: torchvision's mobilenets
keep their layers in ``features``, the DRN authors' segmentation networks in a numbered ``base``."""

log = logging.getLogger(__name__)


def pretrained_weights(
    architecture: str, backbone: str | None, pretrained: Pretrained, folder: Path | None
) -> Mapping[str, Tensor] | None:
    """Weights of torchvision, trained on ImageNet, or None if the network starts from scratch.

    Args:
        architecture: the network's name.
        backbone: the name of its backbone in torchvision; None if torchvision has no weights.
        pretrained: see ``Pretrained``.
        folder: the folder of torchvision's weight files; None: torch's own cache.

    Raises:
        ModelError: the file is damaged, or is required and could not be downloaded.
    """
    if pretrained is False or (backbone is None and pretrained == "auto"):
        return None
    if backbone is None:
        raise ModelError(
            f"torchvision has no pretrained weights for {architecture}; provide your own, or start "
            "without pretrained weights."
        )
    weights = torchvision.models.get_model_weights(backbone).DEFAULT
    folder = folder or Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / Path(urlparse(weights.url).path).name
    if pretrained == "auto" and not file.is_file():
        _log_once(backbone, file)
        return None
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(
            model_dir=str(folder), map_location="cpu", progress=False, weights_only=True
        )
    except (URLError, TimeoutError) as error:
        raise ModelError(
            f"The pretrained weights of {backbone} could not be downloaded ({error}). "
            f"Put {file.name} into {folder}, or start without pretrained weights."
        ) from error
    except Exception as error:
        raise ModelError(f"{file} does not hold readable weights: {error}.") from error
    return state


def read_weights_file(file: Path) -> dict[str, Tensor]:
    """Weights that the user provides: a safetensors file, or a state dict saved with torch.

    Nothing in such a file is executed: anything but tensors in plain containers is refused.

    Raises:
        ModelError: the file cannot be read, holds no named tensors, or has values that are not
            finite.
    """
    weights = _tensors(file)
    for name, tensor in weights.items():
        # A meta tensor has a shape but no values.
        if tensor.is_meta or (tensor.is_floating_point() and not tensor.isfinite().all()):
            raise ModelError(
                f"{file} cannot be used as initial weights: not all values of {name} are finite."
            )
    return weights


def _tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, with unchecked values."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"The file {file} does not exist.") from error
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} does not hold readable weights: {error}.") from error
    # Torch does not document what it raises for a damaged file, and its message for a file with
    # anything but tensors advises running its code.
    except Exception as error:
        raise ModelError(
            f"{file} does not hold readable weights: it is damaged, or it contains objects other "
            "than named tensors, which could run code; save only the network's state_dict()."
        ) from error
    for wrapper in (
        "state_dict",
        "model",
        "model_state_dict",
    ):  # as training scripts save them
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    tensors = found if isinstance(found, dict) else {}
    tensors = {str(name): value for name, value in tensors.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ModelError(f"{file} does not hold a state dict: it has no named tensors.")
    return {name.removeprefix("module."): value for name, value in tensors.items()}


def adopt(module: nn.Module, weights: Mapping[str, Tensor], architecture: str) -> int:
    """Load the weights that match a module's tensors by name and shape.

    They may belong to the whole network or to one of its parts, such as its backbone. Layers for
    another number of classes do not match and stay as they are.

    Returns:
        The number of tensors loaded.

    Raises:
        ModelError: fewer than half of the module's tensors match.
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
            f"The weights do not fit {architecture}: only {len(best)} of its {len(own)} tensors "
            "match by name and shape."
        )
    module.load_state_dict({**own, **best})
    return len(best)


@cache
def _log_once(architecture: str, file: Path) -> None:
    log.info(
        "No pretrained weights for %s: %s does not exist, so training starts from scratch.",
        architecture,
        file,
    )
