"""What several measurements share: options and table of the trainings, timing and output."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from cdal.models import Recipe

DATA = Path(__file__).resolve().parents[1] / "../shared/data"


def training_parser(
    description: str | None,
    data: str,
    networks: Sequence[str],
    images: Sequence[int],
    test_images: int,
) -> argparse.ArgumentParser:
    """The options of every measurement that trains networks.

    Args:
        description: the script's docstring.
        data: default data set, a file name in ``DATA``.
        networks: default networks, each as name:side.
        images: default numbers of training images.
        test_images: default number of test images.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA / data)
    parser.add_argument("--networks", nargs="+", default=list(networks))
    parser.add_argument("--images", nargs="+", type=int, default=list(images))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--test-images", type=int, default=test_images)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--weight-decay", type=float, default=Recipe().weight_decay)
    parser.add_argument("--no-augmentation", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser


def print_header(columns: Sequence[str]) -> None:
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")


def print_row(cells: Sequence[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def train_each(
    arguments: argparse.Namespace,
    columns: Sequence[str],
    measure: Callable[[argparse.Namespace, str, int, int], None],
) -> None:
    """Call ``measure`` for every network, number of images and seed, which prints a row."""
    print_header(columns)
    for network in arguments.networks:
        for images in arguments.images:
            for seed in arguments.seeds:
                measure(arguments, network, images, seed)


def timed(call: Callable[[], object], device: torch.device | None = None) -> float:
    """Wall-clock seconds of a call, including what it queued on a GPU."""
    began = time.perf_counter()
    call()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def report(what: str, figures: str) -> None:
    """Print a result."""
    print(f"{what}: {figures}", flush=True)


def say(text: str) -> None:
    """Print progress, on standard error."""
    sys.stderr.write(f"{text}\n")


def processor_of(process: int) -> float:
    """Seconds of processor of a process and those below it, but for the web server."""
    ticks = os.sysconf("SC_CLK_TCK")
    below: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                command = (entry / "cmdline").read_bytes()
            except OSError:  # it has ended
                continue
            number = int(entry.name)
            below.setdefault(int(stat[1]), []).append(number)
            used[number] = 0.0 if b"http.server" in command else sum(map(int, stat[11:15])) / ticks
    left, total = [process], 0.0
    while left:
        number = left.pop()
        total += used.get(number, 0.0)
        left += below.get(number, [])
    return total
