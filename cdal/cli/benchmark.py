"""``cdal benchmark``: the command's arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cdal.benchmark.ablations import ABLATIONS, DEFAULT_SELECTORS
from cdal.benchmark.paper_figures import FIGURES
from cdal.selectors import SELECTORS

_VARYING = [name for name, entry in ABLATIONS.items() if entry.option is not None]
"""Ablations of several runs, whose values and curves can be chosen."""


def add_commands(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = add_parser("benchmark", help="simulate active learning: learning curves")
    add_arguments(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from cdal.allocator import keep_freed_memory
    from cdal.benchmark.command import run

    keep_freed_memory()
    return run(arguments)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments, and the subcommands ``ablation``, ``figure`` and ``report``."""
    _add_simulation(parser.add_argument)
    _add_method(parser.add_argument)
    commands = parser.add_subparsers(dest="benchmark_command", metavar="COMMAND")
    ablation = commands.add_parser(
        "ablation",
        help="run a ready-made ablation",
        description="; ".join(f"{name}: {entry.what}" for name, entry in ABLATIONS.items()),
    )
    ablation.add_argument("name", choices=sorted(ABLATIONS), metavar="NAME")
    ablation.add_argument(
        "--values",
        metavar="LIST",
        help=f"{', '.join(_VARYING)}: values of what varies, comma-separated, such as 0,10,20; "
        "default: those of the ablation",
    )

    def add(*names: str, **settings: Any) -> None:
        # No defaults: they would replace what is given before the subcommand.
        if "--selectors" in names:
            settings["help"] = (
                f"{', '.join(_VARYING)}: the curves, as without an ablation; default: "
                f"{ABLATIONS[_VARYING[0]].selectors}"
            )
        ablation.add_argument(*names, **{**settings, "default": argparse.SUPPRESS})

    _add_simulation(add)
    _add_method(add)
    figure = commands.add_parser(
        "figure",
        help="draw a figure or table of the paper from the folders of runs",
        description="; ".join(f"{name}: {what}" for name, what in FIGURES.items()),
    )
    figure.add_argument("name", choices=list(FIGURES), metavar="NAME")
    figure.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="given as --out")
    figure.add_argument(
        "--out", type=Path, metavar="FILE", help="svg, png or md; default: in the first DIR"
    )
    figure.add_argument(
        "--class",
        dest="class_name",
        metavar="NAME",
        help="1: the class; default: the one that is confused most",
    )
    report = commands.add_parser("report", help="redraw the report of the finished steps")
    report.add_argument("folder", type=Path, metavar="DIR", help="the folder given as --out")


def _add_simulation(add: Callable[..., Any]) -> None:
    add(
        "--dataset",
        type=Path,
        metavar="PATH",
        help="a folder or zip: class folders, images with masks, or the layout of VOC, COCO or "
        "YOLO",
    )
    add("--out", type=Path, metavar="DIR", help="where to write results; run again to resume")
    add(
        "--task",
        choices=("classification", "segmentation", "detection", "multilabel"),
        help="default: the task the images are labelled for",
    )
    add(
        "--selectors",
        metavar="LIST",
        help=f"comma-separated: {', '.join(sorted(SELECTORS))}; with options: "
        f"cdal-cs:missing=skip,region=image; default: {DEFAULT_SELECTORS}",
    )
    add("--initial", metavar="N|P%", help="images labelled initially; default: 10%%")
    add("--step", metavar="N|P%", help="images labelled per step; default: 5%%")
    add("--until", metavar="N|P%", help="images labelled at the end; default: 40%%")
    add("--seeds", type=int, metavar="N", help="runs per selector; default: 3")
    add(
        "--training",
        choices=("head", "full"),
        help="train a head on a frozen backbone, or all weights of a network; default: what the "
        "network is made for, which is a head by default",
    )
    add(
        "--features",
        type=Path,
        metavar="DIR",
        help="where to keep what a backbone makes of the images, so that it sees each only once; "
        "default: the folder features in that of --out",
    )
    add(
        "--network",
        metavar="NAME",
        help="timm:NAME, a head on this backbone, or a network of torchvision, trained in full; "
        "default: a head on the backend's default backbone",
    )
    add("--image-size", type=int, metavar="S", help="side of the network's images, in pixels")
    add(
        "--tile",
        type=int,
        metavar="SIDE",
        help="detection and segmentation with a head: the network sees images in overlapping tiles "
        "of this side, in pixels of the image, and not as a whole",
    )
    add(
        "--epochs",
        type=int,
        metavar="N",
        help="epochs per training; default: by number of images. Heads for classification have "
        "neither epochs nor the following three",
    )
    add("--batch-size", type=int, metavar="N", help="images per training step")
    add("--learning-rate", type=float, metavar="R", help="peak learning rate")
    add(
        "--warm-start",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="continue from the last step's weights; default: a new network at every step",
    )
    add("--device", default="auto", help="cpu, cuda, cuda:N or auto; default: auto")
    add(
        "--regions",
        type=int,
        metavar="SIDE",
        help="segmentation: label regions of about this side, in pixels of the network's images, "
        "after whole initial images; amounts are then regions",
    )
    add("--limit", type=int, metavar="N", help="use N random images of the pool")
    add("--test-limit", type=int, metavar="N", help="measure on N random test images")
    add("--keep-scores", action="store_true", help="keep features and class mixtures for plots")
    add(
        "--oracle",
        action="store_true",
        help="score the pool with a network trained on all its labels, to see what a better "
        "model would select",
    )
    add(
        "--protocol",
        metavar="paper[:NAME]",
        help="use the paper's amounts, network and epochs, and its method to the letter; data in "
        "their published layouts, or name the protocol: cifar-10, cifar-100, voc, cityscapes, "
        "cityscapes-cereals, cityscapes-rbal, bdd100k or camvid",
    )
    add(
        "--repaired",
        action="store_true",
        default=False,
        help="with --protocol: this project's own method and not the paper's to the letter",
    )


def _add_method(add: Callable[..., Any]) -> None:
    add(
        "--reward",
        metavar="PARTS",
        help="cdal-rl: spread, coverage, cd, vr and sr joined by +, or paper; default: spread",
    )
    add(
        "--alpha",
        metavar="A",
        help="cdal-rl: the weight of spread, coverage and cd against vr and sr; default: 0.75",
    )
    add(
        "--scale",
        metavar="L",
        help="cdal-rl: λ of Eq. 5, in regions of a class; default: what an even distribution over "
        "the classes would give",
    )
    add(
        "--sums",
        metavar="KIND",
        help="cdal-rl: parts of the reward on a common scale or as published: normalised or raw; "
        "default: normalised",
    )
    add(
        "--policy",
        metavar="WHEN",
        help="cdal-rl: each (trained in every round) or once; or its kind: plackett-luce or paper; "
        "default: each, plackett-luce",
    )
    add(
        "--weights",
        metavar="KIND",
        help="weights of regions in class mixtures: entropy or uniform; default: entropy",
    )
    add("--classes", metavar="NAMES", help="class mixtures of these classes only, joined by +")
    add(
        "--region",
        metavar="KIND",
        help="one mixture per class, or per image: class or image; default: image for "
        "classification, otherwise class",
    )
    add(
        "--missing",
        metavar="KIND",
        help="a class that only one of two images has: uniform or skip; default: uniform",
    )
    add("--confidence", metavar="P", help="minimum confidence of a box; default: 0.05")
    add(
        "--background",
        metavar="KIND",
        help="background in a box's vector: drop or keep; default: drop",
    )
    add(
        "--first-round",
        choices=("random", "typical"),
        default="random",
        help="what is labelled initially: random images, or those that are typical of the pool by "
        "a pretrained backbone's features (TypiClust); default: random",
    )
    add(
        "--bias",
        type=int,
        metavar="M",
        help="number of classes missing from the initial set",
    )
    add(
        "--noise",
        type=float,
        metavar="P",
        help="share of wrong labels: the class of an image or a box; in a mask, all pixels of a "
        "class; with CIFAR-100's classes, another one of the same super-class",
    )
    add(
        "--unlabelled",
        choices=("background", "ignore"),
        default="ignore",
        help="treat pixels without a class as background, or learn nothing from them; default: "
        "ignore",
    )
