"""``cdal select``: pick images from a pool file."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from cdal.selectors import SELECTORS, Pool, PoolError, Selection, make_selector
from cdal.selectors.pool_file import load_pool


def add_commands(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = add_parser("select", help="pick images from a pool in a file")
    parser.add_argument(
        "pool", type=Path, metavar="POOL.npz", help="pool file; see docs/pool-format.md"
    )
    parser.add_argument(
        "--selector", required=True, metavar="NAME", help=f"one of {', '.join(sorted(SELECTORS))}"
    )
    parser.add_argument("--budget", required=True, type=int, metavar="B", help="images to pick")
    parser.add_argument(
        "--labelled",
        metavar="IDS",
        help="rows that are already labelled, such as 0,7,21, or a file of row numbers; added to "
        "those labelled in the pool",
    )
    parser.add_argument(
        "--classes",
        metavar="INDICES",
        help="only the mixtures of these classes count, such as 0,3; default: all",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="random seed; default: 0")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the selector; may be repeated",
    )
    parser.add_argument("--device", default="cpu", help="where to compute; default: cpu")
    parser.add_argument("--json", action="store_true", help="print JSON, with scores and reasons")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the picked rows in order, one per line, or JSON; warnings go to standard error.

    Returns:
        0; or 2, with one sentence on standard error, if an argument or the file is wrong.
    """
    try:
        selection = _select(arguments)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"cdal select: {error}\n")
        return 2
    if arguments.json:
        result = dataclasses.asdict(selection)
        sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
        return 0
    for warning in selection.warnings:
        sys.stderr.write(f"cdal select: {warning}\n")
    sys.stdout.writelines(f"{index}\n" for index in selection.indices)
    return 0


def _select(arguments: argparse.Namespace) -> Selection:
    selector = make_selector(arguments.selector, _options(arguments.option))
    if arguments.seed < 0:
        raise ValueError(f"the seed must be at least 0, not {arguments.seed}")
    pool = load_pool(arguments.pool)
    if arguments.labelled is not None:
        pool = _with_labelled(pool, arguments.labelled)
    if arguments.classes is not None:
        pool = pool.of_classes(_indices(arguments.classes))
    unlabelled = len(pool.unlabelled)
    if not 0 <= arguments.budget <= unlabelled:
        raise ValueError(
            f"the budget must be from 0 to {unlabelled}, the number of unlabelled images, "
            f"not {arguments.budget}"
        )
    pool = pool.to(_device(arguments.device))
    progress = _show_progress if sys.stderr.isatty() else None
    return selector.select(pool, arguments.budget, arguments.seed, progress)


def _show_progress(share: float) -> None:
    """Overwrite one line, and clear it at the end."""
    sys.stderr.write(f"\rselecting: {share:4.0%}" if share < 1 else "\r" + " " * 16 + "\r")
    sys.stderr.flush()


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # some devices have names, but no numbers
    except (RuntimeError, AssertionError, ImportError):  # as torch was compiled without it
        raise ValueError(f"the device {name} is not available") from None
    return device


def _options(given: list[str]) -> dict[str, str]:
    options = {}
    for option in given:
        name, equals, value = option.partition("=")
        if not equals or not name:
            raise ValueError(f"--option must be name=value, not {option!r}")
        options[name] = value
    return options


def _indices(given: str) -> list[int]:
    words = given.replace(",", " ").split()
    wrong = next((word for word in words if not (word.isascii() and word.isdecimal())), None)
    if wrong is not None or not words:
        raise PoolError(f"--classes must be indices such as 0,3, not {given!r}")
    return [int(word) for word in words]


def _is_file(given: str) -> bool:
    try:
        return Path(given).is_file()
    except OSError:  # a list of rows that is longer than a file's name may be
        return False


def _with_labelled(pool: Pool, given: str) -> Pool:
    """Label more rows of a pool, given as a list of numbers or as a file of them."""
    try:
        text = Path(given).read_text(encoding="utf-8") if _is_file(given) else given
    except UnicodeDecodeError:
        raise PoolError(f"--labelled: {given} is not a text file of row numbers") from None
    labelled = pool.labelled.clone()
    for word in text.replace(",", " ").split():
        if not (word.isascii() and word.isdecimal()):
            raise PoolError(f"--labelled: {word!r} is neither a row number nor a file")
        row = int(word)
        if row >= len(pool):
            raise PoolError(f"--labelled: there is no row {row}: the pool has {len(pool)} images")
        labelled[row] = True
    return dataclasses.replace(pool, labelled=labelled)
