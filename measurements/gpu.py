"""Seconds of scoring and of head training on one device, without a backend, images or weights.

python measurements/gpu.py --device cuda

The images are noise and the weights random: neither changes how long anything takes. `gpu.sh` runs
this beside the tests and the selection of a million images.
"""

from __future__ import annotations

import argparse
import time

import torch

from cdal.mixture_kind import MixtureKind
from cdal.models import choose_device, make_network
from cdal.models.classification.logistic import fit_logistic
from cdal.selectors import means_of_regions

NETWORKS = {
    "classification": (("vgg16_bn", 32), ("resnet18", 224)),
    "segmentation": (("drn_d_22", 512), ("deeplabv3_resnet50", 512)),
    "detection": (("ssd300_vgg16", 300),),
}
CLASSES = tuple(f"class {number}" for number in range(19))
FEATURES = 1280


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int, default=2048, help="scored per network")
    parser.add_argument("--labels", type=int, nargs="+", default=[1_000, 10_000])
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    print("| network | side | batch | images per second: bare | with scores |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for task, networks in NETWORKS.items():
        for name, side in networks:
            print(_scoring(task, name, side, arguments.images, device), flush=True)
    print("\n| labels | seconds of head training |")
    print("| ---: | ---: |")
    for labels in arguments.labels:
        print(f"| {labels:,} | {_head(labels):.2f} |", flush=True)


def _scoring(task: str, name: str, side: int, images: int, device: torch.device) -> str:
    network = make_network(task, name, CLASSES, side, device, pretrained=False)
    kind = MixtureKind("image" if task == "classification" else "class")
    size = min(images, network.prediction_batch_size)
    batch = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, device=device)
    rounds = max(1, images // size)
    speeds = []
    for with_scores in (False, True):
        for number in range(rounds + 1):  # the first is a warm-up
            if number == 1:
                begun = _now(device)
            predicted = network.predict(batch)
            if with_scores:
                kind.mixtures(predicted)
                means_of_regions(predicted.regions)
        speeds.append(rounds * size / (_now(device) - begun))
    return f"| `{name}` | {side} | {size} | {speeds[0]:,.0f} | {speeds[1]:,.0f} |"


def _head(labels: int) -> float:
    """Logistic regression, which is on the CPU wherever the network is."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(labels, FEATURES, generator=generator)
    classes = torch.randint(0, len(CLASSES), (labels,), generator=generator)
    begun = time.perf_counter()
    fit_logistic(vectors, classes, torch.ones(len(CLASSES)))
    return time.perf_counter() - begun


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    main()
