"""torchvision's own weights: found, or downloaded if asked for, and never unpickled as code."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.error import URLError
from urllib.parse import urlparse

import torch
import torchvision.models
from torch import Tensor

from cdal.models.errors import ModelError

Pretrained = Literal["auto"] | bool
"""True: needed, and downloaded if need be; False: not used; "auto": used if they are here."""

log = logging.getLogger(__name__)


def pretrained_weights(
    architecture: str, backbone: str | None, pretrained: Pretrained, folder: Path | None
) -> Mapping[str, Tensor] | None:
    """The ImageNet weights of torchvision for a network, or None if it starts from scratch.

    Args:
        architecture: the network's name.
        backbone: the name of its backbone in torchvision, None where that has none.
        pretrained: see ``Pretrained``.
        folder: where torchvision's weight files lie; None: torch's own cache.

    Raises:
        ModelError: the file is damaged, or was asked for and could not be downloaded.
    """
    if pretrained is False or (backbone is None and pretrained == "auto"):
        return None
    if backbone is None:
        raise ModelError(
            f"torchvision has no pretrained weights for {architecture}; bring your own, or do "
            "without."
        )
    weights = torchvision.models.get_model_weights(backbone).DEFAULT
    folder = folder or Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / Path(urlparse(weights.url).path).name
    if pretrained == "auto" and not file.is_file():
        _say_once(backbone, file)
        return None
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(
            model_dir=str(folder), map_location="cpu", progress=False, weights_only=True
        )
    except (URLError, TimeoutError) as error:
        raise ModelError(
            f"The pretrained weights of {backbone} could not be downloaded ({error}). "
            f"Put {file.name} into {folder}, or do without pretrained weights."
        ) from error
    except Exception as error:
        raise ModelError(f"{file} does not hold readable weights: {error}.") from error
    return state


@cache
def _say_once(architecture: str, file: Path) -> None:
    log.info(
        "No pretrained weights for %s: %s does not exist, so training starts from scratch.",
        architecture,
        file,
    )
