"""Learning Loss (Yoo and Kweon, CVPR 2019): a module that learns to rank images by their loss.

It sits beside a task network, on the feature maps within it, and both are trained together. In the
paper's words (section 3.2): global average pooling and a fully connected layer per map, all of them
concatenated, and one more layer for the loss. Only differences of predictions are learnt (section
3.3, equation 2), since losses fall as training goes on.

Departures: the maps are the last of each resolution of whatever network it is, where the paper
names four of a ResNet-18 and the six of an SSD; the optimiser is the network's own, AdamW, instead
of SGD; the loss of an image to be ranked has no label smoothing and no class weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from torchvision.ops import box_iou

from cdal.models.detection.architectures import DETECTORS
from cdal.models.detection.ssd import Ssd
from cdal.models.devices import seeded
from cdal.models.errors import ModelError
from cdal.models.head import HeadNetwork
from cdal.models.network import TaskNetwork
from cdal.models.predictions import IGNORED
from cdal.models.segmentation.network import enlarge

WIDTH = 128
"""The outputs of the layer behind each map."""
MOST_MAPS = 6
MARGIN = 1.0
"""ξ of equation 2."""
TOGETHER = 0.6
"""For this share of the training the module's loss also changes the task network (section 4.1)."""
EMPTY_ANCHORS = 3
"""The hardest anchors that make the loss of an image without boxes."""


class LossModule(nn.Module):
    """Feature maps of B images, one tensor per level, to one number per image."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Linear(count, WIDTH) for count in channels)
        self.last = nn.Linear(WIDTH * len(channels), 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, channels, h, w) to (B,)."""
        hidden = [
            functional.relu(level(each.mean((2, 3))))
            for level, each in zip(self.levels, maps, strict=True)
        ]
        predicted: Tensor = self.last(torch.cat(hidden, 1))
        return predicted[:, 0]


class LossPredictor:
    """A loss module on a network's own feature maps; a companion of its training, see ``fit``.

    As a context manager, it listens to the network's forward passes until the end of the block.

    Args:
        network: for any task, trained in full; of detectors, SSD and SSDlite.
        weight: λ of equation 3.
        seed: of the module's initial weights.

    Raises:
        ModelError: the network is a head, or a detector of another family.
    """

    def __init__(self, network: TaskNetwork, weight: float = 1.0, seed: int = 0) -> None:
        if isinstance(network, HeadNetwork):
            raise ModelError("A loss predictor needs a network that is trained in full.")
        name = network.manifest.architecture
        if network.task == "detection" and not isinstance(DETECTORS[name].family, Ssd):
            raise ModelError(f"A loss predictor needs an SSD, and {name} is none.")
        self._network = network
        self._weight = weight
        self._hooks: list[RemovableHandle] = []
        self._maps: dict[str, Tensor] = {}
        self._outputs: dict[str, Any] = {}
        levels = _levels(network)
        self._levels = list(levels)
        with seeded(seed, torch.device("cpu")):
            module = LossModule(list(levels.values()))
        self.module = module.to(network.device)

    def __enter__(self) -> Self:
        body = self._network.module
        for name in self._levels:
            self._hooks.append(body.get_submodule(name).register_forward_hook(self._keep_map(name)))
        parts = {"all": body}
        if self._network.task == "detection":
            parts = {
                "head": body.get_submodule("head"),
                "anchors": body.get_submodule("anchor_generator"),
            }
        for name, part in parts.items():
            self._hooks.append(part.register_forward_hook(self._keep_output(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def loss(self, targets: Sequence[Tensor], share: float) -> Tensor:
        """The module's loss, times λ, on the batch that the network has just seen.

        Args:
            targets: of the batch, as prepared for the network.
            share: of the training that is done.
        """
        maps = [self._maps[name][: len(targets)].float() for name in self._levels]
        if share >= TOGETHER:
            maps = [each.detach() for each in maps]
        with torch.no_grad():
            real = self.image_losses(targets)
        return self._weight * ranking_loss(self.module(maps), real)

    def predicted(self) -> Tensor:
        """What the module says of each image of the last batch, (B,) float32."""
        predicted: Tensor = self.module([self._maps[name].float() for name in self._levels])
        return predicted.float()

    def image_losses(self, targets: Sequence[Tensor]) -> Tensor:
        """The task's loss of each image of the last batch, (B,) float32."""
        device = self._network.device
        if self._network.task == "detection":
            return self._of_boxes([target.to(device) for target in targets])
        logits = self._outputs["all"][1][: len(targets)].float()
        wanted = torch.stack(list(targets)).to(device).long()
        if self._network.task == "classification":
            return functional.cross_entropy(logits, wanted, reduction="none")
        losses = functional.cross_entropy(
            enlarge(logits, wanted.shape[1:]), wanted, ignore_index=IGNORED, reduction="none"
        )
        return losses.sum((1, 2)) / (wanted != IGNORED).sum((1, 2)).clamp(min=1)

    def _of_boxes(self, targets: Sequence[Tensor]) -> Tensor:
        model: Any = self._network.module
        outputs: dict[str, Tensor] = self._outputs["head"]
        losses = []
        for row, target in enumerate(targets):
            anchors = self._outputs["anchors"][row]
            mine = {name: output[row : row + 1].float() for name, output in outputs.items()}
            if len(target) == 0:
                background = -mine["cls_logits"].log_softmax(-1)[0, :, 0]
                losses.append(background.topk(min(EMPTY_ANCHORS, len(background))).values.sum())
                continue
            boxes = {"boxes": target[:, :4], "labels": target[:, 4].long() + 1}
            matched = model.proposal_matcher(box_iou(boxes["boxes"], anchors))
            found = model.compute_loss([boxes], mine, [anchors], [matched])
            losses.append(torch.stack(list(found.values())).sum())
        return torch.stack(losses)

    def _keep_map(self, name: str) -> Callable[..., None]:
        def keep(_: nn.Module, __: object, output: Tensor) -> None:
            self._maps[name] = output

        return keep

    def _keep_output(self, name: str) -> Callable[..., None]:
        def keep(_: nn.Module, __: object, output: Any) -> None:
            self._outputs[name] = output

        return keep


def ranking_loss(predicted: Tensor, real: Tensor) -> Tensor:
    """Equation 2: the mean over pairs of images of max(0, -sign(l_i - l_j)(p_i - p_j) + ξ).

    The first image is paired with the last, and so on; of an odd number, the middle one has none.

    Args:
        predicted: p, (B,).
        real: l, (B,).
    """
    pairs = len(real) // 2
    if pairs == 0:
        return predicted.sum() * 0
    wanted = (real[:pairs] - real.flip(0)[:pairs]).sign()
    apart = predicted[:pairs] - predicted.flip(0)[:pairs]
    return (MARGIN - wanted * apart).clamp(min=0).mean()


def _levels(network: TaskNetwork) -> dict[str, int]:
    """The layer that makes the last map of each resolution, and its channels, by its name."""
    found: dict[tuple[int, int], tuple[str, int]] = {}
    hooks = []

    def note(name: str) -> Callable[..., None]:
        def keep(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                size = output.shape[2], output.shape[3]
                found.pop(size, None)  # to be the last one
                found[size] = name, output.shape[1]

        return keep

    body = "trunk" if network.task == "classification" else "backbone"
    for name, layer in network.module.get_submodule(body).named_modules(prefix=body):
        hooks.append(layer.register_forward_hook(note(name)))
    side = network.image_size
    try:
        network.predict(torch.zeros((2, 3, side, side), dtype=torch.uint8))
    finally:
        for hook in hooks:
            hook.remove()
    return dict(list(found.values())[-MOST_MAPS:])
