"""``cdal predict``: what a model finds in image files."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

FORMATS = ("label-studio", "coco", "yolo")


def add_commands(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = add_parser(
        "predict",
        help="predict image files with an exported model",
        description="Predict image files, and write what is found as Label Studio's JSON, as "
        "COCO's, or as YOLO's text files. See docs/export.md.",
    )
    add = parser.add_argument
    add(
        "model",
        type=Path,
        metavar="MODEL",
        help="a folder that cdal export --format safetensors wrote, or a model version's own",
    )
    add(
        "images",
        type=Path,
        nargs="+",
        metavar="IMAGES",
        help="image files, and folders, whose subfolders are searched, too",
    )
    add("--to", choices=FORMATS, default=FORMATS[0], help=f"default: {FORMATS[0]}")
    add(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="the file to write, or for yolo the folder",
    )
    add(
        "--threshold",
        type=_share,
        metavar="P",
        help="leave out what is found with less confidence; default: 0.3 for boxes, otherwise 0",
    )
    add(
        "--prefix",
        default="",
        metavar="ADDRESS",
        help="label-studio: what precedes an image's name in the task, such as "
        "/data/local-files/?d=photos/",
    )
    add(
        "--labeling-config",
        type=Path,
        metavar="FILE",
        help='the project\'s labeling config; default: a control "label" for the image "image"',
    )
    add("--device", default="auto", help="cpu, cuda, cuda:N or auto; default: auto")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from cdal.backend.prediction_files import run

    return run(arguments)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f'must be between 0 and 1, not "{text[:40]}"')
    return share
