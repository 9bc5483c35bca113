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
from urllib.parse import urlparse

import torch
import torchvision.models
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import Weights

from cdal.models.errors import ModelError
from cdal.models.weight_sources import RANDOM, Origin, WeightSources, download, file_digest

Pretrained = Literal["auto"] | bool
"""True: required; False: not used; "auto": used if available."""

PREFIXES: Mapping[str, str] = {"": "", "features.": "", "base.": "layer"}
"""Prefixes of tensor names in published weights, and ours in their place: torchvision's mobilenets
keep their layers in ``features``, the DRN authors' segmentation networks in a numbered ``base``."""

log = logging.getLogger(__name__)


def pretrained_weights(
    architecture: str, backbone: str | None, pretrained: Pretrained, sources: WeightSources
) -> tuple[Mapping[str, Tensor] | None, Origin]:
    """Torchvision's weights of the whole network, trained on COCO if it finds objects, or those of
    its backbone, trained on ImageNet.

    Args:
        architecture: the network's name.
        backbone: the name of its backbone in torchvision; None if torchvision has no weights.
        pretrained: see ``Pretrained``.
        sources: where they may come from.

    Returns:
        The weights, None if the network starts from scratch; and what that amounts to.

    Raises:
        ModelError: a file is damaged, or pretrained weights are required and not available.
    """
    if pretrained is False:
        return None, Origin(RANDOM)
    wishes = published_weights(architecture, backbone)
    if not wishes and pretrained is True:
        raise ModelError(
            f"torchvision has no pretrained weights for {architecture}; provide your own, or start "
            "without pretrained weights."
        )
    reasons: list[str] = []
    for wish in wishes:
        try:
            file, source = _find(wish, sources)
        except ModelError as error:
            reasons.append(str(error))
            continue
        return read_weights_file(file), Origin(
            str(wish), source, file_digest(file), " ".join(reasons)
        )
    if pretrained is True:
        raise ModelError(" ".join(reasons))
    if not wishes:
        return None, Origin(RANDOM, shortfall=f"Nobody publishes weights of {architecture}.")
    _log_once(architecture, " ".join(reasons))
    return None, Origin(RANDOM, shortfall=" ".join(reasons))


def has_weights_of(architecture: str, sources: WeightSources) -> bool:
    """Whether torchvision's weights of a whole network are on this machine, or could be fetched."""
    try:
        _find(published_weights(architecture, None)[0], sources)
    except ModelError:
        return False
    return True


def published_weights(architecture: str, backbone: str | None) -> list[Weights]:
    """Torchvision's weights of a network and of its backbone, the most wanted first."""
    names = dict.fromkeys((architecture, backbone))
    known = [name for name in names if name in torchvision.models.list_models()]
    return [torchvision.models.get_model_weights(name).DEFAULT for name in known]


def _find(weights: Weights, sources: WeightSources) -> tuple[Path, str]:
    """A file of published weights and where it came from: of this machine, or downloaded.

    Raises:
        ModelError: there is none; the message says what to do.
    """
    name = Path(urlparse(weights.url).path).name
    for file in sources.find([name]):
        return file, str(file)
    advice = f"Put {name} into {sources.folder or sources.kept}"
    if not sources.downloads:
        raise ModelError(
            f"This machine has no weights {weights}, and downloads are off. Allow downloads, or "
            f"{advice[:1].lower()}{advice[1:]}."
        )
    file = sources.kept / name
    try:
        download(weights.url, file, sources)
    except (OSError, ValueError) as error:  # URLError and TimeoutError are OSErrors
        raise ModelError(
            f"The weights {weights} could not be downloaded from {weights.url} ({error}). "
            f"{advice}, or start without pretrained weights."
        ) from error
    return file, weights.url


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
def _log_once(architecture: str, why: str) -> None:
    log.info("%s is trained from scratch. %s", architecture, why)
