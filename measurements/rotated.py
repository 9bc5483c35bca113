"""How well a detection head learns rotated boxes, beside one that learns their upright hulls.

python measurements/rotated.py
"""

from __future__ import annotations

import argparse
import math
import time

import cv2
import numpy as np
import numpy.typing as npt
import torch
from shared import print_header, print_row
from torch import Tensor

from cdal.models import DetectionNetwork, Recipe, fit, make_network
from cdal.models.detection.turned import hulls_of

CLASSES = ("bar", "arrow")
COLOURS = ((200, 60, 50), (50, 90, 200))
SIZE = 224

Quad = npt.NDArray[np.float64]


def corners(x: float, y: float, width: float, height: float, angle: float) -> Quad:
    along = np.array([math.cos(angle), math.sin(angle)])
    beside = np.array([-math.sin(angle), math.cos(angle)])
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return np.array([(x, y) + a * width / 2 * along + b * height / 2 * beside for a, b in signs])


def draw(draws: np.random.Generator) -> tuple[Tensor, Tensor]:
    """An image of up to four objects in any direction, and its target (K, 7)."""
    shade = draws.uniform(90, 170, 3)
    image = np.full((SIZE, SIZE, 3), shade) + draws.normal(0, 12, (SIZE, SIZE, 3))
    image = image.clip(0, 255).astype(np.uint8)
    quads: list[Quad] = []
    labels: list[int] = []
    taken = np.zeros((SIZE, SIZE), np.bool_)
    for _ in range(draws.integers(2, 5)):
        label = int(draws.integers(2))
        length = draws.uniform(60, 110)
        x, y = draws.uniform(50, SIZE - 50, 2).tolist()
        quad = corners(
            x,
            y,
            length,
            length / draws.uniform(1.5, 4),
            draws.uniform(0, 2 * math.pi),
        )
        filled = np.zeros((SIZE, SIZE), np.uint8)
        own = cv2.fillPoly(filled, [quad.round().astype(np.int32)], 1) > 0
        if (own & taken).any() or quad.min() < 0 or quad.max() > SIZE:
            continue
        taken |= own
        outline = quad if label == 0 else np.array([quad[0], (quad[1] + quad[2]) / 2, quad[3]])
        colour = (np.array(COLOURS[label]) + draws.normal(0, 15, 3)).clip(0, 255).tolist()
        cv2.fillPoly(image, [outline.round().astype(np.int32)], colour, lineType=cv2.LINE_AA)
        quads.append(quad)
        labels.append(label)
    hulls, turns = hulls_of(torch.tensor(np.array(quads).reshape(-1, 4, 2), dtype=torch.float32))
    target = torch.cat((hulls, torch.tensor(labels, dtype=torch.float32)[:, None], turns), 1)
    return torch.from_numpy(image).permute(2, 0, 1).contiguous(), target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[20, 60])
    parser.add_argument("--test-images", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print_header(("images", "seed", "learnt", "mAP@0.5", "mAP", "training s"))
    for count in arguments.images:
        for seed in arguments.seeds:
            draws = np.random.default_rng(seed)
            train = [draw(draws) for _ in range(count)]
            test = [draw(draws) for _ in range(arguments.test_images)]
            for what, learnt in (("hulls", [(i, t[:, :5]) for i, t in train]), ("boxes", train)):
                network = make_network("detection", "timm:tf_efficientnet_lite0", CLASSES, SIZE)
                assert isinstance(network, DetectionNetwork)
                begun = time.process_time()
                fit(network, learnt, None, Recipe(seed=seed))
                took = time.process_time() - begun
                values = network.evaluate(test).values
                print_row(
                    (
                        str(count),
                        str(seed),
                        what,
                        f"{values['map_50']:.3f}",
                        f"{values['map']:.3f}",
                        f"{took:.0f}",
                    )
                )


if __name__ == "__main__":
    main()
