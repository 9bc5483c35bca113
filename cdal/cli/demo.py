"""``cdal demo``: the command's arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def add_commands(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command."""
    demo = add_parser("demo", help="start a Label Studio with this backend, to try it out")
    demo.add_argument(
        "--task",
        choices=("classification", "segmentation", "detection", "multilabel"),
        help="what to label; default: the task the images are labelled for, or classification",
    )
    demo.add_argument(
        "--images",
        type=Path,
        metavar="PATH",
        help="a folder or zip of labelled images: class folders, images with masks, or the "
        "layout of VOC, COCO or YOLO; default: the demo draws its own",
    )
    demo.add_argument("--limit", type=_positive, metavar="N", help="use at most N images")
    demo.add_argument("--budget", type=_positive, metavar="N", help="images per round")
    demo.add_argument(
        "--selector",
        metavar="NAME",
        help='how images are chosen, such as "margin"; with "random" the first round is random, '
        "too; default: that of a project",
    )
    demo.add_argument(
        "--once",
        action="store_true",
        help="label automatically through Label Studio's API, print the results, and exit",
    )
    demo.add_argument(
        "--rounds", type=_positive, default=3, metavar="N", help="rounds to label with --once"
    )
    demo.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from cdal.demo.run import Options, run

    return run(
        Options(
            images=arguments.images,
            task=arguments.task,
            limit=arguments.limit,
            rounds=arguments.rounds,
            once=arguments.once,
            budget=arguments.budget,
            selector=arguments.selector,
            why_refused=_why_refused,
        )
    )


def _why_refused(labeling_config: str, settings: Mapping[str, Any]) -> str | None:
    """Ask the backend's own rules, before a server starts and the demo's folder remembers."""
    from cdal.backend.errors import ConfigError
    from cdal.backend.project_config import ProjectConfig

    try:
        ProjectConfig.parse(labeling_config, dict(settings))
    except ConfigError as error:
        return str(error)
    return None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be a number from 1, not "{text[:40]}"')
    return int(text)
