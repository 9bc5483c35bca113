"""What the paper's protocols cost on a GPU: an estimate, without a GPU.

python measurements/paper_time.py --tflops 50

For each protocol, the operations of a forward pass are counted on PyTorch's "meta" device,
which computes nothing. Training an image takes three times as many, and a curve has as many images
as its budgets together, times the epochs. Hours follow from a rate that is assumed, not measured.
Left out is what is not training: reading images, scoring the pool, measuring, selecting.
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.flop_counter import FlopCounterMode

from cdal.benchmark.budgets import Amount, budgets
from cdal.benchmark.protocol import PROTOCOLS, Protocol
from cdal.models import make_network

POOLS = {
    "cifar-10": 50_000, "cifar-100": 50_000, "voc": 16_551, "cityscapes": 2_975,
    "cityscapes-cereals": 2_975, "cityscapes-rbal": 2_975, "bdd100k": 7_000, "camvid": 468,
}  # fmt: skip
"""Training images of each data set, as published."""
ROWS = {"cityscapes": 512, "cityscapes-cereals": 512, "cityscapes-rbal": 512, "bdd100k": 576}
"""Rows of images whose longer side is the protocol's."""
FORWARD_AND_BACKWARD = 3
"""Operations of a training step, in forward passes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tflops", type=float, required=True, help="assumed rate of training")
    parser.add_argument("--network", help="instead of those of the protocols for CIFAR")
    options = parser.parse_args()
    print("| protocol | network | images per curve and seed | GFLOP forward | hours |")
    print("| --- | --- | ---: | ---: | ---: |")
    for name, protocol in PROTOCOLS.items():
        small = protocol.task == "classification"
        network = options.network if options.network and small else protocol.network
        side = protocol.image_size
        rows = ROWS.get(name, 384 if name == "camvid" else side)
        flops = forward_flops(protocol.task, network, side, rows)
        images = images_of(protocol, POOLS[name])
        hours = FORWARD_AND_BACKWARD * flops * images / (options.tflops * 1e12) / 3600
        print(f"| {name} | `{network}` | {images:,} | {flops / 1e9:.2f} | {hours:.2f} |")


def images_of(protocol: Protocol, pool: int) -> int:
    """Images that the networks of a curve learn from, counted once per epoch."""
    initial = Amount.read(protocol.initial, "initial")
    step = Amount.read(protocol.step, "step")
    until = Amount.read(protocol.until, "until")
    return protocol.epochs * sum(budgets(initial, step, until, pool))


def forward_flops(task: str, name: str, side: int, rows: int) -> float:
    """Floating-point operations of one image's forward pass in training."""
    network = make_network(
        task,
        name,
        [f"class {number}" for number in range(20)],
        side,
        torch.device("cpu"),
        pretrained=False,
    )
    module = network.module.to("meta").train()
    images = torch.empty(2, 3, rows, side, device="meta")
    with FlopCounterMode(display=False) as counter:
        if task == "detection":
            # What follows the outputs of the anchors needs values.
            body, head = module.get_submodule("backbone"), module.get_submodule("head")
            head(list(body(images).values()))
        else:
            module(images)
    return float(counter.get_total_flops()) / len(images)


if __name__ == "__main__":
    main()
