"""Heads for dense tasks, segmentation and detection: layers on feature maps, and their training."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torchvision.transforms.v2 import functional as transforms

from cdal.models.architecture import Defaults
from cdal.models.data import Dataset, Examples
from cdal.models.devices import one_core_spared, seeded
from cdal.models.errors import ModelError, Stopped
from cdal.models.features import ImageFeatures, LabelledFeatures
from cdal.models.head import HeadNetwork, Tell
from cdal.models.letterbox import content_size, contents, letterbox, on_grid, padded
from cdal.models.manifest import Manifest
from cdal.models.network import check_image
from cdal.models.recipe import Plan, Recipe, learning_rate_share
from cdal.models.tiling import MOST_TILES, Tile, Tiling
from cdal.models.training import batch_order, parameter_groups

STRIDE = 8
"""The stride of a head's finest map, in pixels of the prepared image. Finer maps of the backbone
are averaged to it before they are kept."""

DENSE_DEFAULTS = Defaults(
    learning_rate=3e-3,
    fine_tuning_rate=3e-3,
    label_smoothing=0.0,
    batch_size=(4, 16),
    prediction_batch=4,
    min_epochs=4,
    max_epochs=300,
    steps=300,
    max_side=(480, 640),
    bytes_per_pixel=1024,
)


class Standardise(nn.Module):
    """Features with mean 0 and standard deviation 1 in each channel over the training images.

    Args:
        channels: D.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def measure(self, maps: Iterable[Tensor]) -> None:
        """Set mean and standard deviation to those of the places of maps (D, h, w)."""
        count = 0
        total = torch.zeros(len(self.get_buffer("mean")), dtype=torch.float64)
        squares = total.clone()
        for level in maps:
            places = level.flatten(1).double()
            count += places.shape[1]
            total += places.sum(1)
            squares += places.square().sum(1)
        mean = total / count
        self.get_buffer("mean").copy_(mean)
        self.get_buffer("std").copy_((squares / count - mean.square()).clamp(min=1e-6).sqrt())

    def forward(self, level: Tensor) -> Tensor:
        """Standardise a map, (D, h, w) float32, or a batch of maps."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return (level - mean[:, None, None]) / std[:, None, None]


class DenseLayers(nn.Module):
    """Standardised maps of several strides, merged to one map at stride 8.

    A 1×1 convolution of maps that are resized and concatenated is the sum of 1×1 convolutions of
    each map, resized: so each is computed at its own stride, where coarse maps have few places.

    Args:
        channels: the channels of the backbone's maps, from the finest to the coarsest.
        width: the channels of the merged map.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.standardise = nn.ModuleList(Standardise(count) for count in channels)
        self.reduce = nn.ModuleList(nn.Conv2d(count, width, 1, bias=False) for count in channels)
        self.norm = nn.BatchNorm2d(width)

    def merge(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Standardised maps (B, channels, h, w) to one map of this size, (B, width, H, W)."""
        total = torch.zeros((), device=maps[0].device)
        for each, reduce in zip(maps, self.reduce, strict=True):
            reduced = reduce(each)
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


class DenseHeadNetwork(HeadNetwork):
    """A head on a backbone's feature maps, whose module are ``DenseLayers``.

    Images keep their aspect ratio, see letterbox.py, and may be seen in tiles, see tiling.py. Their
    padding is part of no region, loss or feature vector.

    Attributes:
        tiling: how images are cut into tiles; None if they are seen as a whole.
    """

    use = "maps"

    def __init__(self, manifest: Manifest, module: nn.Module, device: torch.device) -> None:
        super().__init__(manifest, module, device)
        tile = manifest.tile
        self.tiling = None if tile is None else Tiling(tile, manifest.image_size)

    @property
    def extraction(self) -> str:
        whole = super().extraction
        return whole if self.tiling is None else f"{whole}-tile-{self.tiling.tile}"

    @property
    def prediction_batch_size(self) -> int:
        """The number of images per prediction batch: fewer if each may have many tiles."""
        return (
            self._squares_at_once
            if self.tiling is None
            else self._squares_at_once // MOST_TILES or 1
        )

    @property
    def _squares_at_once(self) -> int:
        """The number of squares, images or tiles, that the backbone sees at once."""
        return super().prediction_batch_size

    @property
    def dense(self) -> DenseLayers:
        """The module."""
        if not isinstance(self.module, DenseLayers):
            raise TypeError("the module of a dense head must be DenseLayers")
        return self.module

    def seen_size(self, height: int, width: int) -> tuple[int, int]:
        """The rows and columns at which an image of this height and width is seen."""
        if self.tiling is not None:
            return self.tiling.seen_size(height, width)
        return content_size(height, width, self.image_size)

    def prepare(self, image: Tensor) -> Tensor:
        """An image, (3, H, W) uint8, in a square, (3, S, S) uint8, whose padding is 0.

        If images are seen in tiles, it is as large as the tiles together, without padding.
        """
        check_image(image)
        if self.tiling is None:
            return letterbox(image, self.image_size)
        size = list(self.seen_size(image.shape[1], image.shape[2]))
        resized: Tensor = transforms.resize(image, size, antialias=True)
        return resized.clamp(min=1)

    def examples(self, data: Dataset | LabelledFeatures, stop: Callable[[], bool]) -> Examples:
        if self.tiling is None or isinstance(data, LabelledFeatures):
            return super().examples(data, stop)
        features: list[ImageFeatures] = []
        targets: list[Tensor] = []
        for row in range(len(data)):
            if stop():
                raise Stopped
            image, target = self.prepare_example(*data[row])
            features += self.look([image])
            targets.append(target)
        return LabelledFeatures(self.extraction, features, targets)

    def look(self, images: Tensor | Sequence[Tensor]) -> list[ImageFeatures]:
        if self.tiling is None:
            return super().look(images)
        at_once = self._squares_at_once
        return [self.tiling.look(image, self.look_at, at_once) for image in images]

    def lessons(
        self, features: Sequence[ImageFeatures], targets: Sequence[Tensor]
    ) -> tuple[Sequence[ImageFeatures], Sequence[Tensor]]:
        """The images, or their tiles: all that show something, and at most as many others."""
        if self.tiling is None:
            return features, targets
        shown: list[tuple[ImageFeatures, Tensor]] = []
        empty: list[tuple[ImageFeatures, Tensor]] = []
        for image, target in zip(features, targets, strict=True):
            for tile in self.tiling.tiles(*image.content):
                part = self.within(target, tile)
                some = shown if self.count_classes(part).any() else empty
                some.append((tile.of(image), part))
        kept = [*shown, *empty[:: math.ceil(len(empty) / max(1, len(shown))) or 1]]
        return [image for image, _ in kept], [target for _, target in kept]

    @abstractmethod
    def within(self, target: Tensor, tile: Tile) -> Tensor:
        """The part of a prepared target that a tile shows."""

    def extract(self, batch: Tensor) -> list[ImageFeatures]:
        found: list[ImageFeatures | None] = [None] * len(batch)
        sizes = contents(batch)
        for shape, rows in groups([on_grid(size) for size in sizes]):
            images = self.normalise(batch[rows][:, :, : shape[0], : shape[1]])
            for image, row in zip(images, rows, strict=True):
                # The mean colour, which is what convolutions pad with.
                image[:, sizes[row][0] :] = 0
                image[:, :, sizes[row][1] :] = 0
            finest = shape[0] // STRIDE, shape[1] // STRIDE
            with self.autocast():
                maps = [
                    no_finer(level, finest).half().cpu() for level in self.backbone.maps(images)
                ]
            for number, row in enumerate(rows):
                own = tuple(level[number].contiguous().clone() for level in maps)
                found[row] = ImageFeatures(own, sizes[row])
        return [features for features in found if features is not None]

    def merged_size(self, features: Sequence[ImageFeatures]) -> tuple[int, int]:
        """Rows and columns of the finest map of a batch."""
        shapes = [on_grid(image.content) for image in features]
        return max(s[0] for s in shapes) // STRIDE, max(s[1] for s in shapes) // STRIDE

    def stacked(self, features: Sequence[ImageFeatures]) -> list[Tensor]:
        """The standardised maps of images, (B, channels, h, w) float32 on the device, per stride.

        Those of smaller images are padded below and at the right with 0, the mean.
        """
        stacked: list[Tensor] = []
        levels = zip(*(image.maps for image in features), strict=True)
        for level, standardise in zip(levels, self.dense.standardise, strict=True):
            if len({each.shape for each in level}) == 1:  # half the time of the general case
                whole = torch.stack(level).to(self.device)
                stacked.append(standardise(whole.to(memory_format=torch.channels_last).float()))
            else:
                single = [standardise(each.to(self.device, torch.float32)) for each in level]
                stacked.append(padded(single).to(memory_format=torch.channels_last))
        return stacked

    def alike(self, features: Sequence[ImageFeatures]) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Which images have maps of the same shapes, and these in batches.

        A batch has at most as many places as the squares of a prediction batch.
        """
        most = self._squares_at_once * self.image_size**2
        for shape, rows in groups([on_grid(image.content) for image in features]):
            at_once = max(1, most // (shape[0] * shape[1]))
            for start in range(0, len(rows), at_once):
                some = rows[start : start + at_once]
                yield some, self.stacked([features[row] for row in some])

    def vectors(self, features: Sequence[ImageFeatures]) -> Tensor:
        """The mean of the coarsest map over the places that show the image, (B, D) float32."""
        means = [inside(image.maps[-1], image.content).float().mean((1, 2)) for image in features]
        return torch.stack(means).to(self.device)

    def learn(
        self,
        features: Sequence[ImageFeatures],
        targets: Sequence[Tensor],
        recipe: Recipe,
        plan: Plan,
        tell: Tell,
        stop: Callable[[], bool],
    ) -> list[float]:
        """AdamW with a warm-up and half a cosine, as in full training."""
        for level, standardise in enumerate(self.dense.standardise):
            maps = (inside(image.maps[level], image.content) for image in features)
            cast(Standardise, standardise).measure(maps)
        objective = self.head_objective(features, targets, recipe)
        optimiser = AdamW(parameter_groups(self.module, recipe.weight_decay), lr=plan.learning_rate)
        schedule = LambdaLR(
            optimiser, lambda step: learning_rate_share(step, plan.steps, recipe.warmup)
        )
        draws = Generator().manual_seed(recipe.seed)
        losses: list[float] = []
        try:
            self.module.train()
            with one_core_spared(), seeded(recipe.seed, self.device):
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
        """The loss of a batch, given its rows and which of them are mirrored, (B,) bool."""


def groups(shapes: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Each shape, and the rows that have it."""
    for shape in dict.fromkeys(shapes):
        yield shape, [row for row, other in enumerate(shapes) if other == shape]


def no_finer(maps: Tensor, finest: tuple[int, int]) -> Tensor:
    """Maps (B, D, h, w), averaged to this many rows and columns if they have more."""
    if maps.shape[2] <= finest[0]:
        return maps
    return functional.adaptive_avg_pool2d(maps, finest)


def inside(level: Tensor, content: tuple[int, int]) -> Tensor:
    """The part of a map (D, h, w) that shows the image and not the padding of its grid."""
    grid = on_grid(content)
    rows, columns = (
        math.ceil(size * shown / whole)
        for size, shown, whole in zip(level.shape[1:], content, grid, strict=True)
    )
    return level[:, :rows, :columns]


def mirrored(image: ImageFeatures, flip: bool) -> ImageFeatures:
    """An image's features as they are, or with left and right exchanged.

    They stand for the features of the mirrored image, which would take another pass through the
    backbone.
    """
    if not flip:
        return image
    return ImageFeatures(tuple(level.flip(2) for level in image.maps), image.content)
