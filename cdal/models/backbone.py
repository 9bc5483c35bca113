"""A frozen pretrained network that turns images into features, by name: ``timm:NAME``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Self
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from cdal.models.backbone_weights import EMBEDDED, Published, WeightSources, find_weights
from cdal.models.errors import ModelError
from cdal.models.features import KeptFeatures

PREFIX = "timm:"
DEFAULT_BACKBONE = PREFIX + EMBEDDED

STRIDES = (4, 8, 16, 32)
"""Of the feature maps for dense tasks, where the network has them."""

EMBEDDED_MEAN, EMBEDDED_STD = 127 / 255, 128 / 255
"""The published network takes images as (x - 127) / 128, for x from 0 to 255."""


@dataclass(frozen=True, slots=True)
class BackboneRecord:
    """What a model began from, for its manifest and for people.

    Attributes:
        name: such as "timm:resnet50".
        source: the file, the address or the package that its weights came from.
        sha256: of its weights, whatever file they came in.
        features: the number of its pooled features.
        channels: the numbers of channels of its maps, from the finest to the coarsest.
    """

    name: str
    source: str
    sha256: str
    features: int
    channels: tuple[int, ...]

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read what a manifest keeps of it.

        Raises:
            ModelError: it is something else.
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
    """A frozen network on one device. It may be used from several threads.

    Attributes:
        record: what it is.
        mean, std: of the channels of its images in [0, 1].
        strides: of its maps.
        kept: features of images that were shown to it.
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
        self._module = module.to(device).to(memory_format=torch.channels_last).eval()
        self._module.requires_grad_(requires_grad=False)

    @torch.inference_mode()
    def pooled(self, images: Tensor) -> Tensor:
        """Features of whole images.

        Args:
            images: normalised, (B, 3, H, W) float32, on the device.

        Returns:
            (B, D), of the precision that the caller's autocast asks for.
        """
        features: Tensor = self._module(images)
        return features

    @torch.inference_mode()
    def maps(self, images: Tensor) -> list[Tensor]:
        """Features of places, from the finest map to the coarsest.

        Args:
            images: normalised, (B, 3, H, W) float32, on the device; H and W multiples of 32.

        Returns:
            For each of ``strides`` a map (B, channels, H / stride, W / stride).
        """
        found: list[Tensor] = self._module.forward_intermediates(
            images, indices=self._indices, intermediates_only=True
        )
        return found


_open: WeakValueDictionary[tuple[str, str, str], Backbone] = WeakValueDictionary()
"""What is in use, by name, device and hash: networks of several projects share one backbone."""
_lock = Lock()


def is_backbone(name: str) -> bool:
    """Whether an architecture is a head on a backbone."""
    return name.startswith(PREFIX)


def check_backbone(name: str) -> None:
    """Check that timm has a network of this name.

    Raises:
        ModelError: it has none.
    """
    import timm  # takes seconds, and not all who import cdal.models need it

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
    """A pretrained backbone; while one is in use, all who open it share it.

    Args:
        name: such as "timm:resnet50" or "timm:resnet50.a1_in1k".
        device: where it runs.
        sources: where its weights may come from; None: what lies on this machine.
        sha256: of the weights that are wanted, as in ``BackboneRecord``; None: any.

    Raises:
        ModelError: timm has no such network, or its weights are missing, damaged, or others than
            wanted; the message says what to do.
    """
    with _lock:
        for (other, where, digest), backbone in _open.items():
            if (other, where) == (name, str(device)) and sha256 in (None, digest):
                return backbone
        check_backbone(name)
        backbone = _load(name, device, sources or WeightSources())
        found = backbone.record
        if sha256 not in (None, found.sha256):
            raise ModelError(
                f"The model was trained on other weights of {name} than those of {found.source}. "
                "Put back the file that it was trained with, or train again."
            )
        return _open.setdefault((name, str(device), found.sha256), backbone)


def best_backbone(
    names: Sequence[str], device: torch.device, sources: WeightSources | None = None
) -> tuple[Backbone, str]:
    """The first of these backbones that can be opened, and why it is not the very first: one or
    more sentences, or "".

    Raises:
        ModelError: none of them can.
    """
    reasons: list[str] = []
    for name in names:
        try:
            return open_backbone(name, device, sources), " ".join(reasons)
        except ModelError as error:
            reasons.append(str(error))
    raise ModelError(" ".join(reasons))


def _load(name: str, device: torch.device, sources: WeightSources) -> Backbone:
    module = _build(name.removeprefix(PREFIX))
    config: Mapping[str, Any] = module.pretrained_cfg
    published = Published(
        name.removeprefix(PREFIX), config.get("hf_hub_id") or "", config.get("url") or ""
    )
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
    """The network of timm without its classes, with random weights."""
    import timm

    try:
        # For images of any size.
        return timm.create_model(name, num_classes=0, dynamic_img_size=True, dynamic_img_pad=True)
    except TypeError:  # it has no such settings: convolutions need none
        return timm.create_model(name, num_classes=0)


def _levels(module: Any) -> list[tuple[int, int, int]]:
    """For each map that dense tasks use its number in timm, its stride and its channels.

    They are the last ones of each of ``STRIDES``; a transformer has one stride alone, and of that
    its last map is used.
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
        module: timm's, without its classes.
        weights: by timm's names, or in its order.
        source: what they came from.
        in_order: whether the weights may have other names, in the same order.

    Raises:
        ModelError: they are of another network.
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
            f"The weights of {source} are of another network: {len(missing)} of {len(own)} tensors "
            f"are missing or have another shape, such as {missing[0]}."
        )
    module.load_state_dict({name: weights[name] for name in own}, strict=False)


def _is_weight(name: str) -> bool:
    return not name.endswith("num_batches_tracked")


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of a network's weights, with their names, types and shapes: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if _is_weight(name):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
