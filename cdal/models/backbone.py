"""A frozen pretrained network that turns images into features, by name: ``timm:NAME``."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Self
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from cdal.models.backbone_weights import (
    EMBEDDED,
    Published,
    find_weights,
    local_file,
)
from cdal.models.errors import ModelError
from cdal.models.features import KeptFeatures
from cdal.models.weight_sources import WeightSources

PREFIX = "timm:"
DEFAULT_BACKBONE = PREFIX + EMBEDDED

DEFAULT_BACKBONES: Mapping[str, tuple[str, ...]] = {
    "cpu": (DEFAULT_BACKBONE,),
    "cuda": (f"{PREFIX}convnext_tiny.in12k_ft_in1k", DEFAULT_BACKBONE),
}
"""The default backbones by type of device, the most wanted first; docs/training.md has reasons."""

STRIDES = (4, 8, 16, 32)
"""Of the feature maps for dense tasks, where the network has them."""

EMBEDDED_MEAN, EMBEDDED_STD = 127 / 255, 128 / 255
"""The published network expects (x - 127) / 128, with x from 0 to 255."""


@dataclass(frozen=True, slots=True)
class BackboneRecord:
    """What a model started from, for its manifest and for people.

    Attributes:
        name: such as "timm:resnet50".
        source: the file, address or package that its weights came from.
        sha256: the hash of its weights, the same in whatever file they came.
        features: the number of its pooled features.
        channels: the number of channels of each of its maps, from the finest to the coarsest.
    """

    name: str
    source: str
    sha256: str
    features: int
    channels: tuple[int, ...]

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read a record from a manifest.

        Raises:
            ModelError: the data are not a record.
        """
        try:
            record = cls(**{**data, "channels": tuple(data["channels"])})
        except (TypeError, KeyError) as error:
            raise ModelError("The manifest's backbone is not readable.") from error
        texts = (record.name, record.source, record.sha256)
        numbers = (record.features, *record.channels)
        if {type(text) for text in texts} != {str} or {type(n) for n in numbers} != {int}:
            raise ModelError("The manifest's backbone is not readable.")
        return record


class Backbone:
    """A frozen network on one device. Several threads may use it at once.

    Attributes:
        record: its name, and where its weights came from.
        module: its layers, without a classifier.
        mean, std: what its images, in [0, 1], are normalised with, per channel.
        strides: the strides of its maps.
        kept: the features of images it has seen.
    """

    def __init__(
        self,
        module: Any,
        record: BackboneRecord,
        levels: Sequence[tuple[int, int]],
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ) -> None:
        self.record = record
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.device = device
        self.strides = tuple(stride for _, stride in levels)
        self.kept = KeptFeatures()
        self._indices = [index for index, _ in levels]
        self.module = module.to(device).to(memory_format=torch.channels_last).eval()
        self.module.requires_grad_(requires_grad=False)

    def weights(self) -> dict[str, Tensor]:
        """Its weights by timm's names, without those of a classifier."""
        found: dict[str, Tensor] = self.module.state_dict()
        return found

    @torch.inference_mode()
    def pooled(self, images: Tensor) -> Tensor:
        """Features of whole images.

        Args:
            images: normalised, (B, 3, H, W) float32, on the device.

        Returns:
            (B, D), in the precision of the caller's autocast.
        """
        features: Tensor = self.module(images)
        return features

    @torch.inference_mode()
    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps, from the finest to the coarsest.

        Args:
            images: normalised, (B, 3, H, W) float32, on the device; H and W multiples of 32.

        Returns:
            One map per stride, (B, channels, H / stride, W / stride).
        """
        found: list[Tensor] = self.module.forward_intermediates(
            images, indices=self._indices, intermediates_only=True
        )
        return found


KEPT = 2
"""Backbones that stay open although nobody uses them: the next job does not load them again."""

_Key = tuple[str, str, str]
"""Name, device and hash."""

_open: WeakValueDictionary[_Key, Backbone] = WeakValueDictionary()
"""The open backbones: the networks of several projects share one."""
_recent: OrderedDict[_Key, Backbone] = OrderedDict()
_hashes: dict[tuple[str, Path, int], str] = {}
"""The hash of a network's weights in a file, by name, file and time of modification."""
_lock = Lock()


def is_backbone(name: str) -> bool:
    """Whether an architecture is a head on a backbone."""
    return name.startswith(PREFIX)


def check_backbone(name: str) -> None:
    """Check that timm has a network of this name.

    Raises:
        ModelError: it does not.
    """
    import timm  # slow to import, and most users of cdal.models do not need it

    if not timm.is_model(name.removeprefix(PREFIX)):
        base = name.removeprefix(PREFIX).partition(".")[0]
        similar = timm.list_models(f"*{base}*")[:5]
        hint = f" Similar: {', '.join(PREFIX + other for other in similar)}." if similar else ""
        raise ModelError(f'timm has no network "{name.removeprefix(PREFIX)}".{hint}')


def open_backbone(
    name: str,
    device: torch.device,
    sources: WeightSources | None = None,
    sha256: str | None = None,
) -> Backbone:
    """Open a pretrained backbone, or share one with the same weights that is open already.

    Args:
        name: such as "timm:resnet50" or "timm:resnet50.a1_in1k".
        device: where it runs.
        sources: where its weights may come from; None: only this machine.
        sha256: the hash that its weights must have, see ``BackboneRecord``; None: any.

    Raises:
        ModelError: timm has no such network, or its weights are missing, damaged, or not the
            required ones; the message says what to do.
    """
    sources = sources or WeightSources()
    with _lock:
        digest = sha256
        if digest is None:
            check_backbone(name)
            digest = _hash_on_this_machine(name, sources)
        backbone = _open.get((name, str(device), digest or ""))
    if backbone is None:
        # Not while others wait: there may be a download.
        backbone = _load_checked(name, device, sources, sha256)
    key = (name, str(device), backbone.record.sha256)
    with _lock:
        backbone = _open.setdefault(key, backbone)
        _recent[key] = backbone
        _recent.move_to_end(key)
        while len(_recent) > KEPT:
            _recent.popitem(last=False)
        return backbone


def best_backbone(
    names: Sequence[str], device: torch.device, sources: WeightSources | None = None
) -> tuple[Backbone, str]:
    """Open the first of these backbones that is available.

    Returns:
        The backbone, and why those before it could not be opened: sentences, or "".

    Raises:
        ModelError: none of them is available.
    """
    reasons: list[str] = []
    for name in names:
        try:
            return open_backbone(name, device, sources), " ".join(reasons)
        except ModelError as error:
            reasons.append(str(error))
    raise ModelError(" ".join(reasons))


def default_backbone(
    device: torch.device, sources: WeightSources | None = None
) -> tuple[Backbone, str]:
    """The default backbone of a device; see ``best_backbone``."""
    return best_backbone(DEFAULT_BACKBONES[device.type], device, sources)


def _published(name: str) -> Published:
    import timm

    # None for an architecture without published weights.
    config: Any = timm.get_pretrained_cfg(name.removeprefix(PREFIX))
    repository, url = getattr(config, "hf_hub_id", None), getattr(config, "url", None)
    return Published(name.removeprefix(PREFIX), repository or "", url or "")


def _hash_on_this_machine(name: str, sources: WeightSources) -> str | None:
    """The hash of the weights on this machine, if they were loaded before."""
    file = local_file(_published(name), sources)
    return None if file is None else _hashes.get((name, file, file.stat().st_mtime_ns))


def _load_checked(
    name: str, device: torch.device, sources: WeightSources, sha256: str | None
) -> Backbone:
    check_backbone(name)
    backbone = _load(name, device, sources)
    found = backbone.record
    if sha256 not in (None, found.sha256):
        raise ModelError(
            f"The model was trained on other weights of {name} than those in {found.source}. "
            "Restore the file that it was trained with, or train again."
        )
    file = local_file(_published(name), sources)
    if file is not None:
        _hashes[name, file, file.stat().st_mtime_ns] = found.sha256
    return backbone


def _load(name: str, device: torch.device, sources: WeightSources) -> Backbone:
    module = _build(name.removeprefix(PREFIX))
    config: Mapping[str, Any] = module.pretrained_cfg
    published = _published(name)
    weights, source = find_weights(published, sources)
    mean, std = config["mean"], config["std"]
    if published.is_embedded:
        mean, std = (EMBEDDED_MEAN,) * 3, (EMBEDDED_STD,) * 3
    _fill(module, weights, source, in_order=published.is_embedded)
    levels = _levels(module)
    record = BackboneRecord(
        name=name,
        source=source,
        sha256=weights_digest(module),
        features=int(getattr(module, "head_hidden_size", None) or module.num_features),
        channels=tuple(channels for _, _, channels in levels),
    )
    return Backbone(module, record, [level[:2] for level in levels], mean, std, device)


def _build(name: str) -> Any:
    """Timm's network without its classifier, with random weights."""
    import timm

    try:
        # Transformers need these settings to accept images of any size.
        return timm.create_model(name, num_classes=0, dynamic_img_size=True, dynamic_img_pad=True)
    except TypeError:  # convolutional networks do not have them
        return timm.create_model(name, num_classes=0)


def _levels(module: Any) -> list[tuple[int, int, int]]:
    """Timm's index, the stride and the channels of each map that dense tasks use.

    They are the last map at each of ``STRIDES``. A transformer has a single stride; its last map is
    used.
    """
    if not hasattr(module, "forward_intermediates"):
        return []
    found = list(module.feature_info)
    known = {
        int(info["reduction"]): (index, int(info["reduction"]), int(info["num_chs"]))
        for index, info in enumerate(found)
    }
    return [known[stride] for stride in STRIDES if stride in known] or list(known.values())[-1:]


def _fill(module: nn.Module, weights: Mapping[str, Tensor], source: str, in_order: bool) -> None:
    """Give a network its pretrained weights.

    Args:
        module: timm's network, without its classifier.
        weights: by timm's names, or in its order.
        source: where they came from.
        in_order: whether the weights may have other names, but in the same order.

    Raises:
        ModelError: they belong to another network.
    """
    own = {name: value for name, value in module.state_dict().items() if _is_weight(name)}
    if in_order and not own.keys() <= weights.keys():
        values = [value for name, value in weights.items() if _is_weight(name)]
        weights = dict(zip(own, values, strict=False))
    missing = [
        name
        for name, value in own.items()
        if name not in weights or weights[name].shape != value.shape
    ]
    if missing:
        raise ModelError(
            f"The weights in {source} belong to another network: {len(missing)} of {len(own)} "
            f"tensors are missing or have another shape, such as {missing[0]}."
        )
    module.load_state_dict({name: weights[name] for name in own}, strict=False)


def _is_weight(name: str) -> bool:
    return not name.endswith("num_batches_tracked")


def weights_digest(module: nn.Module) -> str:
    """The SHA-256 of a network's weights, names, types and shapes: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if _is_weight(name):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
