"""What small heads on a backbone's feature maps have in common: layers and training."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from cdal.models.devices import seeded
from cdal.models.errors import ModelError, Stopped
from cdal.models.features import ImageFeatures
from cdal.models.head import HeadNetwork, Tell
from cdal.models.letterbox import contents, letterbox, on_grid, padded
from cdal.models.network import check_image
from cdal.models.recipe import Plan, Recipe, learning_rate_share
from cdal.models.training import batch_order, parameter_groups

STRIDE = 8
"""Of a head's finest map, in pixels of the prepared image."""


class Merge(nn.Module):
    """Feature maps of several strides to one map at stride 8.

    A 1×1 convolution of maps that are brought to one size and put together is the sum of 1×1
    convolutions of each, brought to that size: so each is computed at its own stride, where
    coarse maps have few places.

    Args:
        channels: of the backbone's maps, from the finest to the coarsest.
        width: channels of the merged map.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        # Without weights of their own they do no more than standardise.
        self.standardise = nn.ModuleList(nn.BatchNorm2d(count, affine=False) for count in channels)
        self.reduce = nn.ModuleList(nn.Conv2d(count, width, 1, bias=False) for count in channels)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps (B, channels, h, w) of all strides to one of this size, (B, width, h, w)."""
        total = torch.zeros((), device=maps[0].device)
        for each, standardise, reduce in zip(maps, self.standardise, self.reduce, strict=True):
            if each.shape[2] > size[0]:
                each = functional.adaptive_avg_pool2d(each, size)
            reduced = reduce(standardise(each))
            if reduced.shape[2:] != size:
                reduced = functional.interpolate(
                    reduced, size=size, mode="bilinear", align_corners=False
                )
            total = total + reduced
        return functional.relu(self.norm(total))


def separable(width: int, norm: nn.Module, stride: int = 1) -> nn.Sequential:
    """A depthwise 3×3 and a 1×1 convolution, normalised."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False),
        norm,
        nn.ReLU(inplace=True),
    )


class MapHeadNetwork(HeadNetwork):
    """A head on a backbone's feature maps. Images keep their aspect ratio, see letterbox.py."""

    def prepare(self, image: Tensor) -> Tensor:
        """An image, (3, H, W) uint8, in a square, (3, S, S) uint8, with padding that is 0."""
        check_image(image)
        return letterbox(image, self.image_size)

    def extract(self, batch: Tensor) -> list[ImageFeatures]:
        found: list[ImageFeatures | None] = [None] * len(batch)
        sizes = contents(batch)
        for shape, rows in groups([on_grid(size) for size in sizes]):
            images = self.normalise(batch[rows][:, :, : shape[0], : shape[1]])
            for image, row in zip(images, rows, strict=True):
                # The mean colour, which is what convolutions pad with.
                image[:, sizes[row][0] :] = 0
                image[:, :, sizes[row][1] :] = 0
            with self.autocast():
                maps = [level.half().cpu() for level in self.backbone.maps(images)]
            for number, row in enumerate(rows):
                own = tuple(level[number].contiguous().clone() for level in maps)
                found[row] = ImageFeatures(own, sizes[row])
        return [features for features in found if features is not None]

    def merged_size(self, features: Sequence[ImageFeatures]) -> tuple[int, int]:
        """Rows and columns of the finest map of a batch."""
        shapes = [on_grid(image.content) for image in features]
        return max(s[0] for s in shapes) // STRIDE, max(s[1] for s in shapes) // STRIDE

    def stacked(self, features: Sequence[ImageFeatures]) -> list[Tensor]:
        """The maps of images as batches, (B, channels, h, w) float32 on the device, one a stride;
        those of smaller images are padded below and at the right.
        """
        return [
            padded(list(level)).to(self.device, torch.float32, memory_format=torch.channels_last)
            for level in zip(*(image.maps for image in features), strict=True)
        ]

    def alike(self, features: Sequence[ImageFeatures]) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Which images have maps of the same shapes, and these as batches."""
        for _, rows in groups([on_grid(image.content) for image in features]):
            yield rows, self.stacked([features[row] for row in rows])

    def learn(
        self,
        features: Sequence[ImageFeatures],
        targets: Sequence[Tensor],
        recipe: Recipe,
        plan: Plan,
        tell: Tell,
        stop: Callable[[], bool],
    ) -> list[float]:
        """AdamW with a warm-up and half a cosine, as for whole networks."""
        objective = self.head_objective(features, targets, recipe)
        optimiser = AdamW(parameter_groups(self.module, recipe.weight_decay), lr=plan.learning_rate)
        schedule = LambdaLR(
            optimiser, lambda step: learning_rate_share(step, plan.steps, recipe.warmup)
        )
        draws = Generator().manual_seed(recipe.seed)
        losses: list[float] = []
        try:
            self.module.train()
            with seeded(recipe.seed, self.device):
                for epoch in range(1, plan.epochs + 1):
                    total = 0.0
                    order = batch_order(len(features), plan.steps_per_epoch, draws)
                    for rows in order:
                        if stop():
                            raise Stopped
                        flips = torch.rand(len(rows), generator=draws) < 0.5
                        optimiser.zero_grad()
                        with self.autocast(plan.mixed_precision):
                            loss = objective(rows.tolist(), flips & recipe.augmentation)
                        torch.autograd.backward(loss)
                        optimiser.step()
                        schedule.step()
                        total += float(loss.detach())
                    losses.append(total / len(order))
                    if not math.isfinite(losses[-1]):
                        raise ModelError(
                            f"The loss is not finite in epoch {epoch}; a lower learning_rate may "
                            "help."
                        )
                    tell(epoch, losses[-1])
        finally:
            self.module.eval()
        return losses

    @abstractmethod
    def head_objective(
        self, features: Sequence[ImageFeatures], targets: Sequence[Tensor], recipe: Recipe
    ) -> Callable[[list[int], Tensor], Tensor]:
        """The loss of a batch: rows among the images, and which of them are mirrored, (B,) bool."""


def groups(shapes: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Each shape and the rows that have it."""
    for shape in dict.fromkeys(shapes):
        yield shape, [row for row, other in enumerate(shapes) if other == shape]


def mirrored(image: ImageFeatures, flip: bool) -> ImageFeatures:
    """An image's features as they are, or with left and right exchanged.

    They are about those of the mirrored image, which would take another look at it.
    """
    if not flip:
        return image
    return ImageFeatures(tuple(level.flip(2) for level in image.maps), image.content)
