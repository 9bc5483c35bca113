"""The arguments of ``cdal benchmark``."""

from __future__ import annotations

import argparse
from pathlib import Path

from cdal.benchmark.ablations import ABLATIONS
from cdal.selectors import SELECTORS

DEFAULT_SELECTORS = "random,entropy,core-set,cdal-cs,cdal-rl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments, and the commands ``ablation`` and ``report``."""
    _add_simulation(parser)
    _add_method(parser)
    commands = parser.add_subparsers(dest="benchmark_command", metavar="COMMAND")
    ablation = commands.add_parser(
        "ablation",
        help="a ready-made ablation",
        description="; ".join(f"{name}: {entry.what}" for name, entry in ABLATIONS.items()),
    )
    ablation.add_argument("name", choices=sorted(ABLATIONS), metavar="NAME")
    _add_simulation(ablation)
    _add_method(ablation)
    report = commands.add_parser("report", help="draw the report of finished steps anew")
    report.add_argument("folder", type=Path, metavar="DIR", help="what --out was")


def _add_simulation(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--dataset",
        type=Path,
        metavar="PATH",
        help="a folder or zip of class folders, images with masks, or VOC's layout",
    )
    add("--out", type=Path, metavar="DIR", help="where the results go; call it again to go on")
    add(
        "--task",
        choices=("classification", "segmentation", "detection"),
        help="default: what the images are labelled for",
    )
    add(
        "--selectors",
        default=DEFAULT_SELECTORS,
        metavar="LIST",
        help=f"of {', '.join(sorted(SELECTORS))}, by commas, with options: "
        f"cdal-cs:missing=skip,region=image; default: {DEFAULT_SELECTORS}",
    )
    add("--initial", metavar="N|P%", help="images labelled at first; default: 10%%")
    add("--step", metavar="N|P%", help="images labelled at a time; default: 5%%")
    add("--until", metavar="N|P%", help="images labelled at most; default: 40%%")
    add("--seeds", type=int, metavar="N", help="runs of each selector; default: 3")
    add("--network", metavar="NAME", help="default: as the backend chooses")
    add("--image-size", type=int, metavar="S", help="side of its images in pixels")
    add("--epochs", type=int, metavar="N", help="of each training; default: by the set's size")
    add("--batch-size", type=int, metavar="N", help="images in a training step")
    add("--learning-rate", type=float, metavar="R", help="at its peak")
    add(
        "--warm-start",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="go on from the last step's weights; default: start anew",
    )
    add("--device", default="auto", help="cpu, cuda, cuda:N, or auto, the default")
    add("--limit", type=int, metavar="N", help="use N images of the pool, drawn at random")
    add("--test-limit", type=int, metavar="N", help="measure on N test images, drawn at random")
    add("--keep-scores", action="store_true", help="keep features and class mixtures, for plots")
    add(
        "--oracle",
        action="store_true",
        help="have the pool scored by a network that has learnt all its labels: what a better "
        "model would select",
    )
    add(
        "--protocol",
        metavar="paper[:NAME]",
        help="amounts, network and epochs of the paper, for data sets in torchvision's layouts",
    )


def _add_method(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--reward", metavar="PARTS", help="of cdal-rl: cd, vr and sr joined by +")
    add("--alpha", metavar="A", help="of cdal-rl: the weight of cd")
    add("--policy", metavar="WHEN", help="of cdal-rl: trained in each round, or once")
    add("--weights", metavar="KIND", help="of regions in class mixtures: entropy or uniform")
    add("--classes", metavar="NAMES", help="class mixtures of these classes only, joined by +")
    add("--region", metavar="KIND", help="a mixture for each class, or one for the image")
    add("--missing", metavar="KIND", help="a class that one of two images lacks: uniform or skip")
    add("--confidence", metavar="P", help="least of a box in class mixtures; default: 0.05")
    add("--background", metavar="KIND", help="in the vector of a box: drop, the default, or keep")
    add("--bias", type=int, default=0, metavar="M", help="classes left out of the initial set")
    add(
        "--noise",
        type=float,
        default=0.0,
        metavar="P",
        help="share of labels that are wrong: classes of images and of boxes; in a mask, all "
        "pixels of a class",
    )
    add(
        "--unlabelled",
        choices=("background", "ignore"),
        default="ignore",
        help="pixels of no class are background, or nothing is learnt from them, the default",
    )
