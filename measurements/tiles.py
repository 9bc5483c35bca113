"""What tiles are worth: a head on large images with small objects, seen as a whole and in tiles.

python -m measurements.tiles ../shared/data/bccd.zip --task detection
python -m measurements.tiles ../shared/data/camvid.zip --task segmentation

A large image is a mosaic of SIDE × SIDE labelled images, so that its objects are small in it.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.classification import MulticlassConfusionMatrix

from cdal.benchmark.data_set import open_data_set
from cdal.models import Dataset, Recipe, TaskNetwork, fit, make_network
from cdal.models.detection import head as detection_head
from cdal.models.detection.network import DetectionNetwork
from cdal.models.predictions import IGNORED, Segmentation


class Mosaics:
    """Labelled images side by side, in rows and columns, each image in one mosaic.

    Args:
        data: the images, all of one size.
        side: how many there are in a row, and in a column.
        count: the number of mosaics.
        seed: which images are in which mosaic.
    """

    def __init__(self, data: Dataset, side: int, count: int, seed: int) -> None:
        rows = list(range(len(data)))
        random.Random(seed).shuffle(rows)
        self._data, self._side = data, side
        self._rows = [rows[n * side**2 : (n + 1) * side**2] for n in range(count)]
        if len(self._rows[-1]) < side**2:
            raise SystemExit(f"{len(data)} images are too few for {count} mosaics.")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        parts = [self._data[row] for row in self._rows[index]]
        height, width = parts[0][0].shape[1:]
        image = self._joined([image for image, _ in parts])
        if parts[0][1].dtype == torch.uint8:
            return image, self._joined([mask for _, mask in parts])
        moved = []
        for number, (_, boxes) in enumerate(parts):
            down, across = divmod(number, self._side)
            moved.append(boxes + torch.tensor([across * width, down * height] * 2 + [0]))
        return image, torch.cat(moved)

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        side = self._side
        rows = [torch.cat(list(parts[n * side : (n + 1) * side]), -1) for n in range(side)]
        return torch.cat(rows, -2)


def score(network: TaskNetwork, test: Mosaics) -> float:
    """mAP@0.5, or mIoU of all pixels of the large images."""
    if isinstance(network, DetectionNetwork):
        return network.evaluate(test).main
    confusion = MulticlassConfusionMatrix(len(network.classes), ignore_index=IGNORED)
    for image, mask in (test[row] for row in range(len(test))):
        (found,) = network.predict(network.prepare(image)[None]).findings()
        assert isinstance(found, Segmentation)
        labels = functional.interpolate(found.labels[None, None], mask.shape, mode="nearest-exact")
        confusion.update(labels[0, 0].long(), mask.long())
    counts = confusion.compute()
    both = counts.sum(1) + counts.sum(0) - counts.diagonal()
    known = counts.sum(1) > 0
    return float((counts.diagonal()[known] / both[known]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--task", choices=("detection", "segmentation"), required=True)
    parser.add_argument("--side", type=int, default=3)
    parser.add_argument("--train", type=int, default=8, help="mosaics to learn from")
    parser.add_argument("--test", type=int, default=6, help="mosaics to measure on")
    parser.add_argument("--tiles", type=int, nargs="+", default=[0, 480], help="0: as a whole")
    parser.add_argument("--image-size", type=int, default=480)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    # A mosaic has more objects than the boxes that a whole image may have.
    vars(detection_head)["MAX_BOXES"] = 400
    DetectionNetwork.most_boxes = property(lambda _: 400)  # type: ignore[assignment]
    data = open_data_set(arguments.data, arguments.task, "ignore")
    print("tile | seed | score | training s | processor s", flush=True)
    for seed in range(arguments.seeds):
        train = Mosaics(data.pool, arguments.side, arguments.train, seed)
        test = Mosaics(data.test, arguments.side, arguments.test, seed)
        for tile in arguments.tiles:
            torch.manual_seed(seed)
            network = make_network(
                arguments.task,
                classes=data.classes,
                image_size=arguments.image_size,
                seed=seed,
                tile=tile or None,
            )
            begun, processor = time.monotonic(), time.process_time()
            fit(network, train, None, Recipe(seed=seed))
            elapsed, processor = time.monotonic() - begun, time.process_time() - processor
            row = (tile, seed, f"{score(network, test):.3f}", f"{elapsed:.0f}", f"{processor:.0f}")
            print(" | ".join(map(str, row)), flush=True)


if __name__ == "__main__":
    main()
